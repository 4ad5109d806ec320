"""What ``storage/filesystem`` costs: a large object sent in parts and read back as a stream, against a plain copy.

Usage: python benchmarks/storage.py [--megabytes 1024] [--part-megabytes 4]

Sends the object part by part, completes it, reads it back, and prints how much memory the process has gained at its
peak (budget: less than 64 MiB, whatever the size) and the ratio to writing and reading one file with a SHA-256 digest
and a sync, which is the work that cannot be avoided. Exits with 1 when the budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from erp.contracts.models.storage import (
    CompleteMultipartRequest,
    CreateMultipartRequest,
    Part,
    ReadRequest,
    UploadPartRequest,
)
from erp.providers.storage.filesystem.provider import FileStorage
from erp.runtime.context import Actor, CallContext
from erp.runtime.standalone import place

BUDGET_MEGABYTES = 64
MEBIBYTE = 1024 * 1024


def peak_megabytes() -> float:
    """Return the most memory that this process has had (Linux counts kibibytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


async def through_the_provider(folder: Path, count: int, size: int) -> tuple[float, float, str]:
    """Return the seconds of sending and of reading, and the digest of what was read."""
    actor = Actor(id="bench", tenant="bench")
    context = CallContext(tenant="bench", actor=actor, request_id="r", deadline=time.monotonic() + 36_000)
    storage = FileStorage({}, place(folder, tenant="bench"))
    await storage.open()
    started = time.perf_counter()
    upload = (await storage.create_multipart(CreateMultipartRequest(key="large"), context)).upload
    sent = []
    for number in range(1, count + 1):
        request = UploadPartRequest(key="large", upload=upload, part=number, content=content(number, size))
        sent.append(Part(part=number, etag=(await storage.upload_part(request, context)).etag))
    await storage.complete_multipart(CompleteMultipartRequest(key="large", upload=upload, parts=sent), context)
    written = time.perf_counter()
    digest = hashlib.sha256()
    async for item in storage.read(ReadRequest(key="large", part_bytes=MEBIBYTE), context):
        digest.update(item.content)
    read = time.perf_counter()
    await storage.close()
    return written - started, read - written, digest.hexdigest()


def content(number: int, size: int) -> bytes:
    """Return the content of one part; every part is another one."""
    return number.to_bytes(8, "big") * (size // 8)


def plainly(path: Path, count: int, size: int) -> tuple[float, float, str]:
    """Write and read one file with a digest and a sync; return the seconds of both and the digest."""
    started = time.perf_counter()
    digest = hashlib.sha256()
    with path.open("wb") as file:
        for number in range(1, count + 1):
            chunk = content(number, size)
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    written = time.perf_counter()
    again = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(MEBIBYTE):
            again.update(chunk)
    return written - started, time.perf_counter() - written, again.hexdigest()


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--part-megabytes", type=int, default=4)
    options = parser.parse_args()
    count, size = options.megabytes // options.part_megabytes, options.part_megabytes * MEBIBYTE
    with tempfile.TemporaryDirectory() as folder:
        plain = plainly(Path(folder) / "plain", count, size)
        (Path(folder) / "plain").unlink()
        before = peak_megabytes()
        ours = asyncio.run(through_the_provider(Path(folder), count, size))
        gained = peak_megabytes() - before
    same = plain[2] == ours[2]
    print(f"sent {options.megabytes} MB in {ours[0]:.2f} s, plain {plain[0]:.2f} s: ratio {plain[0] / ours[0]:.2f}")
    print(f"read {options.megabytes} MB in {ours[1]:.2f} s, plain {plain[1]:.2f} s: ratio {plain[1] / ours[1]:.2f}")
    print(
        f"memory gained at the peak: {gained:.0f} MB   budget < {BUDGET_MEGABYTES} MB; content {'same' if same else 'DIFFERENT'}"
    )
    return 0 if gained < BUDGET_MEGABYTES and same else 1


if __name__ == "__main__":
    sys.exit(main())

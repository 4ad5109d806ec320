"""What ``storage/s3`` costs: a large object sent in parts and read back as a stream, and small ones next to raw ``obstore``.

Usage: python benchmarks/s3.py [--megabytes 1024] [--part-megabytes 8] [--small 300]

Uses the server of ERP_TEST_S3_MOTO, or starts one. Sends the object part by part, completes it, reads it back, and prints
how much memory this process has gained at its peak (budget: less than 64 MiB, whatever the size). Then writes and reads
objects of 1 KiB with the provider and with the library alone, in interleaved rounds, and prints the CPU time of this
process for each (the server is another one) and the ratio. Exits with 1 when the budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import resource
import secrets
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from erp.contracts.models import storage as api
from erp.providers.storage.s3.provider import S3Storage
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.context import Actor, CallContext
from erp.runtime.standalone import place

BUDGET_MEGABYTES = 64
MEBIBYTE = 1024 * 1024
ROUNDS = 6
ROOT = Path(__file__).parents[1]


def peak_megabytes() -> float:
    """Return the most memory that this process has had (Linux counts kibibytes)."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@contextmanager
def server() -> Iterator[str]:
    """The address of a bucket."""
    if address := os.environ.get("ERP_TEST_S3_MOTO"):
        yield address
        return
    with tempfile.TemporaryDirectory() as folder:
        services = [str(ROOT / "scripts/services")]
        try:
            found = subprocess.run(
                [*services, "up", f"{folder}/services", "s3_moto"], check=True, capture_output=True, text=True
            )
            yield found.stdout.partition("'")[2].partition("'")[0]
        finally:
            subprocess.run([*services, "down", f"{folder}/services"], check=True)


def settings(address: str) -> dict[str, Any]:
    """Return the provider's configuration."""
    url = urlsplit(address)
    manifest = ProviderCatalog.load().provider("storage", "s3")
    return {
        **manifest.defaults,
        "namespace": f"bench-{secrets.token_hex(4)}",
        "endpoint": f"{url.scheme}://{url.hostname}:{url.port}",
        "bucket": url.path.strip("/"),
        "access_key_id": unquote(url.username or ""),
        "secret_access_key": unquote(url.password or ""),
        "timeout_seconds": 300,
    }


def opened(config: dict[str, Any], folder: Path) -> S3Storage:
    """Return the provider, not open yet."""
    return S3Storage(config, place(folder, tenant="bench"))


def call() -> CallContext:
    """Return the facts of one call."""
    actor = Actor(id="bench", tenant="bench")
    return CallContext(tenant="bench", actor=actor, request_id="r", deadline=time.monotonic() + 36_000)


def content(number: int, size: int) -> bytes:
    """Return the content of one part; every part is another one."""
    return number.to_bytes(8, "big") * (size // 8)


async def large(storage: S3Storage, count: int, size: int) -> tuple[float, float, bool]:
    """Return the seconds of sending and of reading, and whether what was read is what was sent."""
    started = time.perf_counter()
    sent, digest = [], hashlib.sha256()
    upload = (await storage.create_multipart(api.CreateMultipartRequest(key="large"), call())).upload
    for number in range(1, count + 1):
        chunk = content(number, size)
        digest.update(chunk)
        request = api.UploadPartRequest(key="large", upload=upload, part=number, content=chunk)
        sent.append(api.Part(part=number, etag=(await storage.upload_part(request, call())).etag))
    await storage.complete_multipart(api.CompleteMultipartRequest(key="large", upload=upload, parts=sent), call())
    written = time.perf_counter()
    again = hashlib.sha256()
    async for item in storage.read(api.ReadRequest(key="large", part_bytes=MEBIBYTE), call()):
        again.update(item.content)
    return written - started, time.perf_counter() - written, digest.digest() == again.digest()


async def microseconds(work: Callable[[], Awaitable[Any]], times: int) -> float:
    """Return the CPU time of this process for each run of ``work``."""
    started = time.process_time()
    for _ in range(times):
        await work()
    return (time.process_time() - started) / times * 1e6


async def small(storage: S3Storage, config: dict[str, Any], times: int) -> None:
    """Print what small objects cost, next to the library alone."""
    import obstore
    from obstore.store import S3Store

    names = ("endpoint", "region", "access_key_id", "secret_access_key")
    chosen: Any = {name: config[name] for name in names}
    raw = S3Store(config["bucket"], config=chosen, client_options={"allow_http": True})
    name, body = f"{config['namespace']}/raw", bytes(1024)

    async def raw_get() -> bytes:
        return bytes(await (await obstore.get_async(raw, name)).bytes_async())

    pairs: dict[str, tuple[Callable[[], Awaitable[Any]], Callable[[], Awaitable[Any]]]] = {
        "put": (
            lambda: storage.put(api.PutRequest(key="small", content=body), call()),
            lambda: obstore.put_async(raw, name, body),
        ),
        "get": (lambda: storage.get(api.GetRequest(key="small"), call()), raw_get),
    }
    for action, (ours, theirs) in pairs.items():
        rounds = [
            (await microseconds(ours, times // ROUNDS), await microseconds(theirs, times // ROUNDS))
            for _ in range(ROUNDS)
        ]
        ratios = [their / our for our, their in rounds]
        cost, alone = (statistics.median(column) for column in zip(*rounds, strict=True))
        print(
            f"{action} of 1 KiB: {cost:.0f} us of CPU, obstore alone {alone:.0f} us: "
            f"ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


async def measure(address: str, folder: Path, options: argparse.Namespace) -> bool:
    """Print all figures; return whether they are within the budget."""
    config = settings(address)
    storage = opened(config, folder)
    await storage.open()
    await small(storage, config, 2 * ROUNDS)  # what is imported late is loaded now
    before = peak_megabytes()
    count, size = options.megabytes // options.part_megabytes, options.part_megabytes * MEBIBYTE
    started = time.process_time()
    sending, reading, is_same = await large(storage, count, size)
    cost, gained = time.process_time() - started, peak_megabytes() - before
    print(
        f"sent {options.megabytes} MB in {sending:.2f} s, read them in {reading:.2f} s; CPU of this process {cost:.2f} s"
    )
    print(f"memory gained at the peak: {gained:.0f} MB   budget < {BUDGET_MEGABYTES} MB")
    print(f"content {'same' if is_same else 'DIFFERENT'}")
    await storage.delete(api.DeleteRequest(key="large"), call())
    await small(storage, config, options.small)
    await storage.close()
    return is_same and gained < BUDGET_MEGABYTES


def main() -> int:
    """Run from the command line; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=1024)
    parser.add_argument("--part-megabytes", type=int, default=8)
    parser.add_argument("--small", type=int, default=300)
    options = parser.parse_args()
    os.environ.setdefault("ERP_EGRESS_ALLOW", "127.0.0.0/8")
    with server() as address, tempfile.TemporaryDirectory() as folder:
        return 0 if asyncio.run(measure(address, Path(folder), options)) else 1


if __name__ == "__main__":
    sys.exit(main())

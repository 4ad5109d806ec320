"""The generated documents pass a linter that knows nothing of us."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TOOL = ROOT / "tools" / "contract-lint"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(300),
    pytest.mark.skipif(shutil.which("npm") is None, reason="the independent linter needs Node.js with npm"),
]


@pytest.fixture(scope="session")
def linter() -> Path:
    """Redocly CLI, installed once per lock into a cache outside the repository."""
    lock = (TOOL / "package-lock.json").read_bytes()
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root / "erp-contract-lint" / hashlib.sha256(lock).hexdigest()[:16]
    program = folder / "node_modules" / ".bin" / "redocly"
    if not program.exists():
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("package.json", "package-lock.json", ".npmrc"):
            shutil.copy(TOOL / name, folder / name)
        done = subprocess.run(["npm", "ci"], cwd=folder, capture_output=True, text=True, timeout=240, check=False)
        if done.returncode:
            pytest.skip(f"the independent linter could not be installed: {done.stderr[-300:]}")
    return program


@pytest.mark.parametrize("name", ["openapi.json", "asyncapi.json"])
def test_a_generated_document_passes_an_independent_linter(linter: Path, name: str) -> None:
    document = ROOT / "src" / "erp" / "contracts" / name
    done = subprocess.run(
        [linter, "lint", "--config", TOOL / "redocly.yaml", "--max-problems", "20", document],
        capture_output=True,
        text=True,
        env={**os.environ, "REDOCLY_TELEMETRY": "off", "REDOCLY_SUPPRESS_UPDATE_NOTICE": "true"},
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr

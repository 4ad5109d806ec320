"""An identity provider of SAML made with samlify (npm), as a process of node (``saml_idp.mjs``)."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

SAMLIFY = "samlify@2.13.1"
SCRIPT = Path(__file__).with_name("saml_idp.mjs")


@dataclass(frozen=True)
class Encryption:
    """How an assertion is encrypted, and its key."""

    data: str = "http://www.w3.org/2009/xmlenc11#aes256-gcm"
    key: str = "http://www.w3.org/2001/04/xmlenc#rsa-oaep-mgf1p"

    @property
    def algorithms(self) -> dict[str, str]:
        return {"dataEncryptionAlgorithm": self.data, "keyEncryptionAlgorithm": self.key}


class IdentityProvider:
    """Answers requests for sign-ins."""

    def __init__(self, folder: Path, modules: Path) -> None:
        self._modules = modules
        self.key, self.certificate = folder / "idp.key", folder / "idp.crt"
        make = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=idp"]
        files = ["-keyout", str(self.key), "-out", str(self.certificate)]
        subprocess.run([*make, *files], check=True, capture_output=True, timeout=60)
        self._process = subprocess.Popen(
            ["node", str(SCRIPT), str(self.key), str(self.certificate)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "NODE_FOLDER": str(modules)},
        )

    def answer(self, request: str, metadata: str, encryption: Encryption | None = None, **facts: str) -> str:
        """Return the XML of a signed response; with ``encryption`` for the key that is in ``metadata``."""
        algorithms = None if encryption is None else encryption.algorithms
        job = {"request": request, "spMetadata": metadata, "facts": facts, "encryption": algorithms}
        return base64.b64decode(self._done(job)["response"]).decode()

    def logout(self, metadata: str, name_id: str, session_index: str = "", **more: Any) -> str:
        """Return where the provider sends the browser to end sessions (``relayState``, ``unsigned``, ``facts``)."""
        job = {"logout": {"nameId": name_id, "sessionIndex": session_index, **more}, "spMetadata": metadata}
        return str(self._done(job)["url"])

    def answered(self, url: str, metadata: str) -> dict[str, Any]:
        """Return what the provider makes of a signed answer to it."""
        return self._done({"answered": url, "spMetadata": metadata})

    def _done(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        found: dict[str, Any] = json.loads(self._process.stdout.readline())
        assert "error" not in found, found
        return found

    def stranger(self) -> IdentityProvider:
        """Return a provider with the same name and a key that nobody trusts."""
        folder = self.key.with_name("stranger")
        folder.mkdir()
        return IdentityProvider(folder, self._modules)

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        self._process.wait(30)


@contextmanager
def identity_provider(modules: Path, folder: Path) -> Iterator[IdentityProvider]:
    """Install samlify below ``modules`` and run a provider whose key and certificate are in ``folder``."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm (for samlify)")
    install = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", SAMLIFY]
    done = subprocess.run(install, cwd=modules, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        pytest.skip(f"{SAMLIFY} cannot be installed here")
    made = IdentityProvider(folder, modules)
    try:
        yield made
    finally:
        made.close()

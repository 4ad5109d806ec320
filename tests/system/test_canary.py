"""Marked secrets go in everywhere a secret goes in; nothing that comes out anywhere shows a mark.

Driven by the catalog: a new provider's secret settings are planted without a line here.
"""

from __future__ import annotations

import base64
import secrets
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.support.process import Server, erp
from tests.system.conftest import StartServer

from erp.runtime.action import field_errors, validator
from erp.runtime.catalog import ProviderCatalog
from erp.runtime.conformance.samples import sample
from erp.runtime.manifest import ProviderManifest

CATALOG = ProviderCatalog.load()
PLAIN: tuple[Any, ...] = (
    "http://127.0.0.1:1", "127.0.0.1:1", ["127.0.0.1:1"], "amqp://127.0.0.1:1", "nats://127.0.0.1:1", "a", "aaa", "aa-bb", "eu-west-1", "127.0.0.1", "a@b.example", "a/b", "{}", 1, True, [], {},
)  # fmt: skip
SHAPES = (
    "{mark}",
    "sk-{mark}",
    "postgresql://u:{mark}@127.0.0.1:1/d",
    "https://127.0.0.1:1/{mark}",
    "{mark}=",
    "whsec_{mark}{mark}",
    "{mark:A<58}",
)


class Marks:
    """Every mark that was planted, and where."""

    def __init__(self) -> None:
        self.planted: dict[str, str] = {}

    def new(self, where: str) -> str:
        mark = f"canary{secrets.token_hex(12)}"
        self.planted[mark] = where
        return mark

    def key(self, where: str) -> str:
        """A key of 32 bytes in base64; the mark is what it is written as."""
        text = base64.b64encode(secrets.token_bytes(32)).decode()
        self.planted[text] = where
        return text

    def seen_in(self, content: bytes) -> list[str]:
        """Return which marks are there: as text, in base64, or reversed into hexadecimal digits."""
        found = []
        for mark, where in self.planted.items():
            raw = mark.encode()
            forms = (raw, base64.b64encode(raw).rstrip(b"=")[:-1], raw.hex().encode())
            if any(form in content for form in forms):
                found.append(where)
        return found


@pytest.fixture
def collector() -> Iterator[tuple[str, list[bytes]]]:
    """A place for spans: its address, and what arrived."""
    arrived: list[bytes] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            arrived.append(self.rfile.read(int(self.headers["content-length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}", arrived
    server.shutdown()
    server.server_close()
    thread.join()


def fitting(schema: dict[str, Any], candidates: Any) -> Any:
    """Return the first candidate that a setting accepts."""
    for candidate in candidates:
        if not field_errors(validator(schema), candidate):
            return candidate
    pytest.fail(f"no candidate fits {schema}; add one")


def configuration(manifest: ProviderManifest, marks: Marks) -> dict[str, Any]:
    """Return what the schema of a provider wants, with a mark in every secret."""
    config: dict[str, Any] = {}
    for name, schema in manifest.config["properties"].items():
        if name in manifest.secret_fields:
            mark = marks.new(f"{manifest.ref} {name}")
            config[name] = fitting(schema, (shape.format(mark=mark) for shape in SHAPES))
        elif name in manifest.config.get("required", []):
            config[name] = fitting(schema, (*schema.get("enum", []), *PLAIN))
    return {
        **config,
        **{k: v for k, v in (manifest.conformance.get("unreachable") or {}).items() if isinstance(v, str)},
    }


def drive(server: Server, manifest: ProviderManifest, marks: Marks) -> list[bytes]:
    """Configure a provider rightly and wrongly, call it, ask about it; return every answer."""
    config, path = configuration(manifest, marks), f"/providers/{manifest.ref}"
    broken = {**config, **{name: [config[name]] for name in manifest.secret_fields}}
    action, params = sample(manifest.domain, "canary-sample", manifest.conformance.get("sample"))
    bodies = ({"config": config}, {"config": config, "may_be_down": True}, {"config": broken}, {"confg": config})
    with server.client("admin") as admin:
        answers = [admin.post(f"{path}/configure", json=body).content for body in bodies]
        answers += [admin.get(f"{path}{where}").content for where in ("", "/health", "/configure", "/metrics")]
        answers.append(admin.post(f"{path}/{action}", json={"params": params}).content)
    return answers


def pages(server: Server) -> list[bytes]:
    """Ask for everything that shows what is there, and export it."""
    shown = ("/providers", "/connections", "/metrics", "/health", "/audit", "/operations", "/keys", "/openapi.json")
    found: list[bytes] = []
    for role in ("admin", "platform"):
        with server.client(role) as client:
            found += [client.get(path).content for path in shown]
        exported = erp("export", "--url", server.address, "--key", server.keys[role])
        found.append((exported.stdout + exported.stderr).encode())
    return found


def files(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file that the layer has made, but its key files."""
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "keys" not in path.relative_to(folder).parts[:1]:
            yield str(path.relative_to(folder)), path.read_bytes()


def stored(server: Server, marks: Marks) -> list[bytes]:
    """Store secrets, ask for one back, and get a token; return the answers that must not show any."""
    answers: list[bytes] = []
    with server.client("admin") as admin:
        for action in ("put", "rotate"):
            body = {"params": {"path": "canary", "value": marks.new(f"secrets/local {action}")}}
            kept = admin.post(f"/providers/secrets/local/{action}", json=body)
            assert kept.status_code == 200, kept.text
            answers.append(kept.content)
        got = admin.post("/providers/secrets/local/get", json={"params": {"path": "canary"}})
        assert got.status_code in {403, 404}
        answers.append(got.content)
        token = admin.post(
            "/providers/auth/local/exchange", json={"params": {"subject_token": server.keys["developer"]}}
        )
        if token.status_code == 200:
            marks.planted[token.json()["data"]["access_token"]] = "an access token"
    return answers


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_secret_comes_out_anywhere(
    furnished: Path, start_server: StartServer, collector: tuple[str, list[bytes]]
) -> None:
    marks = Marks()
    address, spans = collector
    environment = {
        "ERP_KEK_URL": "env:ERP_KEK",
        "ERP_KEK": marks.key("ERP_KEK"),
        "ERP_PEPPER": (furnished / "keys" / "pepper").read_text(),
        "OTEL_EXPORTER_OTLP_ENDPOINT": address,
        "ERP_LOG_LEVEL": "debug",
        "ERP_EGRESS_ALLOW": "127.0.0.0/8",
    }
    marks.planted[environment["ERP_PEPPER"]] = "ERP_PEPPER"
    server = start_server(furnished, environment=environment)
    for role, key in server.keys.items():
        marks.planted[key] = f"API key of {role}"

    answers: list[bytes] = []
    planted = [one for one in CATALOG.providers.values() if one.secret_fields]
    for manifest in planted:
        answers += drive(server, manifest, marks)
    answers += stored(server, marks)
    answers += pages(server)
    server.signal(15)
    server.ended()

    assert len(marks.planted) >= sum(len(one.secret_fields) for one in planted) + 7
    assert spans, "no span was exported"
    seen = {"answers": marks.seen_in(b"\n".join(answers)), "log": marks.seen_in(server.log.encode())}
    seen |= {"spans": marks.seen_in(b"\n".join(spans))}
    seen |= {name: marks.seen_in(content) for name, content in files(furnished)}
    assert {where: found for where, found in seen.items() if found} == {}

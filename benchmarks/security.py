"""What identity and policy cost: the pipeline with an issuer's JWT and the policy against an API key and plain roles.

Usage: python benchmarks/security.py [--rounds 9] [--seconds 1.5] [--quick]

Prints requests per CPU second of the server process (median and spread over interleaved rounds) for ``cache/memory
get`` with a token and the policy, with an API key and the policy, and with an API key and roles as plain Python; the
ratio of the first to the last (budget: at least 0.8); and what it costs when nothing is remembered: a decision, the
verification of a token, and one whose key has to be fetched first. Exits with 1 when the budget is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from joserfc import jwt
from joserfc.jwk import RSAKey
from load import Server, median, spread, start
from pipeline import ERP, fill, per_cpu_second, reads

HERE = Path(__file__).parent
ROLES = [sys.executable, str(HERE / "role_table.py")]
BUDGET = 0.8
AUDIENCE = "https://erp.example"
UNLIMITED = {"requests": 1_000_000, "period_seconds": 1}
"""The default limit of a tenant is less than what a fast machine serves."""
EGRESS = {"ERP_EGRESS_ALLOW": "127.0.0.1/32"}


class Issuer:
    """Signs tokens and publishes its key."""

    def __init__(self) -> None:
        self.address = ""
        self.rotate()

    def rotate(self) -> None:
        """Sign with a new key."""
        self.key = RSAKey.generate_key(2048, {"kid": f"key-{time.monotonic_ns()}"})

    def token(self) -> str:
        """Return an access token for an hour."""
        now = int(time.time())
        claims = {"iss": self.address, "sub": "ada", "aud": AUDIENCE, "iat": now, "exp": now + 3600, "roles": ["user"]}
        return jwt.encode({"alg": "RS256", "typ": "at+jwt", "kid": self.key.kid}, claims, self.key)

    def config(self) -> dict[str, object]:
        """Return the configuration of ``auth/oidc``."""
        return {"issuer": self.address, "audience": AUDIENCE, "role_map": {"user": "developer"}}

    def answer(self, path: str) -> dict[str, object]:
        """Return the document at ``path``."""
        if path == "/jwks":
            return {"keys": [self.key.as_dict(private=False)]}
        return {"issuer": self.address, "jwks_uri": f"{self.address}/jwks"}


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Run an issuer on loopback for the length of a block."""
    issuer = Issuer()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None: ...

        def do_GET(self) -> None:
            body = json.dumps(issuer.answer(self.path)).encode()
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    issuer.address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield issuer
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def layer(name: str, command: list[str], folder: Path) -> tuple[Server, dict[str, str]]:
    """Start a layer with a tenant; return it with keys of a developer and an administrator."""
    data = ["--data-dir", str(folder / name)]
    subprocess.run([*ERP, "tenants", "create", "bench", *data], check=True, capture_output=True)
    keys = {}
    for role in ("developer", "admin"):
        create = [*ERP, "keys", "create", "--tenant", "bench", "--role", role, *data]
        keys[role] = subprocess.run(create, check=True, capture_output=True, text=True).stdout.strip()
    server = start(name, [*command, "serve", "--port", "0", *data], log=folder / f"{name}.log", env=EGRESS)
    fill(server, keys["developer"])
    return server, keys


def administer(server: Server, admin: str, method: str, path: str, body: object) -> None:
    """Change something of the tenant."""
    change = urllib.request.Request(
        f"http://{server.host}:{server.port}{path}",
        json.dumps(body).encode(),
        {"Authorization": f"Bearer {admin}", "Content-Type": "application/json"},
        method=method,
    )
    with urllib.request.urlopen(change) as answer:
        assert answer.status == 200


def pipelines(issuer: Issuer, folder: Path, rounds: int, seconds: float) -> float:
    """Print requests per CPU second of every side; return the median ratio token and policy / key and roles."""
    ours, keys = layer("policy", ERP, folder)
    plain, other_keys = layer("roles", ROLES, folder)
    try:
        administer(ours, keys["admin"], "POST", "/providers/auth/oidc/configure", {"config": issuer.config()})
        for server, admin in ((ours, keys["admin"]), (plain, other_keys["admin"])):
            administer(server, admin, "PATCH", "/tenants/bench", {"policy": {"rate": UNLIMITED}})
        sides = {
            "token, policy": (ours, reads(issuer.token())),
            "API key, policy": (ours, reads(keys["developer"])),
            "API key, roles": (plain, reads(other_keys["developer"])),
        }
        rates: dict[str, list[float]] = {name: [] for name in sides}
        for number in range(rounds + 1):
            for name, (server, source) in sides.items():
                rate = per_cpu_second(server, source, 16, seconds)
                if number:  # the first round warms up
                    rates[name].append(rate)
    finally:
        ours.stop()
        plain.stop()
    print("reads: requests per CPU second of the server, median (min to max)")
    for name, values in rates.items():
        print(f"  {name:16} {median(values):9.0f} ({min(values):.0f} to {max(values):.0f})")
    ratios = [first / last for first, last in zip(rates["token, policy"], rates["API key, roles"], strict=True)]
    print(f"  token, policy / API key, roles   {spread(ratios)}   budget >= {BUDGET}")
    return median(ratios)


async def _timed(times: int, work: Callable[[], Awaitable[object]]) -> list[float]:
    found = []
    for _ in range(times):
        started = time.perf_counter()
        await work()
        found.append((time.perf_counter() - started) * 1_000_000)
    return found


async def uncached(issuer: Issuer, folder: Path) -> None:
    """Print what is paid when nothing is remembered, in microseconds of wall time."""
    from erp.main import Settings, running
    from erp.security.policy.document import EXAMPLE
    from erp.vendor_clients.oidc.issuer import Issuer as Client
    from erp.vendor_clients.oidc.settings import IssuerSettings
    from erp.vendor_clients.oidc.wire import issuer_http

    os.environ.update(EGRESS)
    client = Client(IssuerSettings.of(issuer.config()), issuer_http(), "bench")
    token = issuer.token()
    await client.verify(token)
    verified = await _timed(500, lambda: client.verify(token))

    async def rotated() -> None:
        await client.verify(fresh[0])

    rotations = []
    for _ in range(20):
        issuer.rotate()
        fresh = [issuer.token()]
        client.keys._fetched_at -= 60  # noqa: SLF001  (a minute passes)
        rotations += await _timed(1, rotated)
    await client.aclose()
    async with running(Settings(data_dir=folder / "uncached", database_url=None, log_level="error")) as made:
        await made.control.tenants.create("acme")
        await made.policy.decide(EXAMPLE)

        async def decided() -> None:
            made.policy.forget_all()
            await made.policy.decide(EXAMPLE)

        decisions = await _timed(200, decided)
    print("\nwith nothing remembered: microseconds, median (min to max)")
    print(f"  decision of the embedded policy    {spread(decisions)}")
    print(f"  verification of a token (RS256)    {spread(verified)}")
    print(f"  the same after the key was changed {spread(rotations)}")


def main() -> int:
    """Run all parts; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--quick", action="store_true", help="three rounds of half a second")
    options = parser.parse_args()
    rounds, seconds = (3, 0.5) if options.quick else (options.rounds, options.seconds)
    with tempfile.TemporaryDirectory() as name, issuing() as issuer:
        ratio = pipelines(issuer, Path(name), rounds, seconds)
        asyncio.run(uncached(issuer, Path(name)))
    kept = ratio >= BUDGET
    print("\nthe budget is kept" if kept else "\nthe budget was missed")
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())

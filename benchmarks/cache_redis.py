"""What ``cache/redis get`` costs over HTTP with all steps, against a bare FastAPI handler asking the same Redis by redis-py.

Usage: python benchmarks/cache_redis.py [--rounds 9] [--seconds 1.5] [--concurrency 16] [--quick]

Starts a private redis-server. Prints requests per CPU second of the server process (median and spread over interleaved
rounds) and the ratio layer/FastAPI (budget: at least 1.0). Exits with 1 when the budget is missed.
"""

from __future__ import annotations

import argparse
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from load import Server, endless, median, request, spread, start
from pipeline import ERP, per_cpu_second

HERE = Path(__file__).parent
RATIO_BUDGET = 1.0
PATH = "/providers/cache/redis"
VALUE = {"amount": "19.90", "currency": "EUR"}


def redis_server(folder: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start Redis on a free loopback port; nothing is written to disk."""
    program = shutil.which("redis-server")
    if program is None:
        sys.exit("redis-server is not installed")
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    command = [program, "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return process, port
    process.kill()
    sys.exit("redis-server did not start")


def layer(folder: Path, port: int) -> tuple[Server, str]:
    """Start the layer with a connection to Redis that holds a thousand values; return it with a developer's key."""
    data = ["--data-dir", str(folder / "data")]
    subprocess.run([*ERP, "tenants", "create", "bench", *data], check=True, capture_output=True)
    admin, developer = (_key(role, data) for role in ("admin", "developer"))
    allowed = {"ERP_EGRESS_ALLOW": "127.0.0.1/32"}
    server = start("layer", [*ERP, "serve", "--port", "0", *data], log=folder / "layer.log", env=allowed)
    config = {"hosts": [f"127.0.0.1:{port}"]}
    _post(server, f"{PATH}/configure", admin, {"connection": "default", "config": config})
    entries = [{"key": f"k{number}", "value": VALUE} for number in range(1000)]
    _post(server, f"{PATH}/set_many", developer, {"params": {"entries": entries}})
    return server, developer


def _key(role: str, data: list[str]) -> str:
    command = [*ERP, "keys", "create", "--tenant", "bench", "--role", role, *data]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def _post(server: Server, path: str, key: str, body: Any) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    address = f"http://{server.host}:{server.port}{path}"
    with urllib.request.urlopen(urllib.request.Request(address, json.dumps(body).encode(), headers)) as answer:
        assert answer.status == 200


def reads(path: str, key: str) -> Callable[[], bytes]:
    """Return a source of read requests."""
    headers = {"authorization": f"Bearer {key}"}
    prepared = [request(path, b'{"params": {"key": "k%d"}}' % number, headers) for number in range(1000)]
    return endless(lambda number: prepared[number % 1000])


def compared(servers: dict[str, Server], key: str, options: argparse.Namespace) -> float:
    """Print requests per CPU second of both sides; return the median ratio."""
    rates: dict[str, list[float]] = {name: [] for name in servers}
    for number in range(options.rounds + 1):
        for name, server in servers.items():
            rate = per_cpu_second(server, reads(f"{PATH}/get", key), options.concurrency, options.seconds)
            if number:  # the first round warms up
                rates[name].append(rate)
    print("\nreads: requests per CPU second of the server, median (min to max)")
    for name, values in rates.items():
        print(f"  {name:10} {median(values):9.0f} ({min(values):.0f} to {max(values):.0f})")
    ratios = [ours / bare for ours, bare in zip(rates["layer"], rates["fastapi"], strict=True)]
    print(f"  layer / fastapi    {spread(ratios)}   budget >= {RATIO_BUDGET}")
    return median(ratios)


def main() -> int:
    """Run the comparison; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--quick", action="store_true", help="three rounds of half a second")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.seconds = 3, 0.5
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        redis, port = redis_server(folder)
        servers: dict[str, Server] = {}
        try:
            servers["layer"], key = layer(folder, port)
            command = [sys.executable, str(HERE / "bare.py"), "fastapi-redis", str(port)]
            servers["fastapi"] = start("fastapi", command, log=folder / "fastapi.log")
            ratio = compared(servers, key, options)
        finally:
            for server in servers.values():
                server.stop()
            redis.kill()
            redis.wait(30)
    print("\nthe budget was kept" if ratio >= RATIO_BUDGET else "\nthe budget was missed")
    return 0 if ratio >= RATIO_BUDGET else 1


if __name__ == "__main__":
    sys.exit(main())

"""Redis as tests need it: servers that can be killed, sentinels that watch over them, and a cluster. All on 127.0.0.1."""

from __future__ import annotations

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.exceptions import RedisError

HOST = "127.0.0.1"
PASSWORD = "of-the-test-servers"
PATIENCE_SECONDS = 30


def free_port() -> int:
    """A port nobody listens on now."""
    with socket.create_server((HOST, 0)) as found:
        return int(found.getsockname()[1])


def needs(*programs: str) -> None:
    """Skip the test by the name of a program that is missing."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"needs the program {program}")


def eventually(holds: Callable[[], object], what: str) -> None:
    """Wait until ``holds`` answers something true."""
    ends = time.monotonic() + PATIENCE_SECONDS
    while not holds():
        assert time.monotonic() < ends, f"it did not happen that {what}"
        time.sleep(0.05)


def reachable(port: int) -> bool:
    """Whether somebody listens on ``port``."""
    try:
        socket.create_connection((HOST, port), 1).close()
    except OSError:
        return False
    return True


class RedisServer:
    """One process; its folder and port stay when it is killed and started again."""

    def __init__(self, folder: Path, *options: str, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """``127.0.0.1:PORT``."""
        return f"{HOST}:{self.port}"

    def start(self) -> RedisServer:
        """Start it and wait until it answers."""
        command = ["redis-server", *self._options, "--port", str(self.port), "--bind", HOST, "--dir", str(self.folder)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        eventually(lambda: reachable(self.port), f"{' '.join(command)} answers")
        return self

    @contextlib.contextmanager
    def client(self) -> Iterator[Redis]:
        """A client of the test's own."""
        with contextlib.closing(Redis(HOST, self.port, password=self._password(), decode_responses=True)) as made:
            yield made

    def _password(self) -> str | None:
        return PASSWORD if "--requirepass" in self._options else None

    def ask(self, *command: Any) -> Any:
        """Send one command."""
        with self.client() as client:
            return client.execute_command(*command)  # type: ignore[no-untyped-call]  # redis-py annotates most, not this

    def facts(self, section: str) -> dict[str, str]:
        """A section of INFO."""
        with self.client() as client:
            return {name: str(value) for name, value in client.info(section).items()}

    def kill(self) -> None:
        """End it as a failing machine would. Safe twice."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(PATIENCE_SECONDS)

    def pause(self) -> None:
        """Stop it: it answers nobody, and its connections stay."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)


SECURED = ("--requirepass", PASSWORD, "--masterauth", PASSWORD, "--save", "")


@contextlib.contextmanager
def single(folder: Path, *options: str) -> Iterator[RedisServer]:
    """One server with a password."""
    needs("redis-server")
    server = RedisServer(folder, *SECURED, "--appendonly", "no", *options)
    try:
        yield server.start()
    finally:
        server.kill()


class Watched:
    """A master, its replica and three sentinels."""

    def __init__(self, folder: Path) -> None:
        self.servers = [RedisServer(folder / f"server-{number}", *SECURED) for number in range(2)]
        self.sentinels = [self._sentinel(folder / f"sentinel-{number}") for number in range(3)]

    def _sentinel(self, folder: Path) -> RedisServer:
        folder.mkdir(parents=True)
        settings = folder / "sentinel.conf"
        settings.write_text(
            f"sentinel monitor mymaster {HOST} {self.servers[0].port} 2\n"
            f"sentinel auth-pass mymaster {PASSWORD}\n"
            "sentinel down-after-milliseconds mymaster 1000\n"
            "sentinel failover-timeout mymaster 5000\n"
        )
        return RedisServer(folder, str(settings), "--sentinel")

    def start(self) -> Watched:
        """Start all, and wait until the sentinels know each other and the replica."""
        master, replica = self.servers
        master.start()
        replica.start().ask("REPLICAOF", HOST, master.port)
        eventually(
            lambda: replica.facts("replication").get("master_link_status") == "up", "the replica follows the master"
        )
        for sentinel in self.sentinels:
            sentinel.start()
        eventually(lambda: all(map(self._sees_all, self.sentinels)), "the sentinels know each other and the replica")
        return self

    @staticmethod
    def _sees_all(sentinel: RedisServer) -> bool:
        with sentinel.client() as client:
            facts: Any = client.sentinel_master("mymaster")
        return bool(facts["num-other-sentinels"] == 2 and facts["num-slaves"] == 1)

    def master(self) -> RedisServer:
        """The server that the sentinels call the master now."""
        with self.sentinels[0].client() as client:
            found: Any = client.sentinel_get_master_addr_by_name("mymaster")
        return next(server for server in self.servers if server.port == int(found[1]))

    def kill(self) -> None:
        """End all."""
        for server in (*self.sentinels, *self.servers):
            server.kill()


@contextlib.contextmanager
def watched(folder: Path) -> Iterator[Watched]:
    """A master and a replica behind three sentinels."""
    needs("redis-server")
    made = Watched(folder)
    try:
        yield made.start()
    finally:
        made.kill()


class Cluster:
    """Three nodes that share the slots."""

    def __init__(self, folder: Path) -> None:
        self.nodes = [self._node(folder / f"node-{number}") for number in range(3)]

    @staticmethod
    def _node(folder: Path) -> RedisServer:
        between = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--cluster-node-timeout", "2000")
        return RedisServer(folder, *SECURED, *between)

    def start(self) -> Cluster:
        """Start the nodes, and make a cluster of them."""
        for node in self.nodes:
            node.start()
        addresses = [node.address for node in self.nodes]
        create = ["redis-cli", "-a", PASSWORD, "--no-auth-warning", "--cluster", "create", *addresses, "--cluster-yes"]
        made = subprocess.run(create, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False)
        assert made.returncode == 0, made.stdout + made.stderr
        self.wait()
        return self

    def wait(self) -> None:
        """Wait until every node serves."""
        eventually(self._is_whole, "every node knows that the cluster is whole")

    def _is_whole(self) -> bool:
        try:
            found = [node.ask("CLUSTER", "INFO") for node in self.nodes]
        except RedisError:
            return False
        return all("cluster_state:ok" in facts and "cluster_known_nodes:3" in facts for facts in found)

    def id_of(self, node: RedisServer) -> str:
        """The name of a node in the cluster."""
        return str(node.ask("CLUSTER", "MYID"))

    def owner(self, slot: int) -> RedisServer:
        """The node that serves a slot."""
        ranges: Any = self.nodes[0].ask("CLUSTER", "SLOTS")
        for first, last, (_, port, *_), *_ in ranges:
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise AssertionError(f"nobody serves the slot {slot}")

    def begin_move(self, slot: int, target: RedisServer) -> None:
        """Move the keys of a slot to ``target``; the cluster does not know yet that it serves them."""
        source = self.owner(slot)
        target.ask("CLUSTER", "SETSLOT", slot, "IMPORTING", self.id_of(source))
        source.ask("CLUSTER", "SETSLOT", slot, "MIGRATING", self.id_of(target))
        while keys := source.ask("CLUSTER", "GETKEYSINSLOT", slot, 100):
            source.ask("MIGRATE", HOST, target.port, "", 0, 5000, "AUTH", PASSWORD, "KEYS", *keys)

    def end_move(self, slot: int, target: RedisServer) -> None:
        """Tell all nodes that ``target`` serves the slot."""
        for node in (target, *(one for one in self.nodes if one is not target)):
            node.ask("CLUSTER", "SETSLOT", slot, "NODE", self.id_of(target))

    def kill(self) -> None:
        """End all."""
        for node in self.nodes:
            node.kill()


@contextlib.contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """A cluster of three nodes."""
    needs("redis-server", "redis-cli")
    made = Cluster(folder)
    try:
        yield made.start()
    finally:
        made.kill()

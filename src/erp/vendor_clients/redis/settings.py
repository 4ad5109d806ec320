"""The configuration of a connection to Redis or Valkey, read once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from erp.runtime.spi import ErrorCode, FieldError, ProviderError

Mode: TypeAlias = Literal["single", "cluster", "sentinel"]
Address: TypeAlias = tuple[str, int]

PORTS: Mapping[str, int] = {"single": 6379, "cluster": 6379, "sentinel": 26379}


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the servers are and how they are reached."""

    mode: Mode
    addresses: tuple[Address, ...]
    sentinel_service: str
    database: int
    username: str | None
    password: str | None = field(repr=False)
    sentinel_password: str | None = field(repr=False)
    tls: bool
    tls_ca: str | None
    max_connections: int
    pool_wait_seconds: float
    connect_timeout_seconds: float
    answer_timeout_seconds: float
    key_prefix: str


def settings_of(config: Mapping[str, Any]) -> Settings:
    """Read a validated configuration.

    Raises:
        ProviderError: ``invalid_argument`` naming the setting, where two of them do not fit together.
    """
    mode: Mode = config.get("mode", "single")
    port = config.get("port", PORTS[mode])
    hosts = config.get("hosts", ["127.0.0.1"])
    if mode == "single" and len(hosts) > 1:
        raise _wrong("hosts", "Name one host, or set mode to cluster or sentinel.")
    if mode == "cluster" and config.get("database", 0):
        raise _wrong("database", "A cluster has the database 0 alone; leave it out.")
    return Settings(
        mode=mode,
        addresses=tuple(_address(host, port) for host in hosts),
        sentinel_service=config.get("sentinel_service", "mymaster"),
        database=config.get("database", 0),
        username=config.get("username"),
        password=config.get("password"),
        sentinel_password=config.get("sentinel_password"),
        tls=config.get("tls", False),
        tls_ca=config.get("tls_ca"),
        max_connections=config.get("max_connections", 32),
        pool_wait_seconds=config.get("pool_wait_seconds", 2.0),
        connect_timeout_seconds=config.get("connect_timeout_seconds", 5.0),
        answer_timeout_seconds=config.get("answer_timeout_seconds", 10.0),
        key_prefix=config.get("key_prefix", "erp"),
    )


def _address(text: str, port: int) -> Address:
    """``host``, ``host:port``, ``[::1]``, ``[::1]:port`` or a bare IPv6 address."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, int(rest[1:]) if rest else port
    host, separator, own = text.rpartition(":")
    if not separator or ":" in host:
        return text, port
    return host, int(own)


def _wrong(setting: str, remedy: str) -> ProviderError:
    error = FieldError(f"/config/{setting}", remedy)
    return ProviderError(ErrorCode.INVALID_ARGUMENT, f"The setting {setting} does not fit the mode.", errors=[error])

"""One write of each domain whose effect can be counted afterwards: none lost, none doubled."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from tests.faults.conftest import Line


class Effect(Protocol):
    """A write that leaves a trace with a name, a read that always succeeds, and how often a name was written."""

    ACTION: str
    line: Line

    async def prepare(self) -> None: ...
    async def read(self, *, seconds: float | None = None) -> Any: ...
    async def write(self, name: str, *, seconds: float | None = None) -> Any: ...
    async def count(self, name: str) -> int: ...


class Counted:
    """Cache: a number that each write makes one larger. Where the cache cannot, a value that is there or not."""

    def __init__(self, line: Line) -> None:
        self.line = line

    @property
    def ACTION(self) -> str:  # noqa: N802  (a constant of the others)
        manifest = self.line.host.catalog.provider(self.line.domain, self.line.provider)
        return "increment" if "atomic_increment" in manifest.capabilities else "set"

    async def prepare(self) -> None:
        await self.line.call("set", {"key": "there", "value": 1})

    async def read(self, *, seconds: float | None = None) -> Any:
        return await self.line.call("get", {"key": "there"}, seconds=seconds)

    async def write(self, name: str, *, seconds: float | None = None) -> Any:
        params = {"key": name} if self.ACTION == "increment" else {"key": name, "value": 1}
        return await self.line.call(self.ACTION, params, key=f"{self.line.name}-{name}", seconds=seconds)

    async def count(self, name: str) -> int:
        found = await self.line.call("get", {"key": name})
        return int(found["value"]) if found["found"] else 0


class Inserted:
    """Database: a row that nothing keeps from being inserted twice."""

    ACTION = "execute"

    def __init__(self, line: Line, table: str | None = None) -> None:
        self.line = line
        self.table = table or f"faults_{line.name.replace('-', '_')}"

    async def prepare(self) -> None:
        await self.line.call("execute", {"sql": f"CREATE TABLE {self.table} (name VARCHAR(100))"})

    async def read(self, *, seconds: float | None = None) -> Any:
        return await self.line.call("query", {"sql": f"SELECT count(*) FROM {self.table}"}, seconds=seconds)

    async def write(self, name: str, *, seconds: float | None = None) -> Any:
        params = {"sql": f"INSERT INTO {self.table} (name) VALUES (?)", "parameters": [name]}
        return await self.line.call("execute", params, key=f"{self.line.name}-{name}", seconds=seconds)

    async def count(self, name: str) -> int:
        params = {"sql": f"SELECT count(*) FROM {self.table} WHERE name = ?", "parameters": [name]}
        return int((await self.line.call("query", params))["rows"][0][0])


class Published:
    """Bus: an event that a group of its own receives."""

    ACTION = "publish"
    TOPIC = "faults"

    def __init__(self, line: Line) -> None:
        self.line = line
        self.received: list[str] = []

    async def prepare(self) -> None:
        await self.write("first")

    async def read(self, *, seconds: float | None = None) -> Any:
        if "lag" in self.line.host.catalog.provider(self.line.domain, self.line.provider).capabilities:
            return await self.line.call("lag", {"topic": self.TOPIC, "group": "reader"}, seconds=seconds)
        return await self.line.call("list_dead_letters", {"topic": self.TOPIC}, seconds=seconds)

    def data(self, name: str) -> str:
        return name

    async def write(self, name: str, *, seconds: float | None = None) -> Any:
        event = {"id": name, "source": "/faults", "type": "fault", "data": self.data(name)}
        return await self.line.call(
            "publish", {"topic": self.TOPIC, "event": event}, key=f"{self.line.name}-{name}", seconds=seconds
        )

    async def count(self, name: str) -> int:
        if name not in self.received:
            await self.receive()
        return self.received.count(name)

    async def receive(self) -> None:
        """Receive what there is."""
        params = {"topic": self.TOPIC, "group": "reader", "wait_seconds": 0.5, "max_events": 1000}
        while found := (await self.line.call("pull", params))["deliveries"]:
            await self.line.call("ack", {"ack_ids": [one["ack_id"] for one in found]})
            for event in (one["event"] for one in found):
                assert event["data"] == self.data(event["id"]), "half an event was kept"
                self.received.append(event["id"])


class Stored:
    """Storage: an object with its own content."""

    ACTION = "put"

    def __init__(self, line: Line) -> None:
        self.line = line

    async def prepare(self) -> None:
        await self.write("first")

    async def read(self, *, seconds: float | None = None) -> Any:
        return await self.line.call("get", {"key": "first"}, seconds=seconds)

    async def write(self, name: str, *, seconds: float | None = None) -> Any:
        params = {"key": name, "content": base64.b64encode(name.encode()).decode()}
        return await self.line.call("put", params, key=f"{self.line.name}-{name}", seconds=seconds)

    async def count(self, name: str) -> int:
        found = (await self.line.call("list", {"prefix": name}))["objects"]
        for one in found:
            content = (await self.line.call("get", {"key": one["key"]}))["content"]
            assert base64.b64decode(content) == name.encode(), "half an object was kept"
        return len(found)


EFFECTS: dict[str, type[Any]] = {"bus": Published, "cache": Counted, "db": Inserted, "storage": Stored}


async def counts(effect: Effect, names: Iterable[str]) -> dict[str, int]:
    """Return how often each of the names was written. That there is no further event is waited for once."""
    if not isinstance(effect, Published):
        return {name: await effect.count(name) for name in names}
    await effect.receive()
    return {name: effect.received.count(name) for name in names}

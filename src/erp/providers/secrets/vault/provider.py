"""Secrets in a key-value engine, version 2 (https://openbao.org/api-docs/secret/kv/kv-v2/)."""

from __future__ import annotations

import datetime
import hashlib
import re
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

from erp.contracts.models.secrets import (
    DeleteRequest,
    DeleteResult,
    DestroyVersionRequest,
    DestroyVersionResult,
    GetRequest,
    GetResult,
    ListRequest,
    ListResult,
    ListVersionsRequest,
    ListVersionsResult,
    NewestRequest,
    NewestResult,
    PutRequest,
    PutResult,
    RotateRequest,
    RotateResult,
    VersionFacts,
)
from erp.providers.secrets.vault.login import Login
from erp.providers.secrets.vault.server import MEANING, Reply, VaultServer, failure
from erp.runtime.spi import (
    UNSET,
    CallContext,
    Config,
    Dependency,
    ErrorCode,
    ErrorTable,
    FieldError,
    Health,
    OpenContext,
    Overlap,
    ProviderError,
)
from erp.vendor_clients.egress import EgressRefusedError

_NOT_FOUND, _FORBIDDEN = 404, 403
_MARGIN_SECONDS = 0.2
FAILURES: tuple[type[BaseException], ...] = (ProviderError, *MEANING)
_SAFE = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_HEALTH = {200: "active", 429: "standby", 472: "a standby of disaster recovery", 473: "performance standby"}


class VaultSecrets:
    """Translates each call into requests to the server; keeps nothing but its token."""

    translate: ClassVar[ErrorTable] = MEANING

    def __init__(self, config: Config, context: OpenContext) -> None:
        self._config = config
        self._connection = context.connection
        self._engine = config["engine"]
        self._field = config["field"]
        self._folder = _folder(config, context)
        self._overlaps = context.overlaps
        self._opened: tuple[VaultServer, Login] | None = None

    async def open(self) -> None:
        """Log in."""
        config = self._config
        try:
            server = VaultServer(
                config["address"],
                namespace=config.get("server_namespace"),
                seconds=float(config["timeout_seconds"]),
                ca_certificate=config.get("ca_certificate"),
            )
        except (EgressRefusedError, ValueError) as error:
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, str(error)) from error
        try:
            login = Login(server, config)
            await login.open()
        except BaseException:
            await server.close()
            raise
        self._opened = server, login

    async def close(self) -> None:
        """Give the token back and close all connections; safe twice, and without ``open``."""
        opened, self._opened = self._opened, None
        if opened is not None:
            server, login = opened
            await login.close()
            await server.close()

    @property
    def _ready(self) -> tuple[VaultServer, Login]:
        if self._opened is None:
            raise ProviderError(ErrorCode.UNAVAILABLE, "The provider is not open.", retry_after_seconds=1.0)
        return self._opened

    async def health(self) -> Health:
        """Ask whether the server is unsealed, and whether it knows the token."""
        server, login = self._ready
        started = time.monotonic()
        try:
            reply = await server.ask("GET", "sys/health", query="?standbyok=true&perfstandbyok=true", is_root=True)
            state = _dependency("server", reply.status in {200, 473}, _HEALTH.get(reply.status, _state(reply)))
            dependencies = [state]
            if state.status == "ok":
                is_good = not await login.is_refused(await login.token())
                dependencies.append(_dependency("token", is_good, "The server does not know the token."))
        except FAILURES as error:
            dependencies = [_dependency("server", False, str(error))]  # noqa: FBT003  (named in the function)
        down = [one for one in dependencies if one.status == "down"]
        return Health(
            status="down" if down else "ok",
            latency_ms=round((time.monotonic() - started) * 1000, 3),
            dependencies=dependencies,
            message=down[0].message if down else UNSET,
        )

    async def put(self, request: PutRequest, context: CallContext) -> PutResult:
        version = await self._stored(request.path, request.value, None, context)
        return PutResult(version=version, reference=self._reference(request.path, version))

    async def get(self, request: GetRequest, context: CallContext) -> GetResult:
        query = f"?version={wanted}" if (wanted := _version(request)) else ""
        reply = await self._ask("GET", f"data/{self._at(request.path)}", context, query=query)
        if reply.status == _NOT_FOUND:
            raise _absent(request.path)
        value = ((reply.document.get("data") or {}).get("data") or {}).get(self._field)
        if not isinstance(value, str):
            message = f"The secret {request.path!r} has no text in its field {self._field!r}."
            raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
        return GetResult(value=value)

    async def rotate(self, request: RotateRequest, context: CallContext) -> RotateResult:
        facts = await self._metadata(request.path, context)
        number = facts["current_version"]
        if _state_of(facts, number) != "current":
            raise _absent(request.path)
        overlap = self._config["overlap_seconds"] if request.overlap_seconds is UNSET else request.overlap_seconds
        async with self._overlaps.replacing(request.path, _kept(facts), overlap):
            version = await self._stored(request.path, request.value, number, context)
        context.emit("rotated", {"path": request.path, "version": version}, key=request.path)
        return RotateResult(version=version, reference=self._reference(request.path, version))

    async def newest(self, request: NewestRequest, context: CallContext) -> NewestResult:
        facts = await self._metadata(request.path, context)
        number = facts["current_version"]
        if _state_of(facts, number) != "current":
            raise _absent(request.path)
        return NewestResult(version_id=_name(facts, number))

    async def destroy_version(self, request: DestroyVersionRequest, context: CallContext) -> DestroyVersionResult:
        """Destroy it where it is; its number may have been given anew to another version meanwhile, which stays."""
        where = self._at(request.path)
        reply = await self._ask("GET", f"metadata/{where}", context)
        facts = {"versions": {}} if reply.status == _NOT_FOUND else reply.document["data"]
        number = next((one for one, name in _kept(facts).items() if name == request.version_id), None)
        if number is not None and number == facts["current_version"]:
            return DestroyVersionResult(destroyed=False)
        if number is not None:
            await self._ask("POST", f"destroy/{where}", context, {"versions": [number]})
        return DestroyVersionResult(destroyed=True)

    async def list(self, request: ListRequest, context: CallContext) -> ListResult:
        after = "" if request.cursor is UNSET else request.cursor
        paths: list[str] = []
        folder = request.prefix.rpartition("/")[0]
        async for path in self._walk(f"{folder}/" if folder else "", request.prefix, after, context):
            if len(paths) == request.limit:
                return ListResult(paths=paths, next_cursor=paths[-1])
            paths.append(path)
        return ListResult(paths=paths)

    async def list_versions(self, request: ListVersionsRequest, context: CallContext) -> ListVersionsResult:
        facts = await self._metadata(request.path, context)
        planned = await self._overlaps.of(request.path)
        numbers = sorted(int(number) for number in facts["versions"])
        versions = [_version_facts(facts, number, planned) for number in numbers]
        if all(one.state == "destroyed" for one in versions):
            raise _absent(request.path)
        return ListVersionsResult(versions=versions)

    async def delete(self, request: DeleteRequest, context: CallContext) -> DeleteResult:
        where = f"metadata/{self._at(request.path)}"
        found = await self._ask("GET", where, context)
        if found.status == _NOT_FOUND:
            return DeleteResult(deleted=False)
        await self._ask("DELETE", where, context)
        await self._overlaps.forget(request.path)
        return DeleteResult(deleted=True)

    async def _stored(self, path: str, value: str, expected: int | None, context: CallContext) -> int:
        """Write a version; with ``expected`` only when that is the present one (check-and-set)."""
        body: dict[str, Any] = {"data": {self._field: value}}
        if expected is not None:
            body["options"] = {"cas": expected}
        reply = await self._ask("POST", f"data/{self._at(path)}", context, body)
        if reply.status == _NOT_FOUND:
            raise failure(reply)
        version = int(reply.document["data"]["version"])
        if version == 1:
            # Else the server keeps ten, and destroys what was promised to stay readable.
            keep = {"max_versions": self._config["max_versions"]}
            await self._ask("POST", f"metadata/{self._at(path)}", context, keep)
        return version

    async def _metadata(self, path: str, context: CallContext) -> dict[str, Any]:
        reply = await self._ask("GET", f"metadata/{self._at(path)}", context)
        if reply.status == _NOT_FOUND:
            raise _absent(path)
        facts: dict[str, Any] = reply.document["data"]
        return facts

    async def _walk(self, folder: str, prefix: str, after: str, context: CallContext) -> AsyncIterator[str]:
        """Yield the paths below ``folder`` in order: the server lists one folder at a time."""
        reply = await self._ask("LIST", f"metadata/{self._folder}{folder}", context)
        keys = [] if reply.status == _NOT_FOUND else reply.document["data"]["keys"]
        for path in sorted(f"{folder}{key}" for key in keys):
            if path.endswith("/"):
                is_wanted = path.startswith(prefix) or prefix.startswith(path)
                if is_wanted and (path > after or after.startswith(path)):
                    async for below in self._walk(path, prefix, after, context):
                        yield below
            elif path.startswith(prefix) and path > after:
                yield path

    async def _ask(
        self, method: str, path: str, context: CallContext, body: Mapping[str, Any] | None = None, *, query: str = ""
    ) -> Reply:
        """Send a request with the token; return a success or ``404``, raise what any other answer means."""
        server, login = self._ready
        for is_last in (not login.can_log_in_again, True):
            token = await login.token()
            seconds = context.deadline - time.monotonic() - _MARGIN_SECONDS
            reply = await server.ask(method, f"{self._engine}/{path}", body, token=token, query=query, seconds=seconds)
            if reply.is_ok or reply.is_absent:
                return reply
            if reply.status != _FORBIDDEN or not await login.is_refused(token):
                raise failure(reply)
            if is_last:
                break
        raise ProviderError(ErrorCode.UNAUTHENTICATED, "The server does not know the token; it has expired.")

    def _reference(self, path: str, version: int) -> str:
        return f"secret://secrets/vault/{self._connection}/{path}#{version}"

    def _at(self, path: str) -> str:
        """Return where a secret is. The server knows no path that ends in a period."""
        if path.endswith("."):
            problem = FieldError("/path", "Use a path that does not end in a period.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The server cannot keep this path.", errors=[problem])
        return self._folder + path


def _folder(config: Config, context: OpenContext) -> str:
    root = config.get("root")
    if root is not None:
        return str(root)
    return "/".join((config["namespace"], _safe(context.tenant), _safe(context.connection), ""))


def _safe(name: str) -> str:
    return name if _SAFE.fullmatch(name) else f"_{hashlib.sha256(name.encode()).hexdigest()[:32]}"


def _name(facts: Mapping[str, Any], number: int) -> str:
    """Name a version: when it was made tells it apart from that of a secret that was made anew."""
    return f"{number} {facts['versions'][str(number)]['created_time']}"


def _kept(facts: Mapping[str, Any]) -> dict[int, str]:
    """Return the names of the versions that are not destroyed yet; what is deleted softly can come back."""
    return {int(one): _name(facts, int(one)) for one, about in facts["versions"].items() if not about["destroyed"]}


def _version_facts(facts: Mapping[str, Any], number: int, planned: Mapping[str, Overlap]) -> VersionFacts:
    made, state = _moment(facts["versions"][str(number)]["created_time"]), _state_of(facts, number)
    overlap = planned.get(_name(facts, number)) if state == "previous" else None
    return VersionFacts(
        version=number, created_at=made, state=state, destroyed_after=UNSET if overlap is None else overlap.ends_at
    )


def _version(request: GetRequest) -> int | None:
    """Return the number that is asked for."""
    if request.version_id is UNSET:
        return None if request.version is UNSET else request.version
    number = request.version_id.partition(" ")[0]
    if not number.isdecimal() or int(number) == 0:
        raise _absent(request.path)
    return int(number)


def _state_of(facts: Mapping[str, Any], number: int) -> Any:
    one = facts["versions"].get(str(number))
    if one is None or one["destroyed"] or _is_over(one["deletion_time"]):
        return "destroyed"
    return "current" if number == facts["current_version"] else "previous"


def _is_over(text: str) -> bool:
    return bool(text) and _moment(text) <= datetime.datetime.now(datetime.UTC)


def _moment(text: str) -> datetime.datetime:
    """Read a time of Go, which has nanoseconds."""
    return datetime.datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", text))


def _absent(path: str) -> ProviderError:
    return ProviderError(ErrorCode.NOT_FOUND, f"There is no secret {path!r}, or not in this version.")


def _state(reply: Reply) -> str:
    if reply.document.get("sealed"):
        return "The server is sealed."
    if reply.document.get("initialized") is False:
        return "The server is not initialised."
    return f"The server answered {reply.status}."


def _dependency(name: str, is_ok: bool, message: str) -> Dependency:  # noqa: FBT001  (used here alone)
    return Dependency(name=name, status="ok" if is_ok else "down", message=UNSET if is_ok else message)

"""SCIM 2.0 (RFC 7643, RFC 7644): a tenant's identity management provisions people and groups, ``/scim/v2/...``."""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from erp.contracts.models.errors import ErrorCode
from erp.control_plane.directory import Entry, Kind
from erp.errors import ProviderError
from erp.gateway import answers, bodies, scim_discovery
from erp.gateway.audit_trail import record
from erp.gateway.endpoint import Visit, unforeseen
from erp.gateway.inbound import Inbound
from erp.gateway.scim_language import conditions, patched, refused

if TYPE_CHECKING:
    from starlette.requests import Request

    from erp.control_plane import ControlPlane
    from erp.gateway.credentials import Credentials
    from erp.security.links import SealedLinks

MEDIA_TYPE = "application/scim+json"
MAX_BODY = 1024 * 1024
MAX_FACTS = 64 * 1024
MAX_NAME = 255
MOST_MEMBERS = 10_000
MOST_AT_ONCE = 200
_ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"
_LIST = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
_PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
_TAG = re.compile(r'W/"(\d{1,15})"')
_FILTERED = {
    "User": frozenset({"userName", "externalId", "displayName", "active"}),
    "Group": frozenset({"externalId", "displayName"}),
}
_TRUTH = {"true": True, "false": False}
"""Some send texts for ``active``."""

_log = logging.getLogger(__name__)
_encode = msgspec.json.encode


class Scim:
    """The endpoints. Who provisions has a key that may administer ``scim``, for example of a service account."""

    def __init__(self, control: ControlPlane, credentials: Credentials, links: SealedLinks) -> None:
        self._control = control
        self._directory = control.directory
        self._credentials = credentials
        self._links = links

    def resources(self, kind: Kind) -> Callable[[Request], Awaitable[Response]]:
        """``/scim/v2/Users`` or ``/scim/v2/Groups``."""
        return self._guarded(partial(self._resources, kind))

    def resource(self, kind: Kind) -> Callable[[Request], Awaitable[Response]]:
        """One of them."""
        return self._guarded(partial(self._resource, kind))

    def described(self, name: str) -> Callable[[Request], Awaitable[Response]]:
        """``ServiceProviderConfig``, ``ResourceTypes`` or ``Schemas``."""

        async def answer(visit: Visit) -> Response:
            return _reply(visit.inbound, 200, scim_discovery.DOCUMENTS[name])

        return self._guarded(answer)

    def _guarded(self, serve: Callable[[Visit], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
        async def answer(request: Request) -> Response:
            inbound = Inbound(request.scope["headers"])
            try:
                inbound.check()
                actor = await self._credentials.actor(inbound, request.scope)
                effect = {"GET": "read", "DELETE": "destructive"}.get(request.method, "write")
                await self._credentials.authorise(actor, "scim", "*", request.method.lower(), effect)
                return await serve(Visit(request, inbound, actor))
            except ProviderError as error:
                return _failure(inbound, error)
            except Exception:  # noqa: BLE001  (whatever it was, the caller gets an error of SCIM)
                _log.exception("request %s failed", inbound.request_id)
                return _failure(inbound, unforeseen())

        return answer

    async def _resources(self, kind: Kind, visit: Visit) -> Response:
        if visit.request.method == "POST":
            made = await self._directory.create(visit.tenant, kind, _facts(kind, await _body(visit)))
            await self._audited(visit, kind, "create", made.id)
            return self._shown(visit, kind, made, 201)
        start, count = max(_number(visit, "startIndex", 1), 1), min(_number(visit, "count", 100), MOST_AT_ONCE)
        wanted = conditions(visit.query("filter"), _FILTERED[kind])
        total, found = await self._directory.find(visit.tenant, kind, wanted, start=start, count=max(count, 0))
        items = [self._document(kind, one) for one in found]
        page = {"totalResults": total, "startIndex": start, "itemsPerPage": len(items), "Resources": items}
        return _reply(visit.inbound, 200, {"schemas": [_LIST], **page})

    async def _resource(self, kind: Kind, visit: Visit) -> Response:
        id_, method = visit.path("id"), visit.request.method
        if method == "GET":
            found = await self._directory.get(visit.tenant, kind, id_)
            if _tag(found) in (visit.request.headers.get("if-none-match") or ""):
                return Response(
                    status_code=304, headers={"etag": _tag(found), "x-request-id": visit.inbound.request_id}
                )
            return self._shown(visit, kind, found, 200)
        version = _expected(visit)
        if method == "DELETE":
            await self._directory.delete(visit.tenant, kind, id_, version)
            await self._audited(visit, kind, "delete", id_)
            return _reply(visit.inbound, 204, None)
        body = await _body(visit)
        if method == "PUT":
            replacement = _facts(kind, body)
            changed = await self._directory.change(visit.tenant, kind, id_, lambda _: replacement, version)
        else:
            if _PATCH not in (body.get("schemas") or []):
                raise refused(f"schemas must name {_PATCH}.", "invalidSyntax", "/schemas")
            change = partial(_patch, kind, body.get("Operations"))
            changed = await self._directory.change(visit.tenant, kind, id_, change, version)
        await self._audited(visit, kind, "change", id_)
        return self._shown(visit, kind, changed, 200)

    async def _audited(self, visit: Visit, kind: Kind, action: str, id_: str) -> None:
        effect = "destructive" if action == "delete" else "write"
        named = f"scim.{kind.lower()}.{action}"
        await record(self._control.journal, visit, tenant=visit.tenant, action=named, target=id_, effect=effect)

    def _shown(self, visit: Visit, kind: Kind, entry: Entry, status: int) -> Response:
        answer = _reply(visit.inbound, status, self._document(kind, entry))
        answer.headers["etag"] = _tag(entry)
        if status == 201:  # noqa: PLR2004  (Created)
            answer.headers["location"] = self._location(kind, entry)
        return answer

    def _location(self, kind: Kind, entry: Entry) -> str:
        return f"{self._links.public_url}/scim/v2/{kind}s/{entry.id}"

    def _document(self, kind: Kind, entry: Entry) -> dict[str, Any]:
        meta = {
            "resourceType": kind,
            "created": entry.created_at,
            "lastModified": entry.updated_at,
            "location": self._location(kind, entry),
            "version": _tag(entry),
        }
        return {"schemas": [scim_discovery.SCHEMAS[kind]], "id": entry.id, **entry.facts, "meta": meta}


class DirectoryRoles:
    """``/directory-roles``: what the members of provisioned groups may do."""

    def __init__(self, control: ControlPlane, credentials: Credentials) -> None:
        self._control = control
        self._credentials = credentials

    async def get(self, visit: Visit) -> tuple[int, Any]:
        """Show the roles of groups."""
        await self._credentials.authorise(visit.actor, "directory_roles", "*", "get", "read")
        return 200, {"roles": await self._control.directory.roles(visit.tenant)}

    async def put(self, visit: Visit) -> tuple[int, Any]:
        """Set the roles of groups, all at once."""
        await self._credentials.authorise(visit.actor, "directory_roles", "*", "put", "write")
        roles = (await visit.body("putDirectoryRoles"))["roles"]
        await self._control.directory.set_roles(visit.tenant, roles)
        await record(self._control.journal, visit, tenant=visit.tenant, action="directory_roles.put", target="roles")
        return 200, {"roles": roles}


def _tag(entry: Entry) -> str:
    return f'W/"{entry.version}"'


def _expected(visit: Visit) -> int | None:
    text = visit.request.headers.get("if-match")
    if text is None or text.strip() == "*":
        return None
    match = _TAG.fullmatch(text.strip())
    return int(match[1]) if match else -1


def _number(visit: Visit, name: str, default: int) -> int:
    text = visit.query(name)
    if text is None:
        return default
    if not re.fullmatch(r"-?\d{1,9}", text):
        raise refused(f"{name} must be a number.", "invalidValue", f"/query/{name}")
    return int(text)


async def _body(visit: Visit) -> dict[str, Any]:
    kind = (visit.inbound.content_type or MEDIA_TYPE).split(";")[0].strip().lower()
    if kind not in {MEDIA_TYPE, "application/json"}:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, f"The body must be {MEDIA_TYPE}.", status=415)
    text = await bodies.read(visit.inbound, visit.request.receive)
    if len(text) > MAX_BODY:
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, f"The body is larger than {MAX_BODY} bytes.", status=413)
    bodies.check_depth(text)
    try:
        found = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise refused("The body is no JSON.", "invalidSyntax") from None
    if not isinstance(found, dict):
        raise refused("The body must be an object.", "invalidSyntax")
    return found


def _patch(kind: Kind, operations: Any, facts: dict[str, Any]) -> dict[str, Any]:
    return _facts(kind, {"schemas": [scim_discovery.SCHEMAS[kind]], **patched(facts, operations)})


def _facts(kind: Kind, body: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a resource, checked."""
    if scim_discovery.SCHEMAS[kind] not in (body.get("schemas") or []):
        raise refused(f"schemas must name {scim_discovery.SCHEMAS[kind]}.", "invalidSyntax", "/schemas")
    facts = {name: value for name, value in body.items() if name not in {"schemas", "id", "meta", "groups", "password"}}
    if isinstance(facts.get("active"), str):
        facts["active"] = _TRUTH.get(facts["active"].lower(), facts["active"])
    if not isinstance(facts.get("active", True), bool):
        raise refused("active is true or false.", "invalidValue", "/active")
    _check_names(facts, "userName" if kind == "User" else "displayName")
    if kind == "Group":
        facts = {name: facts[name] for name in ("displayName", "externalId", "members") if name in facts}
        facts["members"] = _members(facts.get("members") or [])
    elif len(_encode(facts)) > MAX_FACTS:
        raise refused(f"A user may have {MAX_FACTS} bytes of facts.", "tooMany")
    return facts


def _check_names(facts: dict[str, Any], needed: str) -> None:
    for name in ("userName", "displayName", "externalId"):
        value = facts.get(name)
        if value is None and name != needed:
            facts.pop(name, None)
        elif not isinstance(value, str) or not 0 < len(value) <= MAX_NAME or not value.isprintable():
            raise refused(f"{name} must be a text of 1 to {MAX_NAME} characters.", "invalidValue", f"/{name}")


def _members(given: Any) -> list[dict[str, Any]]:
    if not isinstance(given, list) or len(given) > MOST_MEMBERS:
        raise refused(f"Give a list of at most {MOST_MEMBERS} members.", "tooMany", "/members")
    if not all(isinstance(one, dict) and isinstance(one.get("value"), str) for one in given):
        raise refused("A member needs value, the id of a user.", "invalidValue", "/members")
    return given


def _reply(inbound: Inbound, status: int, document: Any) -> Response:
    headers = {name.decode(): value.decode() for name, value in answers.common_headers(inbound)}
    body = b"" if document is None else _encode(document)
    return Response(body, status, headers, None if document is None else MEDIA_TYPE)


def _failure(inbound: Inbound, error: ProviderError) -> Response:
    """Return an error as SCIM has it (RFC 7644, section 3.12)."""
    document = {"schemas": [_ERROR], "status": str(error.status), "detail": error.message}
    if error.code is ErrorCode.INVALID_ARGUMENT and error.detail:
        document["scimType"] = error.detail
    elif error.code is ErrorCode.ALREADY_EXISTS:
        document["scimType"] = "uniqueness"
    answer = _reply(inbound, error.status, document)
    for name, value in answers.problem_headers(error):
        answer.headers[name.decode()] = value.decode()
    return answer

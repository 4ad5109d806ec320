"""The frame of every endpoint that is not a call: identify, authorise, validate, answer or explain."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
from starlette.responses import Response

from erp.contracts.loading import catalog
from erp.contracts.models.errors import ErrorCode
from erp.errors import FieldError, ProviderError
from erp.gateway import answers, bodies
from erp.gateway.audit_trail import elevated_read, refusal
from erp.gateway.inbound import Inbound
from erp.runtime.action import field_errors, malformed, validator

if TYPE_CHECKING:
    from starlette.requests import Request

    from erp.gateway.credentials import Credentials
    from erp.runtime.context import Actor

_log = logging.getLogger(__name__)
_encode = msgspec.json.Encoder(decimal_format="string").encode


@dataclass(slots=True)
class Visit:
    """One request to an endpoint, after its sender was identified."""

    request: Request
    inbound: Inbound
    actor: Actor

    @property
    def tenant(self) -> str:
        """Whose data the endpoint may touch."""
        return self.actor.tenant

    def path(self, name: str) -> str:
        """Return a path parameter."""
        value: str = self.request.path_params[name]
        return value

    def query(self, name: str) -> str | None:
        """Return a query parameter."""
        value: str | None = self.request.query_params.get(name)
        return value

    def limit(self) -> int:
        """Return the page size asked for, 1 to 200."""
        text = self.query("limit") or "50"
        if not text.isdigit() or not 1 <= int(text) <= 200:  # noqa: PLR2004  (the contract's page size)
            error = FieldError("/query/limit", "Use a number from 1 to 200.")
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The page size is out of range.", errors=[error])
        return int(text)

    async def body(self, operation: str) -> dict[str, Any]:
        """Return the request body, valid against the contract of ``operation``."""
        text = await bodies.read_json(self.inbound, self.request.receive)
        return validated(operation, text)


LARGEST_EXACT = 2.0**53
"""Up to here every whole number has a float of its own."""


@cache
def _validator(operation: str) -> Any:
    return validator(catalog()["gateway"][operation]["request"])


def validated(operation: str, text: bytes) -> dict[str, Any]:
    """Decode and check a body; ``invalid_argument`` carries every error with its JSON Pointer."""
    try:
        document = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise malformed(error) from None
    errors = field_errors(_validator(operation), document)
    if errors:
        message = f"The request has {len(errors)} error{'s' * (len(errors) > 1)}; see errors[]."
        raise ProviderError(ErrorCode.INVALID_ARGUMENT, message, errors=errors)
    found: dict[str, Any] = _with_whole_numbers(document)
    return found


def _with_whole_numbers(node: Any) -> Any:
    """Return a document with ``1.0`` as ``1``: an integer may be written so (JSON Schema 2020-12, section 4.2.2)."""
    if isinstance(node, dict):
        return {name: _with_whole_numbers(value) for name, value in node.items()}
    if isinstance(node, list):
        return [_with_whole_numbers(value) for value in node]
    if isinstance(node, float) and node.is_integer() and abs(node) <= LARGEST_EXACT:
        return int(node)
    return node


Handler = Callable[[Visit], Awaitable[tuple[int, Any]]]


def endpoint(credentials: Credentials, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    """Wrap ``handler`` (which returns status and answer) for Starlette's router."""

    async def identified(request: Request, inbound: Inbound) -> Response:
        actor = await credentials.actor(inbound, request.scope)
        visit = Visit(request, inbound, actor)
        try:
            status, answer = await handler(visit)
        except ProviderError as error:
            if error.code is ErrorCode.PERMISSION_DENIED:
                credentials.journal.note(refusal(visit, error))
            raise
        if actor.elevation and request.method == "GET":
            credentials.journal.note(elevated_read(visit))
        return answer if isinstance(answer, Response) else reply(inbound, status, answer)

    return guarded(identified)


def guarded(
    serve: Callable[[Request, Inbound], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Wrap ``serve``: whatever goes wrong in it is answered as a problem."""

    async def answer(request: Request) -> Response:
        inbound = Inbound(request.scope["headers"])
        try:
            inbound.check()
            return await serve(request, inbound)
        except ProviderError as error:
            return problem(inbound, error, request.url.path)
        except Exception:  # noqa: BLE001  (whatever it was, the caller gets a problem)
            _log.exception("request %s failed", inbound.request_id)
            return problem(inbound, unforeseen(), request.url.path)

    return answer


def unforeseen() -> ProviderError:
    """Return what a caller is told of a failure nobody foresaw; the log has the rest."""
    return ProviderError(ErrorCode.INTERNAL, "The layer failed in a way it did not foresee.")


def shutting_down() -> ProviderError:
    """Return what a caller is told whose request was cut off, when repeating it is safe."""
    return ProviderError(ErrorCode.UNAVAILABLE, "The layer is shutting down.", retry_after_seconds=1.0)


def reply(inbound: Inbound, status: int, answer: Any) -> Response:
    """Return ``answer`` as JSON; None is an empty 204."""
    body = b"" if answer is None else _encode(answer)
    media_type = None if answer is None else "application/json"
    return Response(body, status, _text(answers.common_headers(inbound)), media_type)


def problem(inbound: Inbound, error: ProviderError, path: str) -> Response:
    """Return ``error`` as an RFC 9457 problem."""
    headers = [*answers.common_headers(inbound), *answers.problem_headers(error)]
    body = answers.problem_body(error, inbound.request_id, path)
    return Response(body, error.status, _text(headers), "application/problem+json")


def _text(headers: answers.Headers) -> Mapping[str, str]:
    return {name.decode(): value.decode() for name, value in headers}

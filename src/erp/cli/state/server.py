"""A running server, as ``erp apply`` asks it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from erp.cli.session import ASK_SECONDS

if TYPE_CHECKING:
    from httpx2 import Client, Response

PAGE = 200
WAIT_SECONDS = 20
"""How long the server is asked to wait for the end of an operation before it answers."""
POLL_SECONDS = 0.5
LONGEST_SECONDS = 600.0


class ServerError(Exception):
    """The server refused, or nobody knows what it did. The message says what and what to do."""

    def __init__(self, message: str, *, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class Server:
    """Asks one server with one key; whatever goes wrong is a ``ServerError``."""

    def __init__(self, client: Client, key: str = "") -> None:
        self._client = client
        self._key = key

    @property
    def key_id(self) -> str | None:
        """The id of the key that is used; None when it is not a key but a token."""
        from erp.control_plane.key_text import key_id

        return key_id(self._key)

    def get(self, path: str, **query: str | None) -> Any:
        """Return what is at ``path``."""
        return self._sent("GET", path, None, query)

    def pages(self, path: str, **query: str | None) -> Iterator[dict[str, Any]]:
        """Yield the items of every page of a list."""
        cursor: str | None = None
        while True:
            page = self._sent("GET", path, None, {**query, "limit": str(PAGE), "cursor": cursor})
            yield from page["items"]
            cursor = page.get("next_cursor")
            if cursor is None:
                return

    def send(self, method: str, path: str, body: Any = None, **query: str | None) -> Any:
        """Change something and return the answer."""
        return self._sent(method, path, body, query)

    def settled(self, answer: Any) -> Any:
        """Return ``answer``; when it is an operation (202: the change takes long), wait for its end."""
        ends = time.monotonic() + LONGEST_SECONDS
        while answer.get("state") in {"queued", "running"}:
            if time.monotonic() > ends:
                message = f"The operation {answer['id']} is still {answer['state']}. `erp diff` shows what it came to."
                raise ServerError(message)
            time.sleep(POLL_SECONDS)
            answer = self._sent("GET", f"/operations/{answer['id']}", None, {}, wait_seconds=WAIT_SECONDS)
        if answer.get("state") in {"failed", "cancelled"}:
            raise _explained(answer.get("problem") or {"detail": "It was cancelled.", "code": "cancelled"})
        return answer

    def _sent(self, method: str, path: str, body: Any, query: dict[str, str | None], *, wait_seconds: int = 0) -> Any:
        import httpx2

        given = {name: value for name, value in query.items() if value is not None}
        content = {} if body is None else {"json": body}
        headers = {"prefer": f"wait={wait_seconds}"} if wait_seconds else {}
        try:
            answer = self._client.request(method, path, params=given, headers=headers, **content)
        except (
            httpx2.ConnectError,
            httpx2.ConnectTimeout,
            httpx2.UnsupportedProtocol,
            httpx2.InvalidURL,
            ValueError,
        ) as error:
            where = self._client.base_url
            message = f"{where} cannot be reached: {error}. Start it with `erp serve`, or name it with --url."
            raise ServerError(message) from None
        except httpx2.HTTPError as error:
            unknown = "" if method == "GET" else " It may have been done all the same: `erp diff` shows."
            raise ServerError(f"{method} {path} got no answer: {error}.{unknown}") from None
        if not answer.is_success:
            raise _refusal(answer)
        return answer.json() if answer.content else None


def _refusal(answer: Response) -> ServerError:
    try:
        return _explained(answer.json())
    except (ValueError, KeyError, TypeError):
        return ServerError(f"{answer.url} answered {answer.status_code}; is it this software?")


def _explained(problem: dict[str, Any]) -> ServerError:
    errors = [f"{item['pointer']}: {item['message']}" for item in problem.get("errors", [])]
    message = f"{problem['detail']} ({problem['code']})"
    return ServerError("\n  ".join([message, *errors]), code=str(problem["code"]))


@contextmanager
def connected(url: str, key: str) -> Iterator[Server]:
    """Ask the server at ``url`` with ``key``."""
    import httpx2

    headers = {"authorization": f"Bearer {key}"} if key else {}
    with httpx2.Client(base_url=url, headers=headers, timeout=ASK_SECONDS) as client:
        yield Server(client, key)

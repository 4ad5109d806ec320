"""Serves fakesnow as a Snowflake that current connectors accept: its logins answer all that theirs need.

Usage: snowflake_server.py PORT; the password that it lets in is ERP_PASSWORD in the environment.
"""

from __future__ import annotations

import asyncio
import contextvars
import gzip
import itertools
import json
import logging
import os
import sys
from typing import Any

import uvicorn
from fakesnow.server import app, logger

sessions = itertools.count(1)
LOGIN = "/session/v1/login-request"
REFUSED = {
    "data": None,
    "code": "390100",
    "message": "Incorrect username or password was specified.",
    "success": False,
}


class Logins:
    """fakesnow asks for no password, and answers neither master token nor session, without which connectors from 5 on do not go on."""

    def __init__(self, password: str) -> None:
        self._password = password

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await app(scope, receive, send)
            return
        body = await whole(receive)
        if scope["path"] != LOGIN:
            await answer(send, refusal_of(await patiently(scope, body)))
        elif self._is_known(scope, body):
            await answer(send, completed(await answered(scope, body)))
        else:
            await answer(send, REFUSED)

    def _is_known(self, scope: Any, body: bytes) -> bool:
        is_packed = dict(scope["headers"]).get(b"content-encoding") == b"gzip"
        asked = json.loads(gzip.decompress(body) if is_packed else body)
        return bool(asked["data"].get("PASSWORD") == self._password)


class Causes(logging.Filter):
    """Keeps what fakesnow failed of: it tells its log, and not its caller. A filter, for it replaces its handlers."""

    kept: contextvars.ContextVar[list[str]] = contextvars.ContextVar("kept")

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and record.exc_info[1] is not None:
            self.kept.get([]).append(str(record.exc_info[1]))
        return True


async def answered(scope: Any, body: bytes) -> Any:
    """Return what fakesnow answers."""
    parts: list[bytes] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        parts.append(message.get("body", b""))

    await app(scope, receive, send)
    try:
        return json.loads(b"".join(parts))
    except ValueError:
        return {"data": None, "code": "261000", "message": "Not found.", "success": False}


async def patiently(scope: Any, body: bytes) -> Any:
    """Ask again where changes collided: Snowflake lets the second wait, DuckDB refuses it, and undoes it.

    Nothing else is asked again: fakesnow also fails after a change has taken effect.
    """
    causes: list[str] = []
    Causes.kept.set(causes)
    found = await answered(scope, body)
    for _ in range(40):
        if found.get("code") != "261000" or not causes or "conflict" not in causes[-1].lower():
            break
        await asyncio.sleep(0.02)
        found = await answered(scope, body)
    return found


def completed(found: Any) -> Any:
    """Add what connectors ask of a login."""
    token = found["data"]["token"]
    found["data"] |= {"masterToken": token, "sessionId": next(sessions), "masterValidityInSeconds": 14400}
    return found


def refusal_of(found: Any) -> Any:
    """Refuse as Snowflake does: fakesnow says 500 where DuckDB refuses, and connectors repeat that for a minute."""
    message = str(found.get("message"))
    if found.get("code") == "261000":
        found |= {"code": "000603", "data": {"errorCode": "000603", "sqlState": "XX000"}}
    elif not found.get("success") and "Referenced column" in message:
        found |= {"code": "000904", "data": {"errorCode": "000904", "sqlState": "42000"}}
    return found


async def whole(receive: Any) -> bytes:
    """Return the body of a request."""
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def answer(send: Any, document: Any) -> None:
    """Send an answer."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


if __name__ == "__main__":
    logger.addFilter(Causes())
    uvicorn.run(Logins(os.environ["ERP_PASSWORD"]), host="127.0.0.1", port=int(sys.argv[1]), log_level="info")

"""Serves fakesnow as a Snowflake that current connectors accept: its logins answer all that theirs need.

Usage: snowflake_server.py PORT; the password that it lets in is ERP_PASSWORD in the environment.
"""

from __future__ import annotations

import gzip
import itertools
import json
import os
import sys
from typing import Any

import uvicorn
from fakesnow.server import app

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
        if scope["type"] != "http" or scope["path"] != LOGIN:
            await app(scope, receive, send)
            return
        body = await whole(receive)
        if self._is_known(scope, body):
            await answer(send, await self._completed(scope, body))
        else:
            await answer(send, REFUSED)

    def _is_known(self, scope: Any, body: bytes) -> bool:
        is_packed = dict(scope["headers"]).get(b"content-encoding") == b"gzip"
        asked = json.loads(gzip.decompress(body) if is_packed else body)
        return bool(asked["data"].get("PASSWORD") == self._password)

    async def _completed(self, scope: Any, body: bytes) -> Any:
        parts: list[bytes] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            parts.append(message.get("body", b""))

        await app(scope, receive, send)
        found = json.loads(b"".join(parts))
        token = found["data"]["token"]
        found["data"] |= {"masterToken": token, "sessionId": next(sessions), "masterValidityInSeconds": 14400}
        return found


async def whole(receive: Any) -> bytes:
    parts = []
    while True:
        message = await receive()
        parts.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(parts)


async def answer(send: Any, document: Any) -> None:
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": json.dumps(document).encode()})


if __name__ == "__main__":
    uvicorn.run(Logins(os.environ["ERP_PASSWORD"]), host="127.0.0.1", port=int(sys.argv[1]), log_level="info")

"""One connection to NATS: requests with their answers, and what becomes of them when it breaks.

The client library does not reconnect by itself: it would keep what was written meanwhile and send it later, when
its caller has long been told that the outcome is unknown. The next call connects again.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from erp.providers.bus.nats.signing import SeedError, UserKey, split
from erp.runtime.spi import Config, ErrorCode, FieldError, ProviderError
from erp.vendor_clients.guarded_tcp import permitted_address

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.aio.msg import Msg

CONNECT_SECONDS = 5
DEFAULT_PORT = 4222
PING_SECONDS = 10
CLOSE_SECONDS = 1
UNBOUNDED = 1 << 62
NO_RESPONDERS = "503"

Headers = Mapping[str, str]


class Refusal(msgspec.Struct):
    """What JetStream says when it refuses."""

    code: int = 0
    err_code: int = 0
    description: str = ""


class Refused(Exception):  # noqa: N818  (the word of NATS's own documents)
    """JetStream has refused a request; nothing has happened."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.description)
        self.refusal = refusal


class _Answer(msgspec.Struct):
    error: Refusal | None = None


_refusal = msgspec.json.Decoder(_Answer)


class Channel:
    """Connects when it is first needed, and again after it broke."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._client: Client | None = None
        self._connecting = asyncio.Lock()
        self._waiting: dict[str, asyncio.Future[Msg]] = {}
        self._numbers = itertools.count()
        self._inbox = ""
        self._background: set[asyncio.Task[None]] = set()
        self._is_closed = False
        self.version = 0
        """Grows with every connection: what was sent on an earlier one may be lost."""

    async def client(self) -> Client:
        """Return the connected client.

        Raises:
            ProviderError: ``unavailable`` or ``unauthenticated``.
        """
        client = self._client
        if client is not None and client.is_connected:
            return client
        async with self._connecting:
            if self._is_closed:
                raise _unavailable("The connection to NATS is closed.")
            if self._client is None or not self._client.is_connected:
                self._client = await self._connected()
            return self._client

    async def _connected(self) -> Client:
        from nats.aio.client import Client

        made = Client()
        options = _options(self._config)
        for server in options["servers"]:
            url = urlsplit(server)
            await permitted_address(url.hostname or "", url.port or DEFAULT_PORT)
        key = options.pop("key", None)
        heard: list[Exception] = []

        async def hear(error: Exception) -> None:  # the library would print them
            heard.append(error)

        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                if key is not None:
                    made._public_nkey = key.public  # noqa: SLF001  (the library's own way in needs the package nkeys)
                await made.connect(
                    closed_cb=self._lost,
                    error_cb=hear,
                    allow_reconnect=False,
                    max_reconnect_attempts=1,
                    reconnect_time_wait=0,
                    ping_interval=PING_SECONDS,
                    **options,
                )
                self._inbox = f"{made.new_inbox()}."
                await made.subscribe(
                    f"{self._inbox}*", cb=self._answered, pending_msgs_limit=UNBOUNDED, pending_bytes_limit=UNBOUNDED
                )
        except Exception as error:
            await _let_go(made)
            raise _connect_failure(next((one for one in heard if isinstance(one, ssl.SSLError)), error)) from error
        except asyncio.CancelledError:
            await _let_go(made)
            raise
        self.version += 1
        return made

    async def close(self) -> None:
        """Let go of the connection. Safe twice and without ``client``."""
        self._is_closed = True
        async with self._connecting:
            client, self._client = self._client, None
        for task in tuple(self._background):
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        if client is not None and not client.is_closed:
            await _let_go(client)

    async def _lost(self) -> None:
        """Tell everybody who waits that the answer will not come."""
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(_outcome_unknown())
                future.exception()  # heard, although its caller may have left

    async def _answered(self, message: Msg) -> None:
        future = self._waiting.pop(message.subject[len(self._inbox) :], None)
        if future is not None and not future.done():
            future.set_result(message)

    # -- requests --------------------------------------------------------------------------------

    async def request(self, subject: str, body: bytes = b"", headers: Headers | None = None) -> Msg:
        """Send a request and return its answer; the caller's deadline ends the wait.

        Raises:
            ProviderError: ``unavailable`` when it was not sent or nobody is there to answer, ``outcome_unknown`` when
                the connection broke before the answer.
        """
        answer = await self._exchange(subject, body, headers)
        if _is_nobodys(answer):
            raise _unavailable("JetStream does not answer; it may be starting, or not be enabled.")
        return answer

    async def is_answered(self, subject: str, body: bytes) -> bool:
        """Send a request; return whether anybody is there to answer it."""
        return not _is_nobodys(await self._exchange(subject, body, None))

    async def _exchange(self, subject: str, body: bytes, headers: Headers | None) -> Msg:
        client = await self.client()
        token = str(next(self._numbers))
        future: asyncio.Future[Msg] = asyncio.get_running_loop().create_future()
        self._waiting[token] = future
        try:
            await self._send(client, subject, body, f"{self._inbox}{token}", headers)
            return await future
        finally:
            self._waiting.pop(token, None)

    async def publish(self, subject: str, body: bytes = b"", headers: Headers | None = None, reply: str = "") -> None:
        """Send a message to which nobody answers here."""
        await self._send(await self.client(), subject, body, reply, headers)

    @staticmethod
    async def _send(client: Client, subject: str, body: bytes, reply: str, headers: Headers | None) -> None:
        from nats import errors

        try:
            await client.publish(subject, body, reply=reply, headers=dict(headers) if headers else None)
        except errors.MaxPayloadError:
            most = client.max_payload
            place = FieldError(
                "/params/event", f"The server takes at most {most} bytes; store the data and send its key."
            )
            raise ProviderError(ErrorCode.INVALID_ARGUMENT, "The event is too large.", errors=[place]) from None
        except (errors.Error, OSError) as error:
            raise _unavailable("The connection to NATS broke.", str(error)) from error

    async def api(self, subject: str, body: Any = None) -> bytes:
        """Ask JetStream; return its answer in JSON.

        Raises:
            Refused: JetStream said no.
        """
        answer = await self.request(f"$JS.API.{subject}", b"" if body is None else msgspec.json.encode(body))
        return checked(answer.data)

    @contextlib.asynccontextmanager
    async def inbox(
        self, take: Callable[[Msg], None], abandoned: Callable[[Msg], Awaitable[None]]
    ) -> AsyncIterator[tuple[Client, str]]:
        """Have an inbox: messages to its subjects go to ``take``, and what comes after the end to ``abandoned``.

        Yields the client and what its subjects begin with; one word follows.
        """
        client = await self.client()
        is_open = True

        async def receive(message: Msg) -> None:
            if is_open:
                take(message)
            else:
                await abandoned(message)

        subject = client.new_inbox()
        subscription = await client.subscribe(
            f"{subject}.*", cb=receive, pending_msgs_limit=UNBOUNDED, pending_bytes_limit=UNBOUNDED
        )
        try:
            yield client, subject
        finally:
            is_open = False
            self.later(self._drained(subscription))

    @staticmethod
    async def _drained(subscription: Any) -> None:
        from nats import errors

        with contextlib.suppress(errors.Error, OSError):
            await subscription.drain()

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """Run ``work`` beside the calls; closing ends it."""
        task = asyncio.create_task(work, name="bus-nats drain")
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def checked(body: bytes) -> bytes:
    """Return ``body`` unless it is a refusal of JetStream.

    Raises:
        Refused: it is.
    """
    if b'"error"' in body:
        refusal = _refusal.decode(body).error
        if refusal is not None:
            raise Refused(refusal)
    return body


async def _let_go(client: Client) -> None:
    """Close a connection, whatever state it is in; one whose TLS was refused would wait for the peer without end."""
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.close()


def _is_nobodys(answer: Msg) -> bool:
    return (answer.headers or {}).get("Status") == NO_RESPONDERS


def _options(config: Config) -> dict[str, Any]:
    found: dict[str, Any] = {"servers": [one.strip() for one in config["url"].split(",")]}
    try:
        if credentials := config.get("credentials"):
            jwt, seed = split(credentials)
            found |= {"user_jwt_cb": jwt.encode, "signature_cb": UserKey(seed).sign, "token": ""}
        elif text := config.get("nkey_seed"):
            key = UserKey(text)
            found |= {"signature_cb": key.sign, "key": key}
    except SeedError as error:
        raise ProviderError(ErrorCode.UNAUTHENTICATED, f"The credentials cannot be used: {error}") from None
    for name in ("user", "password", "token"):
        if config.get(name):
            found[name] = config[name]
    if authority := config.get("tls_ca"):
        found["tls"] = ssl.create_default_context(cadata=authority)
    return found


def _connect_failure(error: Exception) -> ProviderError:
    text = str(error).lower()
    if isinstance(error, ProviderError):
        return error
    if "authorization" in text or "authentication" in text:
        return ProviderError(ErrorCode.UNAUTHENTICATED, "NATS refuses the credentials.", detail=str(error))
    if isinstance(error, ssl.SSLError):
        message = "The server's certificate is not trusted; give its authority as tls_ca."
        return ProviderError(ErrorCode.FAILED_PRECONDITION, message, detail=str(error))
    return _unavailable("NATS cannot be reached.", f"{type(error).__name__}: {error}")


def _unavailable(message: str, detail: str | None = None) -> ProviderError:
    return ProviderError(ErrorCode.UNAVAILABLE, message, detail=detail, retry_after_seconds=1.0)


def _outcome_unknown() -> ProviderError:
    message = "The connection to NATS broke before it answered. Repeating the call with the same event id is safe."
    return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message)

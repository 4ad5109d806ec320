"""The connections to RabbitMQ: what is published goes over one, everything else over the other."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING

from erp.providers.bus.rabbitmq.lanes import Lanes
from erp.providers.bus.rabbitmq.wire import Wire, connected, let_go, to_the_end, unavailable
from erp.runtime.spi import Config, ErrorCode, ProviderError

if TYPE_CHECKING:
    from aio_pika.abc import AbstractChannel, AbstractMessage

LOOK_SECONDS = 0.05
CONFIRM_SECONDS = 1.5
"""How long a stream that has started may take to confirm one message that nothing depends on."""
START_SECONDS = 6.0
MARKER = "erp-marker"
"""Header of a message that is no event: its value names it."""


class Link:
    """What is published goes over a connection of its own: RabbitMQ stops reading from it when it has no room."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._outward = Wire(config, confirms=True)
        self._inward = Wire(config, confirms=False)
        self._lanes = Lanes(self._outward, self.prove)

    @property
    def version(self) -> int:
        """Grows with every receiving channel: what was received on an earlier one has gone back to its queue."""
        return self._inward.version

    @property
    def server(self) -> tuple[str, str]:
        """Name and version of the server; the version is empty before it was reached."""
        return self._inward.server

    async def publishing(self) -> AbstractChannel:
        """Return the channel on which every message is confirmed."""
        return await self._outward.kept()

    async def receiving(self) -> AbstractChannel:
        """Return the channel on which deliveries are held."""
        return await self._inward.kept()

    @contextlib.asynccontextmanager
    async def channel(self) -> AsyncIterator[AbstractChannel]:
        """Have a channel of one's own; what was received on it and not confirmed goes back at the end.

        Raises:
            ProviderError: ``unavailable`` when RabbitMQ closes the channel, or the connection breaks.
        """
        from aio_pika.exceptions import AMQPError, ChannelInvalidStateError

        made = await self._inward.channel()
        try:
            yield made
        except (AMQPError, ChannelInvalidStateError) as error:
            raise unavailable("RabbitMQ cannot serve the request now.", repr(error)) from error
        finally:
            if not made.is_closed:
                await made.close()

    @contextlib.asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        """Be the only one, in whatever process, who holds ``name``: a queue that only its connection may use."""
        from aiormq.exceptions import ChannelLockedResource

        while True:
            async with self.channel() as channel:
                try:
                    queue = await channel.declare_queue(name, exclusive=True, auto_delete=True)
                except ChannelLockedResource:
                    await asyncio.sleep(LOOK_SECONDS)
                    continue
                try:
                    yield
                finally:
                    await queue.delete(if_unused=False, if_empty=False)
                return

    async def exists(self, queue: str) -> bool:
        """Return whether there is a queue of this name."""
        from aiormq.exceptions import ChannelNotFoundEntity

        async with self.channel() as channel:
            try:
                await channel.declare_queue(queue, passive=True)
            except ChannelNotFoundEntity:
                return False
            return True

    async def publish(self, message: AbstractMessage, *, queue: str) -> None:
        """Publish a message to a queue that is no stream; it is there when this returns.

        Raises:
            ProviderError: ``unavailable`` when RabbitMQ refuses it, ``outcome_unknown`` when the connection broke first.
        """
        channel = await self.publishing()
        await self._outward.require_taking()
        with _explained():
            await channel.default_exchange.publish(message, queue, mandatory=True)

    async def publish_to_stream(self, message: AbstractMessage, stream: str, *, exchange: str = "") -> None:
        """Publish a message to a stream, or to it and the groups behind ``exchange``; it is there when this returns.

        Raises:
            ProviderError: As for ``publish``.
        """
        lane = self._lanes.of(stream)
        await self._outward.require_taking()
        async with lane.channel() as channel:
            place = await channel.get_exchange(exchange, ensure=False) if exchange else channel.default_exchange
            with _explained():
                await place.publish(message, "" if exchange else stream, mandatory=True)

    async def prove(self, stream: str) -> None:
        """Publish a marker to a stream that may be new until it takes it, on connections that nothing else uses.

        RabbitMQ 3 ends the connection of who publishes to a stream whose leader has not started.

        Raises:
            ProviderError: ``unavailable``.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(START_SECONDS):
                while True:
                    if await self._takes(stream):
                        return
                    await asyncio.sleep(LOOK_SECONDS)
        raise unavailable("RabbitMQ has not started the topic's stream.")

    async def _takes(self, stream: str) -> bool:
        from aio_pika import Message
        from aio_pika.exceptions import AMQPError

        connection = await connected(self._config)
        try:
            # What was sent to a leader that has gone may never be confirmed.
            async with asyncio.timeout(CONFIRM_SECONDS):
                channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
                await channel.default_exchange.publish(Message(b"", headers={MARKER: ""}), stream, mandatory=True)
        except (AMQPError, RuntimeError, TimeoutError):
            return False
        finally:
            await let_go(connection)
        return True

    async def close(self) -> None:
        """Let go of the connections. Safe twice."""
        # Both at once: one from which RabbitMQ reads nothing takes its time to close.
        await to_the_end(self._close())

    async def _close(self) -> None:
        await self._lanes.close()
        await asyncio.gather(self._outward.close(), self._inward.close())


@contextlib.contextmanager
def _explained() -> Iterator[None]:
    """Say what became of a message that was not confirmed."""
    from aio_pika.exceptions import AMQPError, DeliveryError

    try:
        yield
    except DeliveryError as error:  # also of one that belongs to no queue
        raise unavailable("RabbitMQ did not take the message.", repr(error)) from error
    except (AMQPError, OSError, asyncio.InvalidStateError, RuntimeError) as error:
        text = "The connection to RabbitMQ broke before it confirmed; the event may have been published."
        raise ProviderError(ErrorCode.OUTCOME_UNKNOWN, text, detail=repr(error)) from error

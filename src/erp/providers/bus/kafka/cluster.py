"""Connections to Kafka: who publishes, who receives, and topics made where there are none."""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
import uuid
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from erp.runtime.spi import Config, ErrorCode, FieldError, ProviderError
from erp.vendor_clients.guarded_tcp import permitted_address

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

CONNECT_SECONDS = 5.0
CLOSE_SECONDS = 3.0
LONGEST_NAME = 249
MILLISECONDS = 1000


class Names:
    """The names of one connection of one tenant: letters, digits, ``.``, ``_`` and ``-`` are all that Kafka allows."""

    def __init__(self, prefix: str, tenant: str, connection: str) -> None:
        self.root = ".".join(map(_word, (prefix, tenant, connection)))

    def events(self, topic: str) -> str:
        return _short(f"{self.root}.e.{topic}", "/params/topic")

    def requeued(self, topic: str, group: str) -> str:
        """Return the topic of dead letters that one group receives again."""
        return _short(f"{self.root}.r.{_word(group)}.{topic}", "/params/group")

    def group(self, topic: str, group: str) -> str:
        return f"{self.root}.{_word(group)}.{topic}"

    @property
    def dead(self) -> str:
        return f"{self.root}.d"


def _word(text: str) -> str:
    """Return ``text`` without a dot; other letters than those allowed are ``_XX``."""
    return re.sub(r"[^A-Za-z0-9-]", lambda found: "".join(f"_{byte:02X}" for byte in found[0].encode()), text)


def _short(name: str, pointer: str) -> str:
    if len(name) <= LONGEST_NAME:
        return name
    error = FieldError(
        pointer, f"Prefix, tenant, connection, topic and group may have about {LONGEST_NAME - 5} characters."
    )
    raise ProviderError(ErrorCode.INVALID_ARGUMENT, "A name is too long for Kafka.", errors=[error])


class Cluster:
    """Makes clients that are started, and topics."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._topics: set[str] = set()
        self._producers: dict[bool, AIOKafkaProducer] = {}
        self._starting = asyncio.Lock()
        self._transacting = asyncio.Lock()
        self._making = asyncio.Lock()
        self._is_closed = False
        self._asking: asyncio.Future[AIOKafkaConsumer] | None = None
        self._stopping: set[asyncio.Task[None]] = set()

    def _options(self) -> dict[str, Any]:
        config = self._config
        found: dict[str, Any] = {"bootstrap_servers": config["servers"], "security_protocol": "PLAINTEXT"}
        secure = config.get("tls", False)
        if secure:
            found["ssl_context"] = ssl.create_default_context(cadata=config.get("tls_ca"))
            found["security_protocol"] = "SSL"
        if config.get("user"):
            found["security_protocol"] = "SASL_SSL" if secure else "SASL_PLAINTEXT"
            found["sasl_mechanism"] = config.get("sasl_mechanism", "SCRAM-SHA-512")
            found["sasl_plain_username"] = config["user"]
            found["sasl_plain_password"] = config.get("password", "")
        return found

    async def _permitted(self) -> None:
        """Ask before a client is made: one that is never started complains."""
        for server in self._config["servers"].split(","):
            host, _, port = server.rpartition(":")
            await permitted_address(host, int(port))

    async def producer(self, *, transactional: bool = False) -> AIOKafkaProducer:
        """Return a producer that repeats nothing by itself twice (``enable.idempotence``), or one for transactions."""
        from aiokafka import AIOKafkaProducer

        async with self._starting:
            if self._is_closed:
                raise unavailable("The connection to Kafka is closed.")
            found = self._producers.get(transactional)
            if found is None:
                await self._permitted()
                own: dict[str, Any] = {"transactional_id": f"erp-{uuid.uuid4().hex}"} if transactional else {}
                made = AIOKafkaProducer(**self._options(), enable_idempotence=True, acks="all", **own)
                found = self._producers[transactional] = await self._started(made)
            return found

    async def require_reached(self, topic: str, partition: int | None) -> None:
        """Ask before a record is handed over, which the library would keep for 40 s when there is nobody to send it to.

        Raises:
            ProviderError: ``unavailable`` when no broker that may lead its partition is reached; nothing was sent.
        """
        from aiokafka import TopicPartition

        client = (await self.producer()).client
        partitions = client.cluster.partitions_for_topic(topic) if partition is None else [partition]
        for leader in {client.cluster.leader_for_partition(TopicPartition(topic, one)) for one in partitions or ()}:
            if leader is None or leader < 0 or await asyncio.shield(asyncio.ensure_future(client.ready(leader))):
                return
        raise unavailable("Kafka cannot be reached.")

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[AIOKafkaProducer]:
        """Have a producer whose records all become visible at the end, or none.

        Raises:
            ProviderError: ``outcome_unknown`` when Kafka did not say whether it committed.
        """
        from aiokafka.errors import KafkaError

        async with self._transacting:
            producer = await self.producer(transactional=True)
            try:
                async with producer.transaction():
                    yield producer
            except (KafkaError, asyncio.CancelledError) as error:
                # It may be fenced, or half way through: the next transaction gets a new one, which ends this one.
                self._producers.pop(True, None)
                await _stopped(producer)
                if isinstance(error, KafkaError):
                    raise publish_failure(error) from error
                raise

    async def consumer(self, *topics: str, **options: Any) -> AIOKafkaConsumer:
        """Return a started consumer that sees what is committed only; whoever asks stops it."""
        from aiokafka import AIOKafkaConsumer

        await self._permitted()
        options = {
            "enable_auto_commit": False,
            "isolation_level": "read_committed",
            "check_crcs": self._config.get("verify_checksums", True),
            **options,
        }
        return await self._started(AIOKafkaConsumer(*topics, **self._options(), **options), CONNECT_SECONDS * 4)

    async def ends(self, partitions: Iterable[TopicPartition]) -> dict[TopicPartition, int]:
        """Return the ends of partitions, on a connection where no request waits for new records before this one."""
        if self._asking is None:
            self._asking = asyncio.ensure_future(self.consumer())
        try:
            asking = await asyncio.shield(self._asking)
            found: dict[TopicPartition, int] = await asking.end_offsets(list(partitions))
        except ProviderError:
            self._asking = None
            raise
        return found

    async def _started(self, client: Any, seconds: float = CONNECT_SECONDS) -> Any:
        from aiokafka.errors import KafkaError

        # The library leaves connections behind when a start is cancelled: it goes on, and is stopped afterwards.
        start = asyncio.ensure_future(client.start())
        try:
            async with asyncio.timeout(seconds):
                await asyncio.shield(start)
        except BaseException as error:
            self._later(_abandoned(start, client))
            if isinstance(error, KafkaError | OSError | TimeoutError):
                raise connect_failure(error) from error
            raise
        return client

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="bus-kafka stop")
        self._stopping.add(task)
        task.add_done_callback(self._stopping.discard)

    async def topic(self, name: str) -> None:
        """Make a topic where there is none; a server without that request makes it when it is asked for it."""
        if name in self._topics:
            return
        async with self._making:
            if name not in self._topics:
                await self._make(name)

    async def _make(self, name: str) -> None:
        from aiokafka.admin import AIOKafkaAdminClient, NewTopic
        from aiokafka.errors import KafkaError

        await self._permitted()
        admin: Any = await self._started(AIOKafkaAdminClient(**self._options()))
        settings = {"retention.ms": str(self._config.get("retention_seconds", 604_800) * MILLISECONDS)}
        new = NewTopic(
            name,
            self._config.get("partitions", 4),
            self._config.get("replicas", 1),
            topic_configs=_kept(name, settings),
        )
        try:
            with contextlib.suppress(KafkaError, AttributeError):  # it exists, or there is no controller to be asked
                await admin.create_topics([new])
            await self._known(name)
        finally:
            await admin.close()
        self._topics.add(name)

    async def _known(self, name: str) -> None:
        """Wait until the topic has partitions."""
        from aiokafka.errors import KafkaError

        producer = await self.producer()
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                while not await producer.partitions_for(name):  # noqa: ASYNC110  (a server makes it, and tells nobody)
                    await asyncio.sleep(0.02)
        except (KafkaError, TimeoutError) as error:
            raise unavailable("Kafka does not make the topic.", repr(error)) from error

    async def close(self) -> None:
        """Let go of the producers. Safe twice."""
        self._is_closed = True
        async with self._starting:
            producers, self._producers = self._producers, {}
        for producer in producers.values():
            await _stopped(producer)
        if self._asking is not None:
            with contextlib.suppress(ProviderError):
                await _stopped(await self._asking)
        if self._stopping:
            await asyncio.wait(self._stopping, timeout=CLOSE_SECONDS)


def _kept(name: str, settings: Mapping[str, str]) -> dict[str, str]:
    """Dead letters are kept by id until they are taken back, other events for their time."""
    return {"cleanup.policy": "compact"} if name.endswith(".d") else dict(settings)


async def _abandoned(start: asyncio.Future[None], client: Any) -> None:
    await asyncio.wait([start], timeout=CONNECT_SECONDS)
    if not start.done():
        start.cancel()
    await asyncio.gather(start, return_exceptions=True)
    await _stopped(client)


async def _stopped(client: Any) -> None:
    with contextlib.suppress(Exception):
        async with asyncio.timeout(CLOSE_SECONDS):
            await client.stop()


def connect_failure(error: BaseException) -> ProviderError:
    """Return what a failure to connect means for the caller."""
    if type(error).__name__ in {"SaslAuthenticationFailed", "AuthenticationFailedError"}:
        return ProviderError(ErrorCode.UNAUTHENTICATED, "Kafka refuses the credentials.", detail=str(error))
    return unavailable("Kafka cannot be reached.", repr(error))


def publish_failure(error: BaseException) -> ProviderError:
    """Return what a failure to publish means for the caller."""
    if type(error).__name__ == "MessageSizeTooLargeError":
        place = FieldError("/params/event", "Store the data elsewhere and send its key, or let Kafka take larger ones.")
        return ProviderError(ErrorCode.INVALID_ARGUMENT, "The event is too large.", errors=[place])
    message = "Kafka did not confirm; the event may have been published."
    return ProviderError(ErrorCode.OUTCOME_UNKNOWN, message, detail=repr(error))


def unavailable(message: str, detail: str | None = None) -> ProviderError:
    """Return the failure of a call that has had no effect."""
    return ProviderError(ErrorCode.UNAVAILABLE, message, detail=detail, retry_after_seconds=1.0)

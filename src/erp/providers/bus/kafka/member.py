"""This process as a member of one consumer group."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from erp.providers.bus.kafka.cluster import CLOSE_SECONDS, Cluster, Names, unavailable
from erp.providers.bus.kafka.tracking import Entry, Partition
from erp.runtime.spi import ErrorCode, ProviderError

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

READ_SECONDS = 0.1
MAX_READS = 50
MOST_OPEN = 10_000
"""How many records of a group are kept at most; with so many unconfirmed nothing more is read."""


class Place(NamedTuple):
    """A group of a topic."""

    topic: str
    group: str


class Given(NamedTuple):
    """A record that was given to a consumer."""

    receipt: str
    entry: Entry


class Member:
    """Reads the partitions that Kafka assigns to this process, and commits what is confirmed."""

    def __init__(self, cluster: Cluster, names: Names, place: Place, *, from_earliest: bool) -> None:
        self.place = place
        self._cluster = cluster
        self._names = names
        self._reset = "earliest" if from_earliest else "latest"
        self._name = secrets.token_hex(8)
        self._consumer: AIOKafkaConsumer | None = None
        self._partitions: dict[TopicPartition, Partition] = {}
        self._reading = asyncio.Lock()

    @property
    def group_id(self) -> str:
        """The name of the group in Kafka."""
        return self._names.group(*self.place)

    async def join(self) -> None:
        """Become a member and wait for the partitions."""
        topics = self._names.events(self.place.topic), self._names.requeued(*self.place)
        for topic in topics:
            await self._cluster.topic(topic)
        consumer = await self._cluster.consumer(*topics, group_id=self.group_id, auto_offset_reset=self._reset)
        self._consumer = consumer
        if self._reset == "latest":
            # Where the group begins must be written down: what is published from now on is for it.
            await consumer.commit({one: await consumer.position(one) for one in consumer.assignment()})

    async def leave(self) -> None:
        """Stop. What is not confirmed is for the others."""
        consumer, self._consumer = self._consumer, None
        self._partitions.clear()
        if consumer is not None:
            async with asyncio.timeout(CLOSE_SECONDS * 2):
                await consumer.stop()

    def _joined(self) -> AIOKafkaConsumer:
        if self._consumer is None:
            raise unavailable("The group is being moved.")
        return self._consumer

    # -- receiving -------------------------------------------------------------------------------

    async def read(self, wanted: int) -> None:
        """Read on until ``wanted`` records wait or the end that the partitions have now is reached."""
        from aiokafka.errors import KafkaError

        consumer = self._joined()
        async with self._reading:
            try:
                self._follow(consumer)
                ends = await self._cluster.ends(consumer.assignment())
                for _ in range(MAX_READS):
                    room = MOST_OPEN - sum(len(one.entries) for one in self._partitions.values())
                    if room <= 0 or self._waiting() >= wanted or not await self._is_behind(consumer, ends):
                        return
                    found = await consumer.getmany(timeout_ms=int(READ_SECONDS * 1000), max_records=room)
                    self._follow(consumer)
                    for partition, records in found.items():
                        for record in records:
                            self._partitions.setdefault(partition, Partition()).add(record)
            except KafkaError as error:
                raise unavailable("Kafka cannot be read now.", repr(error)) from error

    def _waiting(self) -> int:
        return sum(one.waiting for one in self._partitions.values())

    def _follow(self, consumer: AIOKafkaConsumer) -> None:
        """Forget the partitions that Kafka has given to another process, and what was under way in them."""
        mine = consumer.assignment()
        self._partitions = {one: kept for one, kept in self._partitions.items() if one in mine}

    @staticmethod
    async def _is_behind(consumer: AIOKafkaConsumer, ends: dict[TopicPartition, int]) -> bool:
        for partition, end in ends.items():
            if partition in consumer.assignment() and await consumer.position(partition) < end:
                return True
        return False

    def due(self) -> Iterable[tuple[TopicPartition, Entry]]:
        """Yield what may be given now, by time of publication."""
        found = [(partition, entry) for partition, kept in self._partitions.items() for entry in kept.due()]
        return sorted(found, key=lambda one: (one[1].record.timestamp, one[0].partition, one[1].record.offset))

    def give(self, partition: TopicPartition, entry: Entry, seconds: float) -> Given:
        """Note that a consumer gets a record for a time; return its receipt."""
        entry.deliveries += 1
        entry.due_at = time.monotonic() + seconds
        kind = "r" if partition.topic != self._names.events(self.place.topic) else "e"
        return Given(f"{self._name}.{kind}.{partition.partition}.{entry.record.offset}.{entry.deliveries}", entry)

    def held(self, receipt: str) -> tuple[TopicPartition, Entry] | None:
        """Return what a receipt is for, while it is good."""
        from aiokafka import TopicPartition

        words = receipt.split(".")
        if len(words) != 5 or words[0] != self._name or not all(one.isdigit() for one in words[2:]):  # noqa: PLR2004
            return None
        topic = self._names.events(self.place.topic) if words[1] == "e" else self._names.requeued(*self.place)
        partition = TopicPartition(topic, int(words[2]))
        entry = self._partitions.get(partition, Partition()).entries.get(int(words[3]))
        is_good = (
            entry is not None
            and not entry.is_done
            and entry.deliveries == int(words[4])
            and entry.due_at > time.monotonic()
        )
        return (partition, entry) if entry is not None and is_good else None

    async def settle(self, found: Sequence[tuple[TopicPartition, Entry]]) -> None:
        """Confirm records: commit as far as everything before is confirmed."""
        from aiokafka.errors import KafkaError

        offsets: dict[TopicPartition, int] = {}
        for partition, entry in found:
            committed = self._partitions[partition].settle([entry.record.offset])
            if committed is not None:
                offsets[partition] = committed
        if not offsets:
            return
        try:
            await self._joined().commit(offsets)
        except KafkaError as error:
            # The partitions have gone to another process, or will be read from the last commit on.
            self._partitions = {one: kept for one, kept in self._partitions.items() if one not in offsets}
            raise unavailable("Kafka did not take the acknowledgement; the events come again.", repr(error)) from error

    # -- moving ----------------------------------------------------------------------------------

    async def move(self, targets: dict[TopicPartition, int]) -> None:
        """Set where the group goes on; only who receives from all partitions can say so for all.

        Raises:
            ProviderError: ``failed_precondition`` when another process receives for the group.
        """
        from aiokafka.errors import KafkaError

        consumer = self._joined()
        async with self._reading:
            if not set(targets) <= consumer.assignment():
                message = "Other processes receive for this group too; stop them, and move it then."
                raise ProviderError(ErrorCode.FAILED_PRECONDITION, message)
            try:
                await consumer.commit(targets)
            except KafkaError as error:
                raise unavailable("Kafka did not move the group.", repr(error)) from error
            for partition, offset in targets.items():
                consumer.seek(partition, offset)
            self._partitions.clear()

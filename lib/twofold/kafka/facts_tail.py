"""What the tail of `facts` says is already there: where a stateless speed job may begin."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import msgspec
from kafka import KafkaConsumer, TopicPartition

from twofold.kafka.address import broker_address
from twofold.kafka.topics import Topic, reaching
from twofold.settings import Settings
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey

#: Messages of a partition that are looked at. A producer that died left holes only among what it had in flight: five requests.
TAIL_MESSAGES = 5_000


class _Place(msgspec.Struct, gc=False):
    """The position in a `facts` message; its other fields are skipped unread."""

    topic_id: str
    partition: int
    offset: int


_DECODER = msgspec.json.Decoder(_Place)


def next_after(offsets: Iterable[int]) -> int | None:
    """The position to begin at when these are present: the first hole among them, else the one after the last.

    Order and repetition do not matter. A hole that `events` does not fill either costs a replay of what follows it.
    """
    seen = sorted(set(offsets))
    for position, following in pairwise(seen):
        if following != position + 1:
            return position + 1
    return seen[-1] + 1 if seen else None


def facts_tail(settings: Settings, topic: Topic, messages: int = TAIL_MESSAGES) -> Offsets:
    """For each partition of the log, the position after the contiguous tail of `facts`; partitions without facts are left out.

    Raises :class:`BrokerError` when the broker cannot be reached.
    """
    servers = broker_address(settings)
    seen: dict[int, list[int]] = {}
    with reaching(servers):
        consumer = KafkaConsumer(
            bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest", bootstrap_timeout_ms=10_000
        )
        try:
            name = settings.kafka.facts_topic
            places = [TopicPartition(name, p) for p in sorted(consumer.partitions_for_topic(name) or ()) if p in topic.partitions]
            if not places:
                return EMPTY_OFFSETS
            starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
            left = {tp for tp in places if ends[tp] > starts[tp]}
            consumer.assign(sorted(left))
            for tp in left:
                consumer.seek(tp, max(starts[tp], ends[tp] - messages))
            while left:
                for tp, records in consumer.poll(timeout_ms=500).items():
                    seen.setdefault(tp.partition, []).extend(_positions(records, topic.topic_id, tp.partition))
                done = {tp for tp in left if consumer.position(tp) >= ends[tp]}
                left -= done
                consumer.pause(*done)
        finally:
            consumer.close()
    found = {PartitionKey(topic.topic_id, partition): next_after(offsets) for partition, offsets in seen.items()}
    return Offsets({key: at for key, at in found.items() if at is not None})


def _positions(records: Iterable[object], topic_id: str, partition: int) -> Iterable[int]:
    for record in records:
        try:
            place = _DECODER.decode(record.value)  # type: ignore[attr-defined]
        except (msgspec.MsgspecError, TypeError):
            continue  # not speed's: the follower reports it
        if place.topic_id == topic_id and place.partition == partition:
            yield place.offset

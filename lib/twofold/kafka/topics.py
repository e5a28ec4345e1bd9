"""The two topics: created with the settings that exactness rests on, described by their ids, measured by their offsets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError, TopicAlreadyExistsError

from twofold.errors import BrokerError, TopicError
from twofold.kafka.address import broker_address
from twofold.settings import Settings
from twofold.timeline import Offsets, PartitionKey


class Topic(NamedTuple):
    """One incarnation of a topic."""

    topic_id: str
    partitions: tuple[int, ...]


@contextmanager
def admin(settings: Settings) -> Iterator[KafkaAdminClient]:
    """An admin client. Raises :class:`BrokerError` when the broker cannot be reached, then or while the client is used."""
    servers = broker_address(settings)
    with reaching(servers):
        client = KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=10_000)
        try:
            yield client
        finally:
            client.close()


@contextmanager
def reaching(servers: str) -> Iterator[None]:
    """What a client raises becomes a :class:`BrokerError`: a connection may break in any call."""
    try:
        yield
    except (KafkaError, OSError) as error:
        raise BrokerError(f"the broker at {servers} cannot be reached: {error}; is `twofold up` running?") from error


def create_topics(settings: Settings) -> None:
    """Create `facts`, then `events`, where they are missing."""
    kafka = settings.kafka
    common = {
        "cleanup.policy": "delete",
        "max.message.bytes": str(kafka.max_message_bytes),
        "unclean.leader.election.enable": "false",
    }
    wanted = {
        kafka.facts_topic: {
            **common,
            "retention.ms": str(kafka.facts_retention_ms),
            "max.message.bytes": str(kafka.facts_max_message_bytes),
        },
        # Broker time is then monotone in a partition and cannot be forged by a producer.
        kafka.events_topic: {
            **common,
            "retention.ms": str(kafka.events_retention_ms),
            "max.message.bytes": str(kafka.max_message_bytes),
            "message.timestamp.type": "LogAppendTime",
        },
    }
    with admin(settings) as client:
        for name, configs in wanted.items():
            try:
                client.create_topics(
                    [NewTopic(name, kafka.partitions, kafka.replication_factor, topic_configs=configs)], wait_for_metadata=True
                )
            except TopicAlreadyExistsError:
                continue
            except KafkaError as error:
                if error.retriable:
                    raise
                raise TopicError(f"topic {name} cannot be created: {error}") from error


def describe(settings: Settings) -> dict[str, Topic]:
    """Topic ids and partitions of the topics that exist."""
    names = [settings.kafka.events_topic, settings.kafka.facts_topic]
    with admin(settings) as client:
        out = {}
        for topic in client.describe_topics(names):
            if not topic["error_code"]:
                partitions = tuple(sorted(p["partition_index"] for p in topic["partitions"]))
                out[topic["name"]] = Topic(str(topic["topic_id"]), partitions)
        return out


def events_topic(settings: Settings) -> Topic:
    """The log. Raises :class:`TopicError` when it does not exist."""
    topic = describe(settings).get(settings.kafka.events_topic)
    if topic is None:
        raise TopicError(f"topic {settings.kafka.events_topic} does not exist: create it with `twofold up`")
    return topic


def grow_partitions(settings: Settings, partitions: int) -> None:
    """Grow `facts` before `events`, so that no entry is ever without a place for its facts."""
    with admin(settings) as client:
        for name in (settings.kafka.facts_topic, settings.kafka.events_topic):
            try:
                client.create_partitions({name: partitions})
            except KafkaError as error:
                if error.retriable:
                    raise
                raise TopicError(f"topic {name} cannot be grown to {partitions} partitions: {error}") from error


def log_offsets(settings: Settings, topic: Topic | None = None) -> tuple[Offsets, Offsets]:
    """(start, end) of the log as vectors, read_committed. Raises :class:`BrokerError` when the broker cannot be reached."""
    topic = topic or events_topic(settings)
    places = [TopicPartition(settings.kafka.events_topic, p) for p in topic.partitions]
    servers = broker_address(settings)
    with reaching(servers):
        consumer = KafkaConsumer(bootstrap_servers=servers, isolation_level="read_committed", bootstrap_timeout_ms=10_000)
        try:
            starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        finally:
            consumer.close()
    start, end = (
        Offsets({PartitionKey(topic.topic_id, tp.partition): at for tp, at in offsets.items()}) for offsets in (starts, ends)
    )
    return start, end

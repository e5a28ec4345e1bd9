"""The speed stream: topic `events` -> topic `facts`, one message a log entry, same partition, in order. Keeps no state.

Because it keeps none, a start may begin at the positions that the tail of `facts` already holds instead of at a checkpoint, so
that a crash replays what was in flight rather than a whole batch, and batches (whose boundary is the only stall) may be long.
At-least-once: the follower ignores what it has seen, and heals what the tail does not show.
"""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from kafka import KafkaConsumer, TopicPartition
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.catalogue import VERSION
from twofold.events import decode_entry
from twofold.kafka.address import broker_address
from twofold.kafka.home import ensure_home
from twofold.settings import Settings
from twofold.spark.admission import admit
from twofold.spark.archive import kafka_start
from twofold.timeline import Offsets

#: Messages of a partition's tail that are looked at for a hole.
_TAIL = 2_000


def resume_position(tail: Iterable[int]) -> int | None:
    """The first position that is missing after the lowest of the tail's, ``None`` for an empty tail.

    An asynchronous producer may have written 101 without 100: starting at the newest + 1 would leave 100 to the follower.
    """
    seen = set(tail)
    if not seen:
        return None
    position = min(seen)
    while position in seen:
        position += 1
    return position


def tail_of_facts(settings: Settings, topic_id: str, partitions: Iterable[int]) -> dict[int, list[int]]:
    """Positions that the last messages of each partition of `facts` stand for."""
    topic = settings.kafka.facts_topic
    consumer = KafkaConsumer(bootstrap_servers=broker_address(settings), isolation_level="read_committed", enable_auto_commit=False)
    out: dict[int, list[int]] = {}
    try:
        for partition in partitions:
            place = TopicPartition(topic, partition)
            begin, end = consumer.beginning_offsets([place])[place], consumer.end_offsets([place])[place]
            out[partition] = []
            if begin >= end:
                continue
            consumer.assign([place])
            consumer.seek(place, max(begin, end - _TAIL))
            while consumer.position(place) < end:
                for message in consumer.poll(timeout_ms=500).get(place, ()):
                    entry = decode_entry(message.value)
                    if entry.topic_id == topic_id:
                        out[partition].append(entry.offset)
    finally:
        consumer.close()
    return out


def start_offsets(settings: Settings, topic_id: str, log_start: Offsets) -> Offsets:
    """Where a start begins: after what `facts` holds without a hole, else at the log start; never at the latest."""
    tails = tail_of_facts(settings, topic_id, [key.partition for key in log_start])
    out = {}
    for key, first in log_start.items():
        resumed = resume_position(tails[key.partition])
        out[key] = first if resumed is None else resumed
    return Offsets(out)


def facts_message(topic_id: str) -> Column:
    """The value of a `facts` message: an ``events.Entry`` as JSON, nulls left out."""
    return F.to_json(
        F.struct(
            F.lit(VERSION).alias("version"),
            F.lit(topic_id).alias("topic_id"),
            "partition",
            "offset",
            "broker_ms",
            "verdict",
            "person",
            "event_id",
            "at_ms",
            "channel",
            "device",
            "facts",
        )
    )


def to_facts(source: DataFrame, topic_id: str) -> DataFrame:
    """Kafka rows of `events` -> Kafka rows of `facts` (partition, key, value)."""
    entries = source.select("partition", "offset", F.unix_millis("timestamp").alias("broker_ms"), "key", "value")
    return admit(entries).select("partition", "key", facts_message(topic_id).alias("value"))


def _checkpoint(settings: Settings) -> Path:
    folder = Path(settings.checkpoint("speed"))
    if settings.speed.start_from == "checkpoint":
        return folder / "kept"
    # A checkpoint of an earlier start would win over the starting offsets: each start has its own.
    shutil.rmtree(folder, ignore_errors=True)
    return folder / uuid.uuid4().hex


def start_speed(spark: Any, settings: Settings) -> Any:
    """Start the stream; returns the running query."""
    log = ensure_home(settings)
    speed, kafka = settings.speed, settings.kafka
    source = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", broker_address(settings))
        .option("subscribe", kafka.events_topic)
        .option("startingOffsets", kafka_start(start_offsets(settings, log.topic_id, log.log_start), kafka.events_topic))
        .option("kafka.isolation.level", "read_committed")
        .option("failOnDataLoss", "true")
        .load()
    )
    writer = (
        to_facts(source, log.topic_id)
        .writeStream.queryName("speed")
        .format("kafka")
        .option("kafka.bootstrap.servers", broker_address(settings))
        .option("topic", kafka.facts_topic)
        .option("kafka.acks", "all")
        .option("kafka.linger.ms", speed.linger_ms)
        .option("kafka.max.request.size", kafka.facts_max_message_bytes)
        .option("checkpointLocation", str(_checkpoint(settings)))
    )
    if speed.mode == "realtime":
        return writer.outputMode("update").trigger(realTime=speed.batch_duration).start()
    return writer.outputMode("append").trigger(processingTime=f"{speed.microbatch_trigger_ms} milliseconds").start()


def slots(settings: Settings) -> int:
    """Task slots that real-time mode holds: one a partition, and two to spare."""
    key_count = len(ensure_home(settings).log_start)
    return max(key_count, settings.kafka.partitions) + 2

"""The speed stream: topic `events` -> topic `facts`, one message a log entry, same partition, in order. Keeps no state.

Because it keeps none, a start may begin at the positions that the tail of `facts` already holds instead of at a checkpoint, so
that a crash replays what was in flight rather than a whole batch, and batches (whose boundary is the only stall) may be long.
At-least-once: the follower ignores what it has seen, and heals what the tail does not show.
"""

from __future__ import annotations

import uuid
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.catalogue import VERSION
from twofold.kafka.address import broker_address
from twofold.kafka.facts_tail import facts_tail
from twofold.kafka.home import ensure_home
from twofold.kafka.topics import events_topic
from twofold.settings import Settings
from twofold.spark.admission import ADMITTED, admit
from twofold.spark.job import has_polled, tasks_run
from twofold.spark.source import read_log, starting_offsets
from twofold.stores.files import folder
from twofold.timeline import EMPTY_OFFSETS

#: Task slots that real-time mode needs beside one a source partition.
_SPARE_SLOTS = 2


def message(version: str = VERSION) -> Column:
    """The value of a `facts` message: an ``events.Entry`` as JSON, nulls left out."""
    return F.to_json(F.struct(F.lit(version).alias("version"), "topic_id", "partition", "offset", "broker_ms", *ADMITTED))


def to_facts(entries: DataFrame) -> DataFrame:
    """Rows for the Kafka sink, each for the partition that its entry came from, under the entry's own key."""
    return admit(entries).select("partition", "key", message().alias("value"))


def _checkpoint(settings: Settings) -> str:
    """Starting from `facts`, each start has a new checkpoint: an earlier one would win over the starting offsets."""
    root = settings.checkpoint("speed")
    if settings.speed.start_from == "checkpoint":
        return f"{root}/kept"
    folder(root).remove("starts")
    return f"{root}/starts/{uuid.uuid4().hex}"


def start_speed(spark: Any, settings: Settings) -> Any:
    """Start the stream; returns the running query."""
    log, topic = ensure_home(settings), events_topic(settings)
    speed, kafka = settings.speed, settings.kafka
    reached = facts_tail(settings, topic) if speed.start_from == "facts" else EMPTY_OFFSETS
    entries = read_log(spark, settings, starting_offsets(settings, topic, log.log_start, reached))
    writer = (
        to_facts(entries.drop("headers"))
        .writeStream.queryName("speed")
        .format("kafka")
        .option("kafka.bootstrap.servers", broker_address(settings))
        .option("topic", kafka.facts_topic)
        .option("kafka.acks", "all")
        .option("kafka.linger.ms", speed.linger_ms)
        .option("kafka.max.request.size", kafka.facts_max_message_bytes)
        .option("checkpointLocation", _checkpoint(settings))
    )
    if speed.mode == "realtime":
        return writer.outputMode("update").trigger(realTime=speed.batch_duration).start()
    return writer.outputMode("append").trigger(processingTime=f"{speed.microbatch_trigger_ms} milliseconds").start()


def is_ready(spark: Any, settings: Settings, query: Any) -> bool:
    """Whether every partition is being read. A real-time batch reports no progress before its end, but its tasks run."""
    if settings.speed.mode == "realtime":
        return tasks_run(spark, len(events_topic(settings).partitions))
    return has_polled(query)


def slots(settings: Settings) -> int:
    """Task slots that must be free at once: a real-time batch holds one a partition for its whole length."""
    return len(events_topic(settings).partitions) + _SPARE_SLOTS

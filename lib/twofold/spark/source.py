"""The log as a streaming source: every reader reads committed entries only and stops rather than skip lost ones."""

from __future__ import annotations

import json
from typing import Any

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from twofold.errors import TopicError
from twofold.kafka.address import broker_address
from twofold.kafka.topics import Topic, log_offsets
from twofold.settings import Settings
from twofold.timeline import Offsets, PartitionKey


def starting_offsets(settings: Settings, topic: Topic, log_start: Offsets, reached: Offsets) -> Offsets:
    """Where a new checkpoint begins, for every partition that the topic has now: what was ``reached``, else ``log_start``.

    Never latest. What the broker has deleted meanwhile is passed over: the follower marks that gap.
    Raises :class:`TopicError` when the log ends below what was reached: then it was lost.
    """
    begin, end = log_offsets(settings, topic)
    out = {}
    for partition in topic.partitions:
        key = PartitionKey(topic.topic_id, partition)
        start = max(reached.next(key) if key in reached else log_start.next(key), begin.next(key))
        if start > end.next(key):
            raise TopicError(f"partition {partition} of the log ends at {end.next(key)}, below {start} that was already read")
        out[key] = start
    return Offsets(out)


def read_log(spark: SparkSession, settings: Settings, start: Offsets, **options: Any) -> DataFrame:
    """A stream of ``key, value, headers, topic_id, partition, offset, broker_ms``.

    ``start`` names every partition and counts for a new checkpoint only. ``options`` are the Kafka source's.
    """
    name = settings.kafka.events_topic
    (topic_id,) = {key.topic_id for key in start}
    reader = (
        spark.readStream.format("kafka")
        .option("kafka.bootstrap.servers", broker_address(settings))
        .option("subscribe", name)
        .option("startingOffsets", json.dumps({name: {str(key.partition): at for key, at in start.items()}}))
        .option("kafka.isolation.level", "read_committed")
        .option("failOnDataLoss", "true")
        .option("includeHeaders", "true")
    )
    for option, value in options.items():
        reader = reader.option(option, str(value))
    return reader.load().select(
        "key",
        "value",
        "headers",
        F.lit(topic_id).alias("topic_id"),
        "partition",
        "offset",
        F.unix_millis("timestamp").alias("broker_ms"),
    )

"""Ok entries -> the rows of ``state``: one winner an event, one row a person, in one shuffle and one aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from twofold.features import Catalogue
from twofold.spark.admission import FACTS_TYPE
from twofold.spark.lower import BODY, ENVELOPE, Fold
from twofold.spark.session import cores
from twofold.spark.tables import ARCHIVE_COLUMNS

#: Columns of an ok entry. ``topic`` is its ordinal by first appearance in the manifests.
ENTRY = ("person", "event_id", "at_ms", "broker_ms", "topic", "partition", "offset", "channel", "device", "facts")
#: Columns of an element of ``recent``: event time and id first, so that the array sorts by them.
RECENT = ("at_ms", "event_id", "broker_ms", "topic", "partition", "offset", "channel", "device", "facts")
STATE = ("person", "older", "older_json", "older_ids", "recent")

#: Entries of one task: its sort then stays in memory.
ENTRIES_PER_TASK = 250_000

_BODY_TYPE = FACTS_TYPE.removeprefix("array<").removesuffix(">")


def tasks_of(entries: int) -> int:
    """Tasks of the shuffle by person: at least one a core, each with entries that sort in memory."""
    return max(cores(), -(-entries // ENTRIES_PER_TASK))


def ok_entries(judged: DataFrame, topics: Sequence[str]) -> DataFrame:
    """The ok ones of ``cut.judged_entries`` as columns of ``ENTRY``; ``topics``: ids in the order that ranks them."""
    topic = F.array_position(F.array(*map(F.lit, topics)), F.col("topic_id")).cast("int") - 1
    return judged.where(F.col("verdict") == "ok").withColumn("topic", topic).select(*ENTRY)


def winners(entries: DataFrame) -> DataFrame:
    """One entry a (person, event id): the lowest (broker time, topic ordinal, partition, offset), with all its facts."""
    order = Window.partitionBy("person", "event_id").orderBy("broker_ms", "topic", "partition", "offset")
    return entries.withColumn("_copy", F.row_number().over(order)).where(F.col("_copy") == 1).drop("_copy")


def _items(horizon_ms: Column | int) -> Column:
    """What the aggregate reads of an entry: before the horizon a row a fact, since it one row with the whole entry.

    The entry travels inside the item: beside it, an order of a thousand products would be copied a thousand times.
    """
    entry = F.struct(*RECENT)

    def item(ordinal: Column, fact: Column) -> Column:
        return F.struct(ordinal.alias("ordinal"), fact.alias("fact"), F.when(F.lit(False), entry).alias("entry"))

    facts = F.col("facts")
    one = F.array(item(F.lit(0), F.get(facts, F.lit(0))))
    many = F.transform(facts, lambda fact, place: item(place, fact))
    whole = F.array(F.struct(F.lit(0).alias("ordinal"), F.lit(None).cast(_BODY_TYPE).alias("fact"), entry.alias("entry")))
    older = F.when(F.size(facts) == 1, one).otherwise(many)
    return F.when(F.col("at_ms") < horizon_ms, older).otherwise(whole)


def state_rows(entries: DataFrame, catalogue: Catalogue, horizon_ms: Column | int, partitions: int) -> DataFrame:
    """Columns of ``STATE`` from ok entries (columns of ``ENTRY``): facts before the horizon folded, later ones kept.

    Sorted by person within each of ``partitions`` partitions; also ``_entries`` and ``_facts``, what the person's winners hold.
    """
    plan = Fold(catalogue.lifetime, horizon_ms)
    placed = winners(entries.select(*ENTRY).repartition(partitions, "person"))
    rows = placed.select(*ENVELOPE, F.size("facts").alias("_size"), F.explode(_items(horizon_ms)).alias("_item")).select(
        *ENVELOPE,
        "_size",
        *(F.col(f"_item.{name}").alias(name) for name in ("ordinal", "entry")),
        *(F.col("_item.fact").getField(name).alias(name) for name in BODY),
    )
    first, older = F.col("ordinal") == 0, F.col("entry").isNull()
    people = rows.groupBy("person").agg(
        *plan.gathered,
        F.collect_list(F.when(first & older, F.xxhash64("event_id"))).alias("older_ids"),
        F.collect_list("entry").alias("recent"),
        F.count_if(first).alias("_entries"),
        F.sum(F.when(first, F.col("_size"))).alias("_facts"),
    )
    folded = people.select(
        "person",
        F.struct(*plan.states).alias("older"),
        F.sort_array("older_ids").alias("older_ids"),
        F.sort_array("recent").alias("recent"),
        "_entries",
        "_facts",
    )
    return folded.withColumn("older_json", F.to_json("older")).select(*STATE, "_entries", "_facts").sortWithinPartitions("person")


def empty_state(spark: Any, catalogue: Catalogue) -> DataFrame:
    """Columns of ``STATE`` and nobody in them: the snapshot before the first batch."""
    types = {name: type_ for name, type_, _comment in ARCHIVE_COLUMNS}
    nothing = spark.createDataFrame([], ", ".join(f"{name} {types.get(name, 'int')}" for name in ENTRY))
    return spark.createDataFrame([], state_rows(nothing, catalogue, 0, 1).select(*STATE).schema)

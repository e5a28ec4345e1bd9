"""Ok entries -> the rows of ``state``: one winner an event, one row a person, in one shuffle and one aggregate."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from twofold.features import Catalogue
from twofold.spark.lower import facts_of, fold, let
from twofold.spark.session import cores
from twofold.spark.tables import ARCHIVE_COLUMNS

#: Columns of an ok entry. ``topic`` is its ordinal by first appearance in the manifests.
ENTRY = ("person", "event_id", "at_ms", "broker_ms", "topic", "partition", "offset", "channel", "device", "facts")
#: Columns of an element of ``recent``: event time and id first, so that the array sorts by them.
RECENT = ("at_ms", "event_id", "broker_ms", "topic", "partition", "offset", "channel", "device", "facts")
STATE = ("person", "older", "older_json", "older_ids", "recent")

#: Entries of one task: its sort then stays in memory.
ENTRIES_PER_TASK = 250_000
#: The order of an event's copies: the first one counts. As ``merge.rank``.
RANK = ("broker_ms", "topic", "partition", "offset")
_KEY = ("event_id", *RANK)


def tasks_of(entries: int) -> int:
    """Tasks of the shuffle by person: at least one a core, each with entries that sort in memory."""
    return max(cores(), -(-entries // ENTRIES_PER_TASK))


def ok_entries(judged: DataFrame, topics: Sequence[str]) -> DataFrame:
    """The ok ones of ``cut.judged_entries`` as columns of ``ENTRY``; ``topics``: ids in the order that ranks them."""
    topic = F.array_position(F.array(*map(F.lit, topics)), F.col("topic_id")).cast("int") - 1
    return judged.where(F.col("verdict") == "ok").withColumn("topic", topic).select(*ENTRY)


def winners(entries: DataFrame) -> DataFrame:
    """One entry a (person, event id): the lowest (broker time, topic ordinal, partition, offset), with all its facts."""
    order = Window.partitionBy("person", "event_id").orderBy(*RANK)
    return entries.withColumn("_copy", F.row_number().over(order)).where(F.col("_copy") == 1).drop("_copy")


def keyed(entries: Column, hot: bool = False) -> Column:
    """Entries (structs of ``RECENT``) as elements that sort by event id and rank: the five columns, ``hot``, and the entry."""
    return F.transform(
        entries, lambda entry: F.struct(*(entry[name].alias(name) for name in _KEY), F.lit(hot).alias("hot"), entry.alias("entry"))
    )


def number_of_facts(entries: Column) -> Column:
    """How many facts an array of entries has."""
    return F.aggregate(entries, F.lit(0).cast("bigint"), lambda total, entry: total + F.size(entry["facts"]))


def first_copies(elements: Column) -> Column:
    """The winner of each event id among elements of :func:`keyed`, in the order of the ids."""

    def firsts(ordered: Column) -> Column:
        return F.filter(ordered, lambda copy, place: (place == 0) | (copy["event_id"] != F.get(ordered, place - 1)["event_id"]))

    return let(F.sort_array(elements), firsts)


def fold_people(people: DataFrame, catalogue: Catalogue, horizon_ms: Column | int) -> DataFrame:
    """``people`` with their ``copies`` (arrays of structs of ``RECENT``) folded: facts before the horizon into ``older`` and
    ``older_ids``, later entries kept in ``recent``; and ``entries`` and ``facts``, what the winners hold.
    """
    won = people.withColumn("_won", F.transform(first_copies(keyed(F.col("copies"))), lambda copy: copy["entry"])).drop("copies")
    older = F.filter("_won", lambda entry: entry["at_ms"] < horizon_ms)
    return won.select(
        *(name for name in won.columns if name != "_won"),
        fold(facts_of(older), catalogue.lifetime, horizon_ms).alias("older"),
        F.sort_array(F.transform(older, lambda entry: F.xxhash64(entry["event_id"]))).alias("older_ids"),
        F.sort_array(F.filter("_won", lambda entry: entry["at_ms"] >= horizon_ms)).alias("recent"),
        F.size("_won").alias("entries"),
        number_of_facts(F.col("_won")).alias("facts"),
    )


def state_rows(entries: DataFrame, catalogue: Catalogue, horizon_ms: Column | int, partitions: int) -> DataFrame:
    """Columns of ``STATE`` from ok entries (columns of ``ENTRY``); also ``entries`` and ``facts`` as :func:`fold_people` has them.

    Sorted by person within each of ``partitions`` partitions.
    """
    # Sorted first: then one person's entries are gathered at a time, and the rows come out sorted.
    placed = entries.select(*ENTRY).repartition(partitions, "person").sortWithinPartitions("person")
    folded = fold_people(placed.groupBy("person").agg(F.collect_list(F.struct(*RECENT)).alias("copies")), catalogue, horizon_ms)
    rows = folded.withColumn("older_json", F.to_json("older")).select(*STATE, "entries", "facts")
    return rows.sortWithinPartitions("person")


def empty_state(spark: Any, catalogue: Catalogue) -> DataFrame:
    """Columns of ``STATE`` and nobody in them: the snapshot before the first batch."""
    types = {name: type_ for name, type_, _comment in ARCHIVE_COLUMNS}
    nothing = spark.createDataFrame([], ", ".join(f"{name} {types.get(name, 'int')}" for name in ENTRY))
    return spark.createDataFrame([], state_rows(nothing, catalogue, 0, 1).select(*STATE).schema)

"""Ok entries -> the rows of ``state``: one winner an event, one row a person, in one shuffle and one aggregate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from twofold.events import RETRACTION_KIND
from twofold.features import Catalogue
from twofold.spark.cut import Survey
from twofold.spark.lower import facts_of, fold, let
from twofold.spark.session import cores
from twofold.spark.tables import ARCHIVE_COLUMNS

#: Columns of an ok entry. ``topic`` is its ordinal by first appearance in the manifests.
ENTRY = ("person", "event_id", "at_ms", "broker_ms", "topic", "partition", "offset", "channel", "device", "facts")
#: Columns of an element of ``recent``: event time and id first, so that the array sorts by them.
RECENT = ("at_ms", "event_id", "broker_ms", "topic", "partition", "offset", "channel", "device", "facts")
#: ``older_ids``, ``retracted_ids`` and ``awaited_ids`` are sorted hashes of event ids. The second are of what the person's
#: retractions take back, and nothing of such an event is in the row; the third those of them that no entry had yet.
STATE = ("person", "older", "older_json", "older_ids", "retracted_ids", "awaited_ids", "recent")
#: What else :func:`fold_people` tells of a person.
COUNTS = ("entries", "facts")
_IDS = "array<bigint>"

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


def target_hash() -> Column:
    """Of an ok entry that is a retraction the hash of the event id that it takes back, else null."""
    fact = F.get("facts", F.lit(0))
    return F.when(fact["kind"] == RETRACTION_KIND, F.xxhash64(fact["key"]))


def hashes(ids: Column | str) -> Column:
    """An array of hashes; none for null."""
    return F.coalesce(ids, F.array().cast(_IDS))


def by_person(entries: DataFrame, name: str, keys: Sequence[str] = ("person",), *more: Column) -> DataFrame:
    """Ok entries (columns of ``ENTRY``) gathered a person: ``name``, structs of ``RECENT``, and ``targets``, sorted hashes of
    what the retractions among them take back. ``keys``: the person, and columns that are the same for all of a person's entries;
    ``more``: further aggregates.
    """
    told = entries.withColumn("_target", target_hash())
    return told.groupBy(*keys).agg(
        F.collect_list(F.struct(*RECENT)).alias(name), F.sort_array(F.collect_set("_target")).alias("targets"), *more
    )


def not_retracted(elements: Column, event_id: Callable[[Column], Column], retracted: Column) -> Column:
    """The elements of an array whose event id's hash is not among ``retracted``, of which most people have none."""

    def kept(one: Column) -> Column:
        return ~F.array_contains(retracted, F.xxhash64(event_id(one)))

    return let(elements, lambda known: F.when(F.size(retracted) == 0, known).otherwise(F.filter(known, kept)))


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
    ``older_ids``, later entries kept in ``recent``; and ``COUNTS``, what the winners hold.

    Winners that ``retracted_ids`` name count nowhere; ``awaited_ids`` lose the ids of all winners.
    """
    awaited = F.col("awaited_ids")

    def split(first: Column) -> Column:
        came = F.array_except(awaited, F.transform(first, lambda entry: F.xxhash64(entry["event_id"])))
        return F.struct(
            not_retracted(first, lambda entry: entry["event_id"], F.col("retracted_ids")).alias("won"),
            F.when(F.size(awaited) == 0, awaited).otherwise(F.sort_array(came)).alias("awaited_ids"),
        )

    first = F.transform(first_copies(keyed(F.col("copies"))), lambda copy: copy["entry"])
    parts = people.withColumn("_split", let(first, split)).drop("copies", "awaited_ids")
    others = [name for name in parts.columns if name != "_split"]
    won = parts.select(*others, F.col("_split.awaited_ids").alias("awaited_ids"), F.col("_split.won").alias("_won"))
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
    """Columns of ``STATE`` from ok entries (columns of ``ENTRY``), and ``COUNTS``.

    Sorted by person within each of ``partitions`` partitions.
    """
    # Sorted first: then one person's entries are gathered at a time, and the rows come out sorted.
    placed = entries.select(*ENTRY).repartition(partitions, "person").sortWithinPartitions("person")
    people = by_person(placed, "copies").withColumnRenamed("targets", "retracted_ids")
    folded = fold_people(people.withColumn("awaited_ids", F.col("retracted_ids")), catalogue, horizon_ms)
    rows = folded.withColumn("older_json", F.to_json("older")).select(*STATE, *COUNTS)
    return rows.sortWithinPartitions("person")


def held() -> list[Column]:
    """Aggregates of rows of ``STATE`` by which :func:`counts_of` counts: persons, their entries, what retractions took out."""
    return [
        F.count(F.lit(1)).alias("persons"),
        F.sum(F.size("older_ids") + F.size("recent")).alias("entries"),
        F.sum(F.size("retracted_ids")).alias("retractions"),
        F.sum(F.size("awaited_ids")).alias("awaited"),
    ]


def counts_of(found: Survey, people: Mapping[str, Any]) -> dict[str, int]:
    """Counts of a snapshot's row: what lies below its cut, and what :func:`held` and the sum of ``facts`` say of its persons.

    ``duplicates``: ok entries that another copy of their event left without effect; ``retracted``: events that were taken back;
    ``retractions``: distinct targets, ``retractions_of_nothing`` those of them that no entry had.
    """
    counts, number = found.counts(), {name: people[name] or 0 for name in people}
    retracted = number["retractions"] - number["awaited"]
    return {
        **counts,
        "duplicates": counts["ok"] - number["entries"] - retracted,
        "retracted": retracted,
        "retractions": number["retractions"],
        "retractions_of_nothing": number["awaited"],
        "persons": number["persons"],
        "facts": number["facts"],
    }


def empty_state(spark: Any, catalogue: Catalogue) -> DataFrame:
    """Columns of ``STATE`` and nobody in them: the snapshot before the first batch."""
    types = {name: type_ for name, type_, _comment in ARCHIVE_COLUMNS}
    nothing = spark.createDataFrame([], ", ".join(f"{name} {types.get(name, 'int')}" for name in ENTRY))
    return spark.createDataFrame([], state_rows(nothing, catalogue, 0, 1).select(*STATE).schema)

"""Incremental nights: the parent's `state` ⊕ the archive slice since its cut, bit for bit what a full rebuild there writes.

A row is recomputed when the slice holds an ok entry of the person, or an entry of theirs falls before the new horizon; it goes
through the same fold as a full rebuild, which reads the person's recent and new entries instead of all. Other rows are copied.

A retraction in the slice takes its target out of the person's recent and new entries. What is folded before the horizon cannot
be taken out of a state again: a person who retracts such an event is folded anew from the archive.

What a night cannot know it refuses: an event that is folded before the horizon is known by the hash of its id alone, so a new
entry with that hash is looked up in the archive, and only one that loses against an older copy is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame, Observation
from pyspark.sql import functions as F

from twofold.catalogue import CATALOGUE
from twofold.errors import IncrementalDiffers, IncrementalRefused
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark.cut import Pinned, Survey, below, judged_entries, pin_span, pinned_span, slice_of, survey
from twofold.spark.plus import plus
from twofold.spark.published import write_version
from twofold.spark.state_rows import (
    RANK,
    STATE,
    by_person,
    counts_of,
    fold_people,
    hashes,
    held,
    number_of_facts,
    ok_entries,
    state_rows,
    tasks_of,
)
from twofold.views import ManifestRow

#: Up to so many persons their keys are sent to every task, and the large side of a join stays where it is.
_SENT_PERSONS = 2_000_000
_SHOWN = 10


class Night(NamedTuple):
    """What an incremental night reads: the pin, the parent's `state`, the judged entries in ``[parent.cut, cut)``, how many."""

    pinned: Pinned
    state: DataFrame
    slice: DataFrame
    slice_entries: int

    @property
    def parent(self) -> ManifestRow:
        return self.pinned.parent

    @property
    def horizon_ms(self) -> int:
        assert self.pinned.row.horizon_ms is not None
        return self.pinned.row.horizon_ms


# --- the pin ---------------------------------------------------------------------------------------------------------------------
def pin_night(spark: Any, settings: Settings, as_of_ms: int | None = None, catalogue: Catalogue = CATALOGUE) -> Night:
    """Pin an incremental night; only the slice is read. Raises as ``cut.pin`` does, and :class:`IncrementalRefused`."""
    span = pin_span(spark, settings, catalogue)
    _refuse_other_parent(span.parent, catalogue.version)
    new = slice_of(spark, settings, span.archive, span.cut, span.parent)
    found = survey(new)
    whole = Survey.of_row(span.parent).plus(found)
    pinned = pinned_span(span, judged_entries(span.archive, span.cut), whole, settings, catalogue, as_of_ms)
    _refuse_backwards(span.parent, pinned.row)
    return Night(pinned, _state(spark, settings, span.parent), new, found.entries if found else 0)


def _night_of(spark: Any, settings: Settings, pinned: Pinned) -> Night:
    """The incremental night that could stand in for a full rebuild. Raises :class:`IncrementalRefused` where there is none."""
    parent = pinned.parent
    _refuse_other_parent(parent, pinned.row.version)
    _refuse_backwards(parent, pinned.row)
    new = slice_of(spark, settings, pinned.archive, pinned.row.cut, parent)
    return Night(pinned, _state(spark, settings, parent), new, pinned.found.entries - parent.counts["entries"])


def _refused(why: str) -> IncrementalRefused:
    return IncrementalRefused(f"{why}: run a full rebuild: twofold batch")


def _refuse_other_parent(parent: ManifestRow, version: str) -> None:
    if parent.seq == 0 or "state" not in parent.tables:
        raise _refused("there is no snapshot to add a night to")
    if parent.version != version:
        raise _refused(f"the last snapshot is of version {parent.version}, admission and definition are now {version}")


def _refuse_backwards(parent: ManifestRow, row: ManifestRow) -> None:
    assert parent.as_of_ms is not None and row.as_of_ms is not None
    assert parent.horizon_ms is not None and row.horizon_ms is not None
    if row.as_of_ms < parent.as_of_ms:
        raise _refused(f"as_of {row.as_of_ms} lies before the last snapshot's {parent.as_of_ms}")
    if row.horizon_ms < parent.horizon_ms:
        raise _refused("the horizon would go back, because batch.late_grace_days was raised")


def _state(spark: Any, settings: Settings, row: ManifestRow) -> DataFrame:
    return spark.read.format("delta").option("versionAsOf", row.tables["state"]).load(settings.table("state"))


# --- the persons to recompute ----------------------------------------------------------------------------------------------------
class Touched(NamedTuple):
    """How many persons are recomputed, how many of their new entries have a hash that is in ``older_ids``, and how many persons
    retract an event whose hash is there."""

    persons: int
    folded: int
    anew: int


def _hash(entry: Column) -> Column:
    return F.xxhash64(entry["event_id"])


def _sent(persons: DataFrame, count: int) -> DataFrame:
    return F.broadcast(persons) if count <= _SENT_PERSONS else persons


@contextmanager
def _persons(night: Night) -> Iterator[tuple[DataFrame, Touched]]:
    """One row a person to recompute, kept while the context lasts.

    The parent's columns (null for a new person), the slice's entries ``new`` and the ``targets`` of their retractions (null
    where only the horizon moved); ``folded``: hashes of new entries that stand in ``older_ids``; ``anew``: whether a target does.
    """
    ok = ok_entries(night.slice, night.pinned.row.topics)
    named = _sent(ok.select("person").distinct().withColumn("_named", F.lit(True)), night.slice_entries)
    # Recent entries are sorted by event time: the first one crosses before all others.
    crosses = F.coalesce(F.get("recent", F.lit(0))["at_ms"] < night.horizon_ms, F.lit(False))
    known = night.state.join(named, "person", "left").where(F.col("_named").isNotNull() | crosses)
    kept = ("person", "older", "older_ids", "retracted_ids", "awaited_ids", "recent")
    both = known.select(*kept).join(by_person(ok, "new"), "person", "full_outer")
    anew = F.size(F.array_intersect(hashes("older_ids"), hashes("targets"))) > 0
    folded = F.when(anew, hashes(F.lit(None))).otherwise(hashes(F.array_intersect("older_ids", F.transform("new", _hash))))
    persons = both.withColumns({"folded": folded, "anew": anew}).persist()
    try:
        (found,) = persons.agg(
            F.count(F.lit(1)).alias("persons"), F.sum(F.size("folded")).alias("folded"), F.count_if("anew").alias("anew")
        ).collect()
        yield persons, Touched(found.persons, found.folded or 0, found.anew)
    finally:
        persons.unpersist()


def _refuse_lower_copies(night: Night, persons: DataFrame) -> None:
    """Look new entries whose hash is folded up in the archive: each must lose against a copy below the parent's cut.

    One without any copy there is another event with the same hash. Raises :class:`IncrementalRefused`.
    """
    rank = F.struct(*RANK)
    new = persons.where(F.size("folded") > 0).select("person", "folded", F.explode("new").alias("_entry"))
    new = new.where(F.array_contains("folded", _hash(F.col("_entry")))).select("person", "_entry.*")
    copies = new.groupBy("person", "event_id").agg(F.min(rank).alias("mine"))
    older = ok_entries(judged_entries(night.pinned.archive, night.parent.cut), night.pinned.row.topics)
    first = older.join(F.broadcast(copies.select("person", "event_id")), ["person", "event_id"], "left_semi")
    first = first.groupBy("person", "event_id").agg(F.min(rank).alias("first"))
    wins = copies.join(first, ["person", "event_id"], "left").where(F.col("first").isNull() | (F.col("mine") < F.col("first")))
    count = wins.count()
    if count:
        raise _refused(f"{count} new entries sort below copies that are folded before the horizon, or share their hash")


# --- the rows --------------------------------------------------------------------------------------------------------------------
def _recomputed(night: Night, persons: DataFrame) -> DataFrame:
    """The rows of the persons to recompute, as :func:`night_rows` gives them."""
    catalogue = night.pinned.catalogue
    recent_type = night.state.schema["recent"].dataType
    nothing = F.array().cast(recent_type)
    new = F.filter("new", lambda entry: ~F.array_contains(F.col("folded"), _hash(entry)))
    before, targets = hashes("retracted_ids"), hashes("targets")
    # A target that was retracted before has come, or is awaited already.
    awaited = F.array_union(hashes("awaited_ids"), F.array_except(targets, before))
    folded = fold_people(
        persons.select(
            "person",
            F.struct("older", "older_ids").alias("_before"),
            F.sort_array(F.array_union(before, targets)).alias("retracted_ids"),
            F.sort_array(awaited).alias("awaited_ids"),
            number_of_facts(F.coalesce("recent", nothing)).alias("_facts_before"),
            F.concat(F.coalesce("recent", nothing), F.coalesce(new, nothing)).alias("copies"),
        ),
        catalogue,
        night.horizon_ms,
    )
    older = F.col("_before.older")
    states = [plus(p.state, older[p.name], F.col("older")[p.name]).alias(p.name) for p in catalogue.lifetime]
    rows = folded.select(
        "person",
        F.struct(*states).alias("older"),
        F.sort_array(F.concat(hashes("_before.older_ids"), "older_ids")).alias("older_ids"),
        "retracted_ids",
        "awaited_ids",
        "recent",
        (F.col("facts") - F.col("_facts_before")).alias("_facts"),
    )
    return rows.withColumn("older_json", F.to_json("older")).select(*STATE, "_facts")


def _folded_anew(night: Night, persons: DataFrame) -> DataFrame:
    """The rows of these persons from all that the archive has of them, as :func:`night_rows` gives them."""
    catalogue, row = night.pinned.catalogue, night.pinned.row
    tasks = tasks_of(0)
    chosen = night.pinned.judged.join(F.broadcast(persons.select("person")), "person", "left_semi")

    def rows_below(judged: DataFrame, horizon_ms: int) -> DataFrame:
        return state_rows(ok_entries(judged, row.topics), catalogue, horizon_ms, tasks)

    assert night.parent.horizon_ms is not None
    before = rows_below(chosen.where(below(night.parent.cut)), night.parent.horizon_ms)
    facts = before.select("person", F.col("facts").alias("_facts_before"))
    now = rows_below(chosen, night.horizon_ms).join(facts, "person", "left")
    return now.select(*STATE, (F.col("facts") - F.coalesce("_facts_before", F.lit(0))).alias("_facts"))


@contextmanager
def night_rows(night: Night) -> Iterator[tuple[DataFrame, Touched]]:
    """Every row of the new `state`, sorted by person within each partition, while the context lasts.

    Columns of ``STATE``, and ``_facts``: how many more facts a person's winners have than the parent's. Raises
    :class:`IncrementalRefused`.
    """
    with _persons(night) as (persons, touched):
        if touched.folded:
            _refuse_lower_copies(night, persons)
        others = night.state.join(_sent(persons.select("person"), touched.persons), "person", "left_anti")
        rows = others.select(*STATE, F.lit(0).cast("bigint").alias("_facts"))
        rows = _recomputed(night, persons.where(~F.col("anew"))).unionByName(rows)
        if touched.anew:
            rows = rows.unionByName(_folded_anew(night, persons.where("anew")))
        yield rows.sortWithinPartitions("person"), touched


def fold_night(night: Night, location: str) -> ManifestRow:
    """Write the night's persons as a new version of `state`; the row, with that version and the counts.

    Nothing is written when no row changes: the new snapshot names the parent's version. Raises :class:`IncrementalRefused`.
    """
    parent, found, row = night.parent, night.pinned.found, night.pinned.row
    with night_rows(night) as (rows, touched):
        version = parent.tables["state"]
        # Nobody is touched: nothing lies in the slice but rejected entries.
        counts = {**parent.counts, **found.counts()}
        if touched.persons:
            people = Observation()
            observed = rows.observe(people, *held(), F.sum("_facts").alias("facts"))
            version = write_version(observed.select(*STATE), location, row.snapshot)
            counts = counts_of(found, {**people.get, "facts": parent.counts["facts"] + (people.get["facts"] or 0)})
    return replace(row, tables={"state": version}, counts={**counts, "rows_recomputed": touched.persons})


# --- the comparison --------------------------------------------------------------------------------------------------------------
def differing(ours: DataFrame, theirs: DataFrame) -> DataFrame:
    """``person`` of every row of ``STATE`` that the two frames do not hold alike; maps compare by their order too."""

    def comparable(rows: DataFrame) -> DataFrame:
        return rows.select("person", F.struct(F.to_json("older"), *STATE[2:]).alias("row"))

    a, b = comparable(ours).alias("a"), comparable(theirs).alias("b")
    both = a.join(b, "person", "full_outer")
    return both.where(~F.col("a.row").eqNullSafe(F.col("b.row"))).select("person")


def compare_night(spark: Any, settings: Settings, pinned: Pinned, version: int, hashed: Callable[[str], str]) -> dict[str, Any]:
    """Hold a full rebuild's `state` (``version``) to the night that could have stood in for it; what goes into the audit.

    ``{"parent", "rows_recomputed", "differing": 0}``, or ``{"skipped": why}`` where a night would have been refused. Raises
    :class:`IncrementalDiffers` with salted hashes of persons (``hashed``).
    """
    try:
        night = _night_of(spark, settings, pinned)
        with night_rows(night) as (rows, touched):
            full = _state(spark, settings, replace(pinned.row, tables={"state": version}))
            wrong = differing(rows.select(*STATE), full).persist()
            try:
                count, some = wrong.count(), [row.person for row in wrong.limit(_SHOWN).collect()]
            finally:
                wrong.unpersist()
    except IncrementalRefused as refused:
        return {"skipped": str(refused)}
    if count:
        raise IncrementalDiffers(
            f"the full rebuild and the nights up to snapshot {night.parent.snapshot} differ in {count} persons "
            f"(hashes {', '.join(sorted(map(hashed, some)))}): the snapshot before it keeps serving; publish the full rebuild "
            "with `twofold batch` once the cause is known"
        )
    return {"parent": night.parent.seq, "rows_recomputed": touched.persons, "differing": 0}

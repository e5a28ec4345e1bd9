"""The drift audit: the snapshot before ⊕ the archive entries since its cut, against the new snapshot.

Both are folded to one instant, the new ``as_of``, and compared in every field of every person. They are two ways to one
answer, so a difference is explained or it is a fault: ``erasure`` (the person was erased in between), ``conflict`` (the fold over
the snapshot before cannot tell which copy of a folded event wins, and says so for that field), ``retraction`` (it cannot take a
folded event out again, and says so), else ``unexplained``.
Under another definition every field may differ (``definition``) and nothing is compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.errors import DriftRefused
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark.cut import Pinned, judged_entries
from twofold.spark.present import feature_columns
from twofold.spark.set_merge import merge_people
from twofold.spark.state_rows import RANK, ok_entries
from twofold.spark.wide import HOLDS_UNTIL, MOVING, read_state
from twofold.stores.person_hash import PersonHash
from twofold.views import ManifestRow

#: Persons that a refusal names, and positions of each.
_NAMED = 10
_POSITIONS = 3
#: What a difference may be, the first that holds.
_CLASSES = ("erasure", "conflict", "retraction", "unexplained")
#: The field of a person who is in one of the two only.
_PRESENCE = "person"


def audit(
    spark: Any, settings: Settings, pinned: Pinned, row: ManifestRow, tasks: int, erased: DataFrame | None = None
) -> ManifestRow:
    """``row`` with the result in ``audit["drift"]``; ``erased``: the persons (column ``person``) erased since the parent.

    Raises :class:`DriftRefused` when anything differs that nothing explains.
    """
    parent = pinned.parent
    result: dict[str, Any] = {"parent": parent.seq, "t": row.as_of_ms}
    verdict = _not_comparable(parent, row, settings)
    if verdict is None:
        before, after = _before(spark, settings, pinned, row, tasks), _after(spark, settings, row)
        compared = _differing(before, after, pinned.catalogue, erased)
        differing = compared.unionByName(_damaged(read_state(spark, settings.table("state"), row)))
        counts = differing.agg(*_counts()).first()
        verdict = "refused" if counts["unexplained"] else "equal"
        result |= {name: counts[name] or 0 for name in ("persons", *_CLASSES)}
        result["fields"] = result["persons"] * len(pinned.catalogue.features)
        if verdict == "refused":
            raise DriftRefused(_refusal(settings, pinned, row, differing, counts))
    return replace(row, audit={**row.audit, "drift": {"verdict": verdict, **result}})


def _not_comparable(parent: ManifestRow, row: ManifestRow, settings: Settings) -> str | None:
    """Why the two snapshots have no common instant: ``first``, ``definition``, ``below_range``; ``None`` when they have one."""
    if parent.seq == 0:
        return "first"
    if parent.version != row.version:
        return "definition"
    assert row.as_of_ms is not None
    return "below_range" if parent.below_range(row.as_of_ms, settings.batch.late_grace_days) else None


def _before(spark: Any, settings: Settings, pinned: Pinned, row: ManifestRow, tasks: int) -> DataFrame:
    """``person``, ``conflict``, ``pending``, a column a feature: the snapshot before ⊕ the entries since, at the new ``as_of``."""
    parent = pinned.parent
    assert row.as_of_ms is not None
    since = ok_entries(judged_entries(pinned.archive, row.cut, parent.cut), row.topics)
    state = read_state(spark, settings.table("state"), parent)
    merged = merge_people(state, since, parent, pinned.catalogue, row.as_of_ms, tasks)
    return merged.select("person", "conflict", "pending", "values.*")


def _after(spark: Any, settings: Settings, row: ManifestRow) -> DataFrame:
    wide = spark.read.format("delta").option("versionAsOf", row.tables["wide_person"])
    return wide.load(settings.table("wide_person")).drop("as_of_ms", "snapshot", HOLDS_UNTIL, MOVING)


def _comparable(column: Column, type_: str) -> Column:
    """Maps cannot be compared, their entries can; in their order, which is a ranking for scores."""
    return F.map_entries(column) if type_.startswith("map") else column


def _differing(before: DataFrame, after: DataFrame, catalogue: Catalogue, erased: DataFrame | None) -> DataFrame:
    """Every person once (``compared``) with the fields that differ by what explains them: ``_CLASSES``."""
    names = list(catalogue.features)
    # A struct a side: null where the person is not in it.
    old = before.select("person", "conflict", "pending", F.struct(F.lit(True).alias("_here"), *names).alias("before"))
    new = after.select("person", F.struct(F.lit(True).alias("_here"), *names).alias("after"))
    both = old.join(new, "person", "full_outer")
    gone = F.lit(False)
    if erased is not None:
        both = both.join(erased.select("person", F.lit(True).alias("_erased")), "person", "left")
        gone = F.coalesce("_erased", F.lit(False))

    def differs(name: str, type_: str) -> Column:
        return F.when(~_comparable(F.col("before")[name], type_).eqNullSafe(_comparable(F.col("after")[name], type_)), F.lit(name))

    def present(texts: Iterable[Column]) -> Column:
        return F.array_compact(F.array(*texts).cast("array<string>"))

    in_one_only = F.col("before").isNull() | F.col("after").isNull()
    differing = present(differs(name, type_) for name, type_, _comment in feature_columns(catalogue))
    fields = F.when(in_one_only, F.array(F.lit(_PRESENCE))).otherwise(differing)
    none = present(())
    said = [F.coalesce(name, none).alias(name) for name in ("conflict", "pending")]
    found = both.select("person", fields.alias("fields"), *said, gone.alias("gone"))

    def explained(by: str) -> Column:
        of = present(_when_any(F.col(by), [p.name for p in catalogue.primaries_of(name)], name) for name in names)
        return F.when(F.size("fields") == 0, none).otherwise(of)

    def kept(columns: Column) -> Column:
        return F.when(F.col("gone"), none).otherwise(columns)

    doubtful = found.withColumn("_doubtful", explained("conflict")).withColumn("_pending", explained("pending"))
    return doubtful.withColumn("_left", F.array_except("fields", "_doubtful")).select(
        "person",
        F.lit(1).alias("compared"),
        F.when(F.col("gone"), F.col("fields")).otherwise(none).alias("erasure"),
        kept(F.array_intersect("fields", "_doubtful")).alias("conflict"),
        kept(F.array_intersect("_left", "_pending")).alias("retraction"),
        kept(F.array_except("_left", "_pending")).alias("unexplained"),
    )


def _damaged(state: DataFrame) -> DataFrame:
    """Persons whose `older_json`, of which the snapshot file is made, is not what `older` is: rows as of :func:`_differing`."""
    none = F.array().cast("array<string>")
    return state.where(~F.col("older_json").eqNullSafe(F.to_json("older"))).select(
        "person",
        F.lit(0).alias("compared"),
        none.alias("erasure"),
        none.alias("conflict"),
        none.alias("retraction"),
        F.array(F.lit("older_json")).alias("unexplained"),
    )


def _when_any(conflict: Column, primaries: list[str], name: str) -> Column:
    return F.when(F.arrays_overlap(conflict, F.array(*map(F.lit, primaries))), F.lit(name))


def _counts() -> list[Column]:
    """Persons compared; differing fields by what explains them; persons with an unexplained one."""
    return [
        F.sum("compared").alias("persons"),
        *(F.sum(F.size(name)).alias(name) for name in _CLASSES),
        F.count_if(F.size("unexplained") > 0).alias("unexplained_persons"),
    ]


# --- a refusal ------------------------------------------------------------------------------------------------------------------
def _refusal(settings: Settings, pinned: Pinned, row: ManifestRow, differing: DataFrame, counts: Any) -> str:
    """One line: how many, and of ten persons the salted hash, the newest positions (topic ordinal/partition/offset), the fields."""
    hashed = PersonHash(settings.home_path)
    named = differing.where(F.size("unexplained") > 0).orderBy("person").limit(_NAMED).collect()
    positions = _positions(pinned, row, [person.person for person in named])
    persons = "; ".join(
        f"{hashed(p.person)} at {' '.join(positions.get(p.person, ())) or 'no position'}: {', '.join(p.unexplained)}" for p in named
    )
    return (
        f"the drift audit refuses {row.snapshot}: {counts['unexplained_persons']} of {counts['persons']} persons differ in "
        f"{counts['unexplained']} fields from snapshot {pinned.parent.seq} and the log since, unexplained; {persons}; "
        f"snapshot {pinned.parent.seq} keeps serving: find the fault in the code or the tables, then run `twofold batch` again"
    )


def _positions(pinned: Pinned, row: ManifestRow, persons: list[str]) -> dict[str, list[str]]:
    """The newest positions of each person below the cut."""
    entries = ok_entries(pinned.judged, row.topics).where(F.col("person").isin(persons))
    newest = F.slice(F.sort_array(F.collect_list(F.struct(*RANK)), asc=False), 1, _POSITIONS)
    found = entries.groupBy("person").agg(newest.alias("newest")).collect()
    return {r.person: [f"{at.topic}/{at.partition}/{at.offset}" for at in r.newest] for r in found}

"""The wide tables of a night: `wide_person`, every feature of every person at ``as_of``, and `wide_campaign`.

Both are overwritten each night and named by version in the manifest row. A row of `wide_person` is F(person, as_of, cut).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark.campaigns import CAMPAIGN_COLUMNS, campaign_rows
from twofold.spark.cut import Pinned
from twofold.spark.present import feature_columns
from twofold.spark.published import write_version
from twofold.spark.set_merge import kept, merge_people
from twofold.spark.state_rows import ok_entries
from twofold.spark.tables import create_table
from twofold.views import ManifestRow

PERSON_COLUMNS = (
    ("person", "string", "person key"),
    ("as_of_ms", "bigint", "instant of every value, epoch ms"),
    ("snapshot", "string", "snapshot id whose cut the values reach up to"),
)
#: What `personalization` needs of a row to take it over: see :mod:`twofold.spark.held`.
HOLDS_UNTIL, MOVING = "holds_until_ms", "moving"
HELD_COLUMNS = (
    (HOLDS_UNTIL, "every value that does not move by itself holds until then unless an event comes, epoch ms; null: for ever"),
    (MOVING, "states that the values rest on which move by themselves, and permission: for the writer of personalization"),
)
#: A point read opens one file and decodes one row group of it.
PERSONS_A_FILE = 100_000
PERSONS_A_ROW_GROUP = 5_000
#: Keys drawn for each file to place the bounds between files.
_KEYS_A_FILE = 200


def person_comments(catalogue: Catalogue) -> dict[str, str]:
    """The columns of `wide_person` and their comments."""
    columns = (*PERSON_COLUMNS, *feature_columns(catalogue))
    # A table cannot have a column of no fields.
    held = dict(HELD_COLUMNS) if kept(catalogue) else {}
    return {**{name: comment for name, _type, comment in columns}, **held}


def read_state(spark: Any, location: str, row: ManifestRow) -> DataFrame:
    """`state` as a manifest row names it."""
    return spark.read.format("delta").option("versionAsOf", row.tables["state"]).load(location)


def person_rows(state: DataFrame, row: ManifestRow, catalogue: Catalogue, tasks: int) -> DataFrame:
    """Columns of :func:`person_comments` of every person of ``state``, at the row's ``as_of``, in no order."""
    assert row.as_of_ms is not None
    merged = merge_people(state, None, row, catalogue, row.as_of_ms, tasks, edges=True)
    values = merged.select(
        "person",
        F.lit(row.as_of_ms).cast("bigint").alias("as_of_ms"),
        F.lit(row.snapshot).alias("snapshot"),
        "values.*",
        F.col("edge_ms").alias(HOLDS_UNTIL),
        F.col("states").alias(MOVING),
    )
    return values.select(
        *(F.col(name).alias(name, metadata={"comment": comment}) for name, comment in person_comments(catalogue).items())
    )


def sorted_by_person(people: DataFrame, keys: DataFrame, persons: int) -> DataFrame:
    """``people`` in files of one range of persons each, sorted; ``keys`` has the same persons and is cheap to read.

    Bounds are drawn from ``keys`` because Spark's own range partitioning would compute ``people`` twice to draw them.
    """
    files = max(1, -(-persons // PERSONS_A_FILE))
    bounds: list[str] = []
    if files > 1:
        drawn = keys.select("person").sample(min(1.0, files * _KEYS_A_FILE / persons), seed=1).collect()
        ordered = sorted((key.person for key in drawn), key=str.encode)
        bounds = sorted({ordered[len(ordered) * place // files] for place in range(1, files)} if ordered else (), key=str.encode)
    return people.repartitionById(len(bounds) + 1, _file_of(bounds)).sortWithinPartitions("person")


def _file_of(bounds: list[str]) -> Column:
    """How many of the bounds a person has reached."""
    if not bounds:
        return F.lit(0)
    return F.size(F.filter(F.array(*map(F.lit, bounds)), lambda bound: bound <= F.col("person")))


def write_wide(spark: Any, settings: Settings, pinned: Pinned, row: ManifestRow, tasks: int) -> ManifestRow:
    """Write both tables of a rebuild whose `state` is written; the row with their versions. ``tasks``: of the shuffle by person."""
    assert row.as_of_ms is not None
    state = read_state(spark, settings.table("state"), row)
    people = sorted_by_person(person_rows(state, row, pinned.catalogue, tasks), state, row.counts["persons"])
    location = settings.table("wide_person")
    create_table(
        spark,
        location,
        "One row a person: every feature at as_of",
        [(field.name, field.dataType.simpleString(), field.metadata["comment"]) for field in people.schema],
        {"parquet.block.row.count.limit": str(PERSONS_A_ROW_GROUP)},
    )
    versions = {"wide_person": write_version(people, location, row.snapshot)}

    campaigns = campaign_rows(ok_entries(pinned.judged, row.topics), row.as_of_ms, tasks)
    location = settings.table("wide_campaign")
    create_table(spark, location, "One row a campaign and UTC day", CAMPAIGN_COLUMNS)
    versions["wide_campaign"] = write_version(campaigns, location, row.snapshot)
    return replace(row, tables={**row.tables, **versions})

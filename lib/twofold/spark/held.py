"""Rows of a night that still hold: what a refresh of everyone takes over instead of folding it again.

`wide_person` says of each person until when every value stays that does not move by itself, if no event comes, and of which states
those are that do. So of a person without a hot entry, whose next edge lies beyond t, no fact has to be looked at.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from twofold.features import Catalogue
from twofold.settings import Place
from twofold.spark.present import value_columns
from twofold.spark.set_merge import MERGED
from twofold.spark.standing import put_rows, standing, tasks_of_rows
from twofold.spark.wide import HOLDS_UNTIL, MOVING
from twofold.stores.places import dataset_of, open_table

#: Below the writer's place: the rows of the people that are asked for.
_FOUND = "held"
_NOBODY = pa.array([], pa.string())


class Held:
    """A version of `wide_person`, by ranges of persons; none at first."""

    def __init__(self, spark: Any, root: Place, catalogue: Catalogue) -> None:
        """``root``: where Spark finds the rows asked for."""
        self._spark, self._found, self._catalogue = spark, root / _FOUND, catalogue
        self._names = ["person", *catalogue.features, HOLDS_UNTIL, MOVING]
        self._table: ds.Dataset | None = None
        self._as_of_ms = 0
        self._schema: Any = None

    def start(self, location: str, version: int, as_of_ms: int) -> None:
        """Go by a version of the table; by none where a release wrote it that did not say until when it holds."""
        frame = self._spark.read.format("delta").option("versionAsOf", version).load(location)
        here = set(self._names) <= set(frame.columns)
        self._table = dataset_of(open_table(location, version)) if here else None
        self._schema, self._as_of_ms = frame.select(*self._names).schema if here else None, as_of_ms

    def stop(self) -> None:
        """Go by no table."""
        self._table = None

    def find(self, persons: pa.Array, hot: pa.Array, t: int) -> pa.Array:
        """Make :meth:`people` those of some sorted persons of whom everything holds at ``t``; returns who that is.

        ``hot``: who has a hot entry, of whom nothing does.
        """
        if self._table is None or t < self._as_of_ms or not len(persons):
            return _NOBODY
        key, until = ds.field("person"), ds.field(HOLDS_UNTIL)
        within = (key >= persons[0]) & (key <= persons[-1])
        rows = self._table.to_table(self._names, filter=within & (until.is_null() | (until > t)))
        asked = pc.and_(pc.is_in(rows["person"], persons), pc.invert(pc.is_in(rows["person"], hot)))
        rows = rows if pc.all(asked).as_py() else rows.filter(asked)
        put_rows(self._found, rows, tasks_of_rows(self._spark, len(rows)))
        return rows["person"].combine_chunks()

    def people(self, instant: DataFrame) -> DataFrame:
        """Columns of ``set_merge.MERGED`` and ``t`` of who was found last, at the one row ``instant`` has: a standing frame."""
        found = standing(self._spark, self._found, self._schema).crossJoin(instant)
        nightly = F.struct(*self._catalogue.features)
        columns = {
            "values": F.struct(*value_columns(self._catalogue, F.col(MOVING), F.col("t"), nightly)),
            "states": F.col(MOVING),
            "conflict": F.array().cast("array<string>"),
            "pending": F.array().cast("array<string>"),
            "newest_event_ms": F.lit(None).cast("bigint"),
            "edge_ms": F.col(HOLDS_UNTIL),
        }
        return found.select("person", "t", *(columns[name].alias(name) for name in MERGED[1:]))

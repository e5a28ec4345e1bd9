"""Frames over a folder whose files change: a query over them is built once and executed for every batch.

Building the query of a batch from Python and analysing it costs seconds with many features; executing it again costs neither.
"""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import DataFrame

from twofold.settings import Place
from twofold.stores.files import folder

#: Fewer rows are not worth a task, and a file of the table, more.
ROWS_A_TASK = 1_000


def tasks_of_rows(spark: Any, rows: int) -> int:
    """In how many files to put rows that tasks go through one by one."""
    return min(int(spark.sparkContext.defaultParallelism), max(1, rows // ROWS_A_TASK))


def standing(spark: Any, place: Place, schema: Any) -> DataFrame:
    """The rows of every Parquet file in a folder and the folders in it, as they are at each :func:`read_anew`.

    ``schema``: as Spark takes one, a text or a type.
    """
    return spark.read.schema(schema).option("recursiveFileLookup", "true").parquet(place)


def read_anew(frame: DataFrame) -> DataFrame:
    """Look up again which files the frame's folders hold; the frame itself, for its next execution."""
    leaves = frame._jdf.queryExecution().analyzed().collectLeaves()
    for number in range(leaves.size()):
        leaf = leaves.apply(number)
        # A table's version (Delta's own index) stays what it is.
        if leaf.nodeName() == "LogicalRelation" and leaf.relation().location().getClass().getSimpleName() == "InMemoryFileIndex":
            leaf.relation().location().refresh()
    return frame


def put_rows(place: Place, rows: pa.Table, files: int = 1) -> None:
    """Make these the rows of a folder, in so many files: each is read by a task of its own, a part of the rows in their order."""
    here, names = folder(place), [f"rows-{number:03d}.parquet" for number in range(files)]
    for number, name in enumerate(names):
        first, last = (len(rows) * n // files for n in (number, number + 1))
        data = io.BytesIO()
        pq.write_table(rows.slice(first, last - first), data)
        here.write(name, data.getvalue())
    for name in here.names():
        if name not in names:
            here.remove(name)

"""Rows of `state` of some people, from a copy on this machine that is made once a snapshot.

Touched people stand everywhere in a table, whatever it is sorted by: to join them to it is to read all of it for each batch.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
from pyspark.sql import DataFrame

from twofold.columns import id_hash
from twofold.settings import Place
from twofold.spark.standing import put_rows, standing
from twofold.stores.places import dataset_of, open_table
from twofold.stores.sorted_files import PERSON_HASH, SortedFiles

#: What ``set_merge.merge_people`` reads of a row of `state`; a version of before retractions lacks one.
_COLUMNS = ("person", "older", "older_ids", "retracted_ids", "recent")
#: Rows of one file of the copy, and how many are read at a time.
_ROWS_A_FILE, _ROWS_AT_ONCE = 100_000, 10_000
#: Below the writer's place: the rows of the people that are asked for.
_FOUND = "state"


class StateLookup:
    """A version of `state`, by person."""

    def __init__(self, spark: Any, root: Place, local: Path) -> None:
        """``root``: where Spark finds the rows asked for; ``local``: a folder of this machine, for all of them."""
        self._spark, self._found, self._local = spark, root / _FOUND, local
        self._files: SortedFiles | None = None
        self._schema: Any = None

    def start(self, location: str, version: int) -> None:
        """Copy a version of the table: seconds for a hundred thousand people."""
        frame = self._spark.read.format("delta").option("versionAsOf", version).load(location)
        names = [name for name in _COLUMNS if name in frame.columns]
        self._schema = frame.select(*names).schema
        self._files = None
        for rows in _read(dataset_of(open_table(location, version)), names):
            self._files = self._files or SortedFiles(self._local, rows.schema)
            self._files.add(rows)

    def find(self, persons: Sequence[str]) -> None:
        """Make :meth:`rows` those of these people, and maybe of few others."""
        if self._files is None:
            rows = pa.table({"person": pa.array([], pa.string())})
        else:
            rows = self._files.of([id_hash(person) for person in persons]).drop_columns([PERSON_HASH])
        put_rows(self._found, rows)

    def rows(self) -> DataFrame:
        """What was found last: a standing frame, see ``standing.read_anew``."""
        return standing(self._spark, self._found, self._schema)


def _read(table: ds.Dataset, names: Sequence[str]) -> Iterator[pa.Table]:
    """The table's rows in pieces, each with the hash of its person."""
    gathered: list[pa.RecordBatch] = []
    for batch in table.to_batches(columns=list(names), batch_size=_ROWS_AT_ONCE):
        gathered.append(batch)
        if sum(map(len, gathered)) >= _ROWS_A_FILE:
            yield _hashed(gathered)
            gathered = []
    if gathered:
        yield _hashed(gathered)


def _hashed(batches: Sequence[pa.RecordBatch]) -> pa.Table:
    rows = pa.Table.from_batches(batches)
    hashes = pa.array([id_hash(person) for person in rows["person"].to_pylist()], pa.int64())
    return rows.append_column(PERSON_HASH, hashes)

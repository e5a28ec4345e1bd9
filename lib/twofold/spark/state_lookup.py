"""Rows of `state` of some people, from a copy on this machine that is made once a snapshot.

Touched people stand everywhere in a table, whatever it is sorted by: to join them to it is to read all of it for each batch. Here
they are looked up, and what is found has a row for everyone of a batch: what is joined to it is little, and nothing is shuffled.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
from pyspark.sql import DataFrame

from twofold.features import Catalogue
from twofold.settings import Place
from twofold.spark.standing import put_rows, standing, tasks_of_rows
from twofold.spark.state_rows import empty_state
from twofold.stores.places import dataset_of, open_table
from twofold.stores.sorted_files import PERSON_HASH, SortedFiles, person_hashes

#: What ``set_merge.merge_people`` reads of a row of `state`; a version of before retractions lacks one.
_COLUMNS = ("person", "older", "older_ids", "retracted_ids", "recent")
#: Rows of one file of the copy, and how many are read at a time.
_ROWS_A_FILE, _ROWS_AT_ONCE = 100_000, 10_000
#: Below the writer's place: the rows of the people that are asked for.
_FOUND = "state"


class StateLookup:
    """A version of `state`, by person."""

    def __init__(self, spark: Any, root: Place, local: Path) -> None:
        """``root``: where Spark finds the rows asked for; ``local``: a folder of this machine, for all. It has to be started."""
        self._spark, self._found, self._local = spark, root / _FOUND, local
        self._schema: Any
        self._files: SortedFiles

    def start_empty(self, catalogue: Catalogue) -> None:
        """Have nobody, as before the first snapshot."""
        columns = empty_state(self._spark, catalogue).select(*_COLUMNS).schema
        # As a table has them: everything may be null, whoever has no row has nothing.
        nobody = self._spark.createDataFrame([], ", ".join(f"{column.name} {column.dataType.simpleString()}" for column in columns))
        self._schema = nobody.schema
        self._files = SortedFiles(self._local, _with_hash(nobody.toArrow().schema))

    def start(self, location: str, version: int) -> None:
        """Copy a version of the table: seconds for a hundred thousand people."""
        frame = self._spark.read.format("delta").option("versionAsOf", version).load(location)
        names = [name for name in _COLUMNS if name in frame.columns]
        self._schema = frame.select(*names).schema
        table = dataset_of(open_table(location, version))
        self._files = SortedFiles(self._local, _with_hash(pa.schema([table.schema.field(name) for name in names])))
        for rows in _read(table, names):
            self._files.add(rows)

    def persons(self) -> pa.Array:
        """Everyone."""
        return self._files.column("person")

    def find(self, persons: pa.Array, more: pa.Array) -> None:
        """Make :meth:`rows` those of ``persons``, sorted by person; and one that has nothing for each of ``more`` without a row."""
        rows = self._files.of_persons(persons).drop_columns([PERSON_HASH])
        others = more.filter(pc.invert(pc.is_in(more, rows["person"])))
        every = pa.concat_tables([rows, pa.table({"person": others})], promote_options="default")
        put_rows(self._found, every.take(pc.sort_indices(every["person"])), tasks_of_rows(self._spark, len(every)))

    def rows(self) -> DataFrame:
        """What was found last: a standing frame, see ``standing.read_anew``."""
        return standing(self._spark, self._found, self._schema)


def _with_hash(schema: pa.Schema) -> pa.Schema:
    return pa.schema([*(pa.field(field.name, field.type) for field in schema), pa.field(PERSON_HASH, pa.int64())])


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
    return rows.append_column(PERSON_HASH, person_hashes(rows["person"]))

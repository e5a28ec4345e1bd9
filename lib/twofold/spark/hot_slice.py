"""The archive's ok entries above the cut, as a stream over it has seen them, narrow, and found by person.

The archive has a file a commit and holds raw bytes: to find a person's entries there costs more with each commit. Here each
micro-batch is added to files in which a person is looked up (``stores.entry_files``), so that a batch costs what its people have,
not what the day holds. It is a copy, made anew from the archive at every start: nothing rests on it that the archive does not hold.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from twofold.settings import Place
from twofold.spark.cut import below, judged
from twofold.spark.standing import put_rows, standing
from twofold.spark.state_rows import ENTRY, ok_entries
from twofold.spark.tables import ARCHIVE_COLUMNS
from twofold.stores.entry_files import EntryFiles
from twofold.stores.files import folder
from twofold.stores.sorted_files import PERSON_HASH
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey
from twofold.views import ManifestRow

#: Columns kept of an entry: those of ``state_rows.ENTRY``, with the topic by its id.
KEPT = tuple("topic_id" if name == "topic" else name for name in ENTRY)
_TYPES = {name: type_ for name, type_, _comment in ARCHIVE_COLUMNS}
_SCHEMA = ", ".join(f"{name} {_TYPES[name]}" for name in KEPT)
#: Below the writer's place: the rows of the people that are asked for, and what a start reads.
_FOUND, _START = "hot", "slice"
#: Rows that a start takes over at a time.
_ROWS_AT_ONCE = 500_000


class HotSlice:
    """Ok entries in ``[low, high)``, none beyond; ``broker_ms``: the newest broker time seen per partition."""

    def __init__(self, spark: Any, root: Place, local: Path) -> None:
        """``root``: where Spark finds the rows asked for; ``local``: a folder of this machine, for all of them."""
        self._spark, self._root, self._local = spark, root, local
        hashed = f"{_SCHEMA}, {PERSON_HASH} bigint"
        self._files = EntryFiles(local, spark.createDataFrame([], hashed).toArrow().schema)
        self.low: Offsets = EMPTY_OFFSETS
        self.high: Offsets = EMPTY_OFFSETS
        self.broker_ms: dict[PartitionKey, int] = {}

    def start(self, entries: DataFrame, low: Offsets, high: Offsets) -> None:
        """Begin anew with the archive's judged entries in ``[low, high)``."""
        place = folder(self._root)
        place.remove(_START)
        self.broker_ms, self.low, self.high = {}, low, high
        self._files = EntryFiles(self._local, self._files.schema)
        kept, seen = _kept(entries, high)
        kept.write.parquet(f"{self._root}/{_START}")
        self._note(seen, high)
        with tempfile.TemporaryDirectory() as here:
            local = Path(here) / "part.parquet"
            for name in place.names(_START):
                if name.endswith(".parquet") and place.get(f"{_START}/{name}", local):
                    for rows in pq.ParquetFile(local).iter_batches(_ROWS_AT_ONCE):
                        self._files.add(pa.Table.from_batches([rows]))
        place.remove(_START)

    def add(self, rows: DataFrame, high: Offsets) -> pa.Array:
        """Take over the archive's rows of whole commits that end at ``high``; returns whom they are about, each once.

        Entries that were here already then stand here twice: whoever merges them takes one of a position.
        """
        self.high = self.high.join(high)
        kept, seen = _kept(judged(rows), self.high)
        added = kept.toArrow()
        self._note(seen, self.high)
        self._files.add(added)
        return pc.unique(added["person"])

    def forget(self, cut: Offsets) -> None:
        """Drop what lies below a snapshot's cut."""
        self._files.forget(cut)
        self.low = self.low.join(cut)

    def find(self, persons: pa.Array) -> pa.Array:
        """Make :meth:`entries` those of some people; returns who of them has one."""
        rows = self._files.of_persons(persons)
        put_rows(self._found, rows.drop_columns([PERSON_HASH]))
        return pc.unique(rows["person"])

    def entries(self, row: ManifestRow) -> DataFrame:
        """Columns of ``state_rows.ENTRY`` of the ok entries in ``[row.cut, high)`` of the people whom :meth:`find` looked for;
        ``low`` must not be above the cut. A standing frame: see ``standing.read_anew``.
        """
        found = standing(self._spark, self._found, _SCHEMA)
        return ok_entries(found.where(~below(row.cut)).withColumn("verdict", F.lit("ok")), row.topics)

    def persons(self, since: Offsets = EMPTY_OFFSETS) -> pa.Array:
        """Everyone with an entry in ``[since, high)``, once."""
        return self._files.persons(since)

    @property
    def _found(self) -> Place:
        return self._root / _FOUND

    def _note(self, seen: Observation, high: Offsets) -> None:
        for number, key in enumerate(high):
            at = seen.get[str(number)]
            if at is not None:
                self.broker_ms[key] = max(at, self.broker_ms.get(key, 0))


def _kept(entries: DataFrame, high: Offsets) -> tuple[DataFrame, Observation]:
    """The ok ones, as they are kept; and what will tell the newest broker time of every partition of ``high``, by its number."""
    seen = Observation()
    newest = [F.max(F.when(_of(key), F.col("broker_ms"))).alias(str(n)) for n, key in enumerate(high)]
    observed = entries.observe(seen, F.count(F.lit(1)).alias("entries"), *newest)
    return observed.where(F.col("verdict") == "ok").select(*KEPT, F.xxhash64("person").alias(PERSON_HASH)), seen


def _of(key: PartitionKey) -> Any:
    return (F.col("topic_id") == key.topic_id) & (F.col("partition") == key.partition)

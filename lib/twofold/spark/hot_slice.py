"""The archive's ok entries above the cut, as a stream over it has seen them: narrow, in few files, beside its checkpoint.

The archive has a file a commit and holds raw bytes: to find a person's entries there costs more with each commit. Here each
micro-batch adds one small file, and eight files of a size become one of the next, so that a read opens a few dozen at most.
It is a copy, made anew from the archive at every start: nothing rests on it that the archive does not hold.
"""

from __future__ import annotations

from typing import Any

from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from twofold.settings import Place
from twofold.spark.cut import below, judged
from twofold.spark.standing import standing
from twofold.spark.state_rows import ENTRY, ok_entries
from twofold.spark.tables import ARCHIVE_COLUMNS
from twofold.stores.files import folder
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey
from twofold.views import ManifestRow

#: Columns kept of an entry: those of ``state_rows.ENTRY``, with the topic by its id.
KEPT = tuple("topic_id" if name == "topic" else name for name in ENTRY)
_TYPES = {name: type_ for name, type_, _comment in ARCHIVE_COLUMNS}
_SCHEMA = ", ".join(f"{name} {_TYPES[name]}" for name in KEPT)
#: So many files of one size become one of the next.
_FANOUT = 8
_FOLDER = "slice"


class HotSlice:
    """Ok entries in ``[low, high)``, none beyond; ``broker_ms``: the newest broker time seen per partition."""

    def __init__(self, spark: Any, root: Place) -> None:
        """Files lie in a folder of ``root``."""
        self._spark, self._root = spark, root
        self._levels: list[list[str]] = [[]]
        self._written = 0
        self.low: Offsets = EMPTY_OFFSETS
        self.high: Offsets = EMPTY_OFFSETS
        self.broker_ms: dict[PartitionKey, int] = {}

    def start(self, entries: DataFrame, low: Offsets, high: Offsets) -> None:
        """Begin anew with the archive's judged entries in ``[low, high)``."""
        folder(self._root).remove(_FOLDER)
        self.broker_ms, self.low, self.high = {}, low, high
        self._levels = [[], [self._write(entries, high, one_file=False)]]

    def add(self, rows: DataFrame, high: Offsets) -> DataFrame:
        """Take over the archive's rows of whole commits that end at ``high``; returns what is kept of them.

        Entries that were here already then stand here twice: whoever merges them takes one of a position.
        """
        self.high = self.high.join(high)
        # Before the new file, which is read below and so must stay.
        self._gather()
        path = self._write(judged(rows), self.high, one_file=True)
        self._levels[0].append(path)
        return self._spark.read.schema(_SCHEMA).parquet(path)

    def entries(self, row: ManifestRow) -> DataFrame:
        """Columns of ``state_rows.ENTRY`` of the ok entries in ``[row.cut, high)``; ``low`` must not be above the cut.

        A standing frame: see ``standing.read_anew``.
        """
        return ok_entries(self._kept().where(~below(row.cut)).withColumn("verdict", F.lit("ok")), row.topics)

    def persons_since(self, told: Offsets) -> DataFrame:
        """``person`` of everyone with an entry in ``[told, high)``."""
        return self._kept().where(~below(told)).select("person").distinct()

    # --- files ------------------------------------------------------------------------------------------------------------------
    def _kept(self) -> DataFrame:
        return standing(self._spark, self._root / _FOLDER, _SCHEMA)

    def _write(self, entries: DataFrame, high: Offsets, one_file: bool) -> str:
        """One more folder, of the ok ones among ``entries``; notes the newest broker time of every partition of ``high``."""
        seen = Observation()
        newest = [F.max(F.when(_of(key), F.col("broker_ms"))).alias(str(n)) for n, key in enumerate(high)]
        observed = entries.observe(seen, F.count(F.lit(1)).alias("entries"), *newest)
        path = self._path()
        kept = observed.where(F.col("verdict") == "ok").select(*KEPT)
        (kept.coalesce(1) if one_file else kept).write.parquet(path)
        for number, key in enumerate(high):
            at = seen.get[str(number)]
            if at is not None:
                self.broker_ms[key] = max(at, self.broker_ms.get(key, 0))
        return path

    def _gather(self) -> None:
        for level, paths in enumerate(self._levels):
            if len(paths) < _FANOUT:
                return
            if level + 1 == len(self._levels):
                self._levels.append([])
            path = self._path()
            # By person, so that few persons are found without reading the rest.
            self._spark.read.schema(_SCHEMA).parquet(*paths).coalesce(1).sortWithinPartitions("person").write.parquet(path)
            self._levels[level + 1].append(path)
            self._levels[level] = []
            for old in paths:
                folder(self._root).remove(old.removeprefix(f"{self._root}/"))

    def _path(self) -> str:
        self._written += 1
        return f"{self._root}/{_FOLDER}/{self._written:09d}"


def _of(key: PartitionKey) -> Any:
    return (F.col("topic_id") == key.topic_id) & (F.col("partition") == key.partition)

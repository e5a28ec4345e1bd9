"""Rows on local disk, found by person without reading those of others: files of Arrow's, sorted, mapped into memory.

Each addition is one small file, and eight files of a size become one of the next, as in a log-structured merge tree. What few
people have is so many look-ups and copies, however much the files hold. It is a copy of what is kept elsewhere, for one process:
nothing is forced to disk, and a start begins with none.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twofold.columns import id_hash

#: The hash of the person by which files are sorted: ``columns.id_hash`` of it, Spark's ``xxhash64``.
PERSON_HASH = "person_hash"
#: So many files of one size become one of the next.
_FANOUT = 8
#: Files are not gathered into one of more rows or bytes: it is written in one go, and text columns hold 2 GiB at most.
_MOST_ROWS = 1_000_000
_MOST_BYTES = 512 << 20


class SortedFile(NamedTuple):
    path: Path
    rows: pa.Table
    hashes: npt.NDArray[np.int64]


class SortedFiles:
    """Rows of one schema, which has ``PERSON_HASH``."""

    def __init__(self, place: Path, schema: pa.Schema) -> None:
        """Empty: whatever lies in the folder is removed."""
        self._place, self.schema = place, schema
        self._levels: list[list[SortedFile]] = [[]]
        self._written = 0
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)

    def add(self, rows: pa.Table) -> None:
        """Take over rows of the schema, whatever may be null in them; in any order."""
        if len(rows):
            self._levels[0].append(self._write(rows.cast(self.schema)))
            self._gather()

    def of(self, hashes: Sequence[int] | npt.NDArray[np.int64]) -> pa.Table:
        """The rows of people by the hashes of their keys; of others too whose hash is the same."""
        wanted = np.unique(np.asarray(hashes, np.int64))
        return self._all(file.rows.take(_places(file.hashes, wanted)) for file in self._files())

    def of_persons(self, persons: pa.Array) -> pa.Table:
        """The rows of people, which have ``person``."""
        rows = self.of(person_hashes(persons).to_numpy())
        theirs = pc.is_in(rows["person"], persons)
        # Hardly ever do two people have one hash, and to filter is to copy.
        return rows if pc.all(theirs).as_py() else rows.filter(theirs)

    def column(self, name: str) -> pa.Array:
        """One column of all rows, in any order."""
        return self._all(file.rows for file in self._files())[name].combine_chunks()

    def _files(self) -> Iterable[SortedFile]:
        return (file for level in self._levels for file in level)

    def _all(self, parts: Iterable[pa.Table]) -> pa.Table:
        return pa.concat_tables([self.schema.empty_table(), *parts])

    def _write(self, rows: pa.Table) -> SortedFile:
        self._written += 1
        path = self._place / f"{self._written:09d}.arrow"
        ordered = rows.take(pc.sort_indices(rows[PERSON_HASH])).combine_chunks()
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, self.schema) as writer:
            writer.write_table(ordered)
        mapped = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
        return SortedFile(path, mapped, mapped[PERSON_HASH].to_numpy())

    def _gather(self) -> None:
        for number, level in enumerate(self._levels):
            if len(level) < _FANOUT:
                return
            together = self._all(file.rows for file in level)
            if len(together) > _MOST_ROWS or together.nbytes > _MOST_BYTES:
                return
            if number + 1 == len(self._levels):
                self._levels.append([])
            self._levels[number + 1].append(self._write(together))
            self._levels[number] = []
            for file in level:
                file.path.unlink()


def person_hashes(persons: pa.Array | pa.ChunkedArray) -> pa.Array:
    """``PERSON_HASH`` of people's keys."""
    return pa.array([id_hash(person) for person in persons.to_pylist()], pa.int64())


def _places(hashes: npt.NDArray[np.int64], wanted: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Where the wanted ones stand in sorted hashes."""
    first, last = np.searchsorted(hashes, wanted, "left"), np.searchsorted(hashes, wanted, "right")
    number = last - first
    # Each run counts up from its first place: a running number, less that at which the run begins.
    begins = np.cumsum(number) - number
    places: npt.NDArray[np.int64] = np.arange(number.sum()) + np.repeat(first - begins, number)
    return places


__all__ = ["PERSON_HASH", "SortedFile", "SortedFiles", "person_hashes"]

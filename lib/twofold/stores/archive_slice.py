"""Ok entries of `archive` between two offsets vectors, read in one pass and held as Arrow columns, by person."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from functools import reduce
from operator import or_
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from twofold.events import ADMISSION_VERSION, Entry
from twofold.stores.archive_entries import ENTRY_COLUMNS, admitted_again, entries_of
from twofold.stores.archive_log import archive_end
from twofold.stores.places import dataset_of, open_table, table_exists
from twofold.timeline import Offsets


class ArchiveSlice:
    """What `archive` has in ``[start, end)`` of the given persons (default: of everyone).

    ``reached`` is the committed end before the pass: everything below it is here. An entry of a person becomes a Python object only
    when it is asked for, because a day of everyone's would not fit.
    """

    def __init__(self, location: str, version: str, start: Offsets, end: Offsets, persons: Collection[str] | None = None) -> None:
        self._version = version
        self.reached = archive_end(location)
        self._readmitted: dict[str, list[Entry]] = {}
        self._rows: Any = None
        self._places: dict[str, Any] = {}
        ranges = [
            (ds.field("topic_id") == key.topic_id)
            & (ds.field("partition") == key.partition)
            & (ds.field("offset") >= start.next(key))
            & (ds.field("offset") < stop)
            for key, stop in end.items()
            if start.next(key) < min(stop, self.reached.next(key))
        ]
        if ranges and table_exists(location):
            within = reduce(or_, ranges)
            table = dataset_of(open_table(location))
            self._index(table, within, persons)
            self._admit_again(table, within, persons)

    def _index(self, table: Any, within: Any, persons: Collection[str] | None) -> None:
        wanted = within & (ds.field("admission_version") == ADMISSION_VERSION) & (ds.field("verdict") == "ok")
        if persons is not None:
            wanted &= ds.field("person").isin(list(persons))
        self._rows = table.to_table(columns=list(ENTRY_COLUMNS), filter=wanted).combine_chunks()
        if not len(self._rows):
            return
        named = self._rows["person"].combine_chunks().dictionary_encode()
        codes = named.indices.to_numpy()
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(1, len(named.dictionary)))
        self._places = dict(zip(named.dictionary.to_pylist(), np.split(order, bounds), strict=True))

    def _admit_again(self, table: Any, within: Any, persons: Collection[str] | None) -> None:
        """Rows of another admission, from their raw bytes; there are none unless the archive is older than this admission."""
        other = within & (ds.field("admission_version") != ADMISSION_VERSION)
        for entry in admitted_again(table, other, self._version, persons):
            assert entry.person is not None
            self._readmitted.setdefault(entry.person, []).append(entry)

    def persons(self) -> set[str]:
        """Persons with an entry in the slice."""
        return {*self._places, *self._readmitted}

    def entries(self, persons: Iterable[str]) -> dict[str, list[Entry]]:
        """Entries of these persons; nothing of a person who has none."""
        found: dict[str, list[Entry]] = {}
        wanted = dict.fromkeys(persons)
        places = [self._places[person] for person in wanted if person in self._places]
        if places:
            for entry in entries_of(self._rows.take(pa.array(np.concatenate(places))), self._version):
                found.setdefault(entry.person or "", []).append(entry)
        for person in wanted.keys() & self._readmitted.keys():
            found.setdefault(person, []).extend(self._readmitted[person])
        return found

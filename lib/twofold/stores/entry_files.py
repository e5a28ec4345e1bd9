"""Entries on local disk, found by person: what a stream has seen above the cut. See :mod:`twofold.stores.sorted_files`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twofold.stores.sorted_files import PERSON_HASH, SortedFiles
from twofold.timeline import Offsets


class EntryFiles(SortedFiles):
    """Rows of one schema, which has ``person``, ``PERSON_HASH``, ``topic_id``, ``partition`` and ``offset``."""

    def between(self, low: str | None, high: str | None) -> pa.Table:
        """The rows of people in ``[low, high)`` by the order of their keys."""

        def within(rows: pa.Table) -> pa.Table:
            above = rows if low is None else rows.filter(pc.greater_equal(rows["person"], low))
            return above if high is None else above.filter(pc.less(above["person"], high))

        return self._all(within(file.rows) for file in self._files())

    def persons(self, one_in: int = 1, since: Offsets | None = None) -> set[str]:
        """Everyone who has a row; ``one_in``: about so many of them, by their hashes; ``since``: with a row at or beyond it."""
        found: set[str] = set()
        for file in self._files():
            places = np.flatnonzero(file.hashes % one_in == 0) if one_in > 1 else None
            rows = file.rows.select(["person", "topic_id", "partition", "offset"])
            rows = rows if places is None else rows.take(places)
            rows = rows if since is None else rows.filter(pa.array(~_below(rows, since)))
            found.update(pc.unique(rows["person"]).to_pylist())
        return found

    def forget(self, cut: Offsets) -> None:
        """Drop the rows below a cut."""
        for level in self._levels:
            kept = []
            for file in level:
                below = _below(file.rows, cut)
                if not below.any():
                    kept.append(file)
                    continue
                if not below.all():
                    kept.append(self._write(file.rows.filter(pa.array(~below))))
                file.path.unlink()
            level[:] = kept


def _below(rows: pa.Table, cut: Offsets) -> npt.NDArray[np.bool_]:
    """Whether each row's position lies below a cut."""
    partitions, offsets = rows["partition"].to_numpy(), rows["offset"].to_numpy()
    below = np.zeros(len(rows), np.bool_)
    for topic_id in {key.topic_id for key in cut}:
        of_topic: npt.NDArray[np.bool_] = pc.equal(rows["topic_id"], topic_id).to_numpy()
        for key, end in cut.items():
            if key.topic_id == topic_id:
                below |= of_topic & (partitions == key.partition) & (offsets < end)
    return below


__all__ = ["PERSON_HASH", "EntryFiles"]

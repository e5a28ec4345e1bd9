"""Entries on local disk, found by person: what a stream has seen above the cut. See :mod:`twofold.stores.sorted_files`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twofold.stores.sorted_files import PERSON_HASH, SortedFiles
from twofold.timeline import EMPTY_OFFSETS, Offsets


class EntryFiles(SortedFiles):
    """Rows of one schema, which has ``person``, ``PERSON_HASH``, ``topic_id``, ``partition`` and ``offset``."""

    def persons(self, since: Offsets = EMPTY_OFFSETS) -> pa.Array:
        """Everyone who has a row at or beyond ``since``, once."""
        found = [pa.array([], pa.string())]
        for file in self._files():
            rows = file.rows.select(["person", "topic_id", "partition", "offset"])
            rows = rows.filter(pa.array(~_below(rows, since))) if since else rows
            found.append(pc.unique(rows["person"]))
        return pc.unique(pa.concat_arrays(found))

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

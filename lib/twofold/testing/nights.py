"""The nightly rebuild in plain Python: what the Spark batch publishes, small enough to run thousands of times."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from twofold.columns import Fact, FactColumns, facts_of, id_hash
from twofold.errors import CutRefused, EmptyArchiveError
from twofold.events import Entry
from twofold.features import Catalogue
from twofold.stores.memory import MemorySnapshot
from twofold.timeline import Offsets, PartitionKey
from twofold.views import ManifestRow, PersonSnapshot

LATE_GRACE_DAYS = 5


def rebuild(
    catalogue: Catalogue,
    version: str,
    entries: Iterable[Entry],
    cut: Offsets,
    parent: ManifestRow,
    snapshot: str,
    as_of_ms: int | None = None,
    late_grace_days: int = LATE_GRACE_DAYS,
) -> MemorySnapshot:
    """Fold every entry below ``cut`` (admitted under ``version``, in any order) into a snapshot and its manifest row.

    ``as_of_ms`` defaults to the largest broker time below the cut. Raises :class:`CutRefused` when the cut goes backwards and
    :class:`EmptyArchiveError` when nothing lies below it.
    """
    behind = cut.behind(parent.cut)
    if behind:
        raise CutRefused(f"the cut goes backwards in {behind}: the snapshot {parent.snapshot} keeps serving")
    topics = tuple(dict.fromkeys((*parent.topics, *(key.topic_id for key in cut))))
    ordinals = {topic: place for place, topic in enumerate(topics)}
    best: dict[tuple[str, str], tuple[tuple[int, int, int, int], Entry]] = {}
    cut_time_ms = -1
    counts = {"ok": 0, "rejected": 0}
    for entry in entries:
        if entry.offset >= cut.next(PartitionKey(entry.topic_id, entry.partition)):
            continue
        cut_time_ms = max(cut_time_ms, entry.broker_ms)
        counts["ok" if entry.verdict == "ok" else "rejected"] += 1
        if entry.verdict != "ok":
            continue
        assert entry.person is not None and entry.event_id is not None
        order = (entry.broker_ms, ordinals[entry.topic_id], entry.partition, entry.offset)
        key = (entry.person, entry.event_id)
        if key not in best or order < best[key][0]:
            best[key] = (order, entry)
    if cut_time_ms < 0:
        raise EmptyArchiveError("nothing lies below the cut: send events, wait, then run the batch")
    as_of = cut_time_ms if as_of_ms is None else as_of_ms
    row = ManifestRow(
        seq=parent.seq + 1,
        snapshot=snapshot,
        cut=cut,
        version=version,
        as_of_ms=as_of,
        horizon_ms=catalogue.horizon(as_of, late_grace_days),
        cut_time_ms=cut_time_ms,
        topics=topics,
        parent=parent.seq,
        counts=counts,
    )
    persons: dict[str, list[Entry]] = {}
    for (person, _event_id), (_order, entry) in best.items():
        persons.setdefault(person, []).append(entry)
    return MemorySnapshot(row, {person: fold_night(catalogue, row, won).pack() for person, won in persons.items()})


def fold_night(catalogue: Catalogue, row: ManifestRow, won: Iterable[Entry]) -> PersonSnapshot:
    """One person: winning entries before the horizon as encoded lifetime states (zeros left out), the others as columns."""
    assert row.horizon_ms is not None
    older: list[Entry] = []
    recent: list[tuple[Entry, int]] = []
    for entry in won:
        assert entry.at_ms is not None
        if entry.at_ms < row.horizon_ms:
            older.append(entry)
        else:
            recent.append((entry, row.topic_ordinal(entry.topic_id)))
    facts: list[Fact] = [fact for entry in older for fact in facts_of(entry)]
    states: dict[str, Any] = {}
    for primary in catalogue.lifetime if facts else ():
        state = primary.state.fold(fact for fact in facts if primary.select.holds(fact))
        if state != primary.state.zero():
            states[primary.name] = primary.state.encode(state)
    ids = np.array(sorted(id_hash(entry.event_id or "") for entry in older), dtype=np.int64)
    return PersonSnapshot(states, ids, FactColumns.of_entries(recent))

"""The nightly rebuild in plain Python: what the Spark batch publishes, small enough to run thousands of times."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from twofold.columns import I8, Fact, FactColumns, facts_of, id_hash
from twofold.errors import CutRefused, EmptyArchiveError
from twofold.events import Entry
from twofold.features import Catalogue
from twofold.merge import Rank, rank
from twofold.retractions import hashes_of, targets_of
from twofold.stores.memory import MemorySnapshot
from twofold.timeline import Offsets
from twofold.views import ManifestRow, PersonSnapshot

LATE_GRACE_DAYS = 5


def night_row(
    catalogue: Catalogue,
    version: str,
    entries: Iterable[Entry],
    cut: Offsets,
    parent: ManifestRow,
    snapshot: str,
    as_of_ms: int | None = None,
    late_grace_days: int = LATE_GRACE_DAYS,
) -> ManifestRow:
    """The row of a night at ``cut``; ``as_of_ms`` defaults to the largest broker time below it.

    Raises :class:`CutRefused` when the cut goes backwards and :class:`EmptyArchiveError` when nothing lies below it.
    """
    behind = cut.behind(parent.cut)
    if behind:
        raise CutRefused(f"the cut goes backwards in {behind}: the snapshot {parent.snapshot} keeps serving")
    below = [entry for entry in entries if cut.holds(entry.position)]
    if not below:
        raise EmptyArchiveError("nothing lies below the cut: send events, wait, then run the batch")
    ok = [entry for entry in below if entry.verdict == "ok"]
    retractions = {(entry.person, entry.target) for entry in ok if entry.target is not None}
    cut_time_ms = max(entry.broker_ms for entry in below)
    as_of = cut_time_ms if as_of_ms is None else as_of_ms
    return ManifestRow(
        seq=parent.seq + 1,
        snapshot=snapshot,
        cut=cut,
        version=version,
        as_of_ms=as_of,
        horizon_ms=catalogue.horizon(as_of, late_grace_days),
        cut_time_ms=cut_time_ms,
        topics=tuple(dict.fromkeys((*parent.topics, *(key.topic_id for key in cut)))),
        parent=parent.seq,
        counts={
            "ok": len(ok),
            "rejected": len(below) - len(ok),
            # Each target once, however often it is retracted.
            "retractions": len(retractions),
            "retractions_of_nothing": len(retractions - {(entry.person, entry.event_id) for entry in ok}),
        },
    )


def first_copies(row: ManifestRow, entries: Iterable[Entry]) -> list[Entry]:
    """One entry a (person, event id): the lowest of the ok ones."""
    best: dict[tuple[str | None, str | None], tuple[Rank, Entry]] = {}
    for entry in entries:
        if entry.verdict == "ok":
            key, order = (entry.person, entry.event_id), rank(entry, row)
            if key not in best or order < best[key][0]:
                best[key] = (order, entry)
    return [entry for _order, entry in best.values()]


def rebuild(
    catalogue: Catalogue,
    version: str,
    entries: Sequence[Entry],
    cut: Offsets,
    parent: ManifestRow,
    snapshot: str,
    as_of_ms: int | None = None,
    late_grace_days: int = LATE_GRACE_DAYS,
) -> MemorySnapshot:
    """Fold every entry below ``cut`` (admitted under ``version``, in any order) into a snapshot. Raises as :func:`night_row`."""
    row = night_row(catalogue, version, entries, cut, parent, snapshot, as_of_ms, late_grace_days)
    persons: dict[str, list[Entry]] = {}
    for entry in entries:
        if entry.verdict == "ok" and cut.holds(entry.position):
            persons.setdefault(entry.person or "", []).append(entry)
    blobs = {person: fold_night(catalogue, row, own, hashes_of(targets_of(own))).pack() for person, own in persons.items()}
    return MemorySnapshot(row, blobs)


def fold_night(catalogue: Catalogue, row: ManifestRow, entries: Iterable[Entry], retracted_ids: I8) -> PersonSnapshot:
    """One person: the entries that count and lie before the horizon as encoded lifetime states (zeros left out), the others as
    columns. ``entries``: the person's, copies too; none whose id's hash is in ``retracted_ids`` (sorted) counts.
    """
    assert row.horizon_ms is not None
    older: list[Entry] = []
    recent: list[tuple[Entry, int]] = []
    retracted = set(retracted_ids.tolist())
    for entry in first_copies(row, entries):
        assert entry.at_ms is not None
        if retracted and id_hash(entry.event_id or "") in retracted:
            continue
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
    ids = hashes_of(entry.event_id or "" for entry in older)
    return PersonSnapshot(states, ids, FactColumns.of_entries(recent), retracted_ids)

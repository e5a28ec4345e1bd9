"""The incremental night in plain Python: the snapshot before ⊕ the entries since its cut, or the reason why not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby

import numpy as np

from twofold.columns import I8, FactColumns, id_hash
from twofold.errors import IncrementalRefused
from twofold.events import Entry, FactBody
from twofold.features import Catalogue
from twofold.merge import rank
from twofold.retractions import hashes_of, holds, targets_of
from twofold.stores.memory import MemorySnapshot
from twofold.testing.nights import LATE_GRACE_DAYS, fold_night, night_row
from twofold.timeline import Offsets
from twofold.views import ManifestRow, PersonSnapshot

_EMPTY = PersonSnapshot()


def extend(
    catalogue: Catalogue,
    version: str,
    entries: Sequence[Entry],
    cut: Offsets,
    parent: MemorySnapshot,
    snapshot: str,
    as_of_ms: int | None = None,
    late_grace_days: int = LATE_GRACE_DAYS,
) -> MemorySnapshot:
    """What ``nights.rebuild`` gives at ``cut``, from the parent's persons and the entries since its cut.

    ``entries``: the whole log; what lies below the parent's cut is only looked at for copies of ids that are folded before the
    horizon, and for persons who retract one of those: they are folded anew. Raises :class:`IncrementalRefused`, and as
    ``rebuild`` does.
    """
    before = parent.row
    row = night_row(catalogue, version, entries, cut, before, snapshot, as_of_ms, late_grace_days)
    assert row.as_of_ms is not None and row.horizon_ms is not None
    if before.as_of_ms is None or before.horizon_ms is None:
        raise IncrementalRefused("there is no snapshot to add a night to")
    if before.version != version:
        raise IncrementalRefused(f"the snapshot {before.snapshot} is of version {before.version}, not {version}")
    if row.as_of_ms < before.as_of_ms or row.horizon_ms < before.horizon_ms:
        raise IncrementalRefused(f"as_of {row.as_of_ms} lies before {before.as_of_ms}")
    new: dict[str, list[Entry]] = {}
    for entry in entries:
        if (
            entry.verdict == "ok"
            and entry.person is not None
            and cut.holds(entry.position)
            and not before.cut.holds(entry.position)
        ):
            new.setdefault(entry.person, []).append(entry)
    blobs = dict(parent.blobs)
    for person in {*blobs, *new}:
        known = parent.person(person) or _EMPTY
        came = new.get(person, [])
        targets = targets_of(came)
        retracted_ids = np.union1d(known.retracted_ids, hashes_of(targets))
        if any(holds(known.older_ids, target) for target in targets):
            # A state cannot give a fact back.
            whole = [e for e in entries if (e.person, e.verdict) == (person, "ok") and cut.holds(e.position)]
            blobs[person] = fold_night(catalogue, row, whole, retracted_ids).pack()
            continue
        came = _unfolded(row, before, known, came, entries)
        mine = [*recent_entries(known.recent, person, row), *came]
        blobs[person] = _added(catalogue, row, known, mine, retracted_ids).pack()
    return MemorySnapshot(row, blobs)


def _unfolded(
    row: ManifestRow, before: ManifestRow, known: PersonSnapshot, came: Iterable[Entry], entries: Sequence[Entry]
) -> list[Entry]:
    """New entries but those that lose against a folded copy. Raises :class:`IncrementalRefused` for one that would win."""
    folded = set(known.older_ids.tolist())
    out = []
    for entry in came:
        if id_hash(entry.event_id or "") not in folded:
            out.append(entry)
            continue
        copies = [
            rank(other, row)
            for other in entries
            if (other.person, other.event_id, other.verdict) == (entry.person, entry.event_id, "ok")
            and before.cut.holds(other.position)
        ]
        if not copies or rank(entry, row) < min(copies):
            raise IncrementalRefused("a new copy sorts below one that is folded before the horizon")
    return out


def _added(
    catalogue: Catalogue, row: ManifestRow, known: PersonSnapshot, entries: Iterable[Entry], retracted_ids: I8
) -> PersonSnapshot:
    """The person with what now lies before the horizon added to ``older``."""
    part = fold_night(catalogue, row, entries, retracted_ids)
    states = dict(known.older)
    for primary in catalogue.lifetime:
        if primary.name in part.older:
            kind = primary.state
            old = kind.decode(states[primary.name]) if primary.name in states else kind.zero()
            total = kind.plus(old, kind.decode(part.older[primary.name]))
            states.pop(primary.name, None)
            if total != kind.zero():
                states[primary.name] = kind.encode(total)
    ids = np.sort(np.concatenate((known.older_ids, part.older_ids)))
    return replace(part, older=states, older_ids=ids)


def recent_entries(columns: FactColumns, person: str, row: ManifestRow) -> list[Entry]:
    """The entries that a person's recent columns hold."""
    rows = sorted(((int(columns.entry[n]), columns.fact(n)) for n in range(columns.n_facts)), key=lambda r: (r[0], r[1].ordinal))
    out = []
    for place, group in groupby(rows, key=lambda r: r[0]):
        facts = [fact for _place, fact in group]
        position = (row.topics[int(columns.topic[place])], int(columns.partition[place]), int(columns.offset[place]))
        bodies = tuple(FactBody(*fact[5:]) for fact in facts)
        at_ms, event_id, _ordinal, channel, device = facts[0][:5]
        broker_ms = int(columns.broker_ms[place])
        out.append(Entry(row.version, *position, broker_ms, "ok", person, event_id, at_ms, channel, device, bodies))
    return out


def first_difference(a: MemorySnapshot, b: MemorySnapshot) -> str | None:
    """A person that two snapshots do not hold alike; ``None`` when they hold the same."""

    def held(snapshot: MemorySnapshot, person: str) -> object:
        found = snapshot.person(person) or _EMPTY
        return found.older, found.older_ids.tolist(), found.retracted_ids.tolist(), found.recent.pack()

    persons = sorted({*a.blobs, *b.blobs})
    return next((p for p in persons if (p in a.blobs) != (p in b.blobs) or held(a, p) != held(b, p)), None)

"""What a person's retractions take out of a read: hot entries, facts of the snapshot, and what must wait for the next batch.

A retraction acts by log position, at every t: of each (person, event id) that an ok retraction in O names, no copy counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from twofold.columns import I8, id_hash
from twofold.events import Entry
from twofold.features import Catalogue
from twofold.views import PersonSnapshot


class LeftOut(NamedTuple):
    """What retractions took out of a read."""

    #: Hot retractions, every copy of them.
    retractions: Sequence[Entry] = ()
    #: Hot entries that do not count: of each retracted id the first copy.
    entries: Sequence[Entry] = ()
    #: Entry rows of the snapshot's recent columns that do not count.
    rows: Sequence[int] = ()
    #: Targets of hot retractions that are folded before the horizon: they count until the next batch.
    pending: Sequence[str] = ()
    #: Targets of hot retractions that meet no event: nothing of them is known.
    nothing: Sequence[str] = ()


NOTHING_LEFT_OUT = LeftOut()


def targets_of(entries: Iterable[Entry]) -> set[str]:
    """Ids of the events that the ok ones among a person's entries take back."""
    return {target for entry in entries if entry.verdict == "ok" and (target := entry.target) is not None}


def hashes_of(event_ids: Iterable[str]) -> I8:
    """The sorted hashes of distinct event ids: what a snapshot keeps of them."""
    return np.array(sorted(map(id_hash, event_ids)), dtype=np.int64)


def holds(hashes: I8, event_id: str) -> bool:
    """Whether sorted hashes hold an event id's."""
    wanted = id_hash(event_id)
    place = int(np.searchsorted(hashes, wanted))
    return place < len(hashes) and int(hashes[place]) == wanted


def leave_out(person: PersonSnapshot, best: dict[str, Entry], retractions: Sequence[Entry]) -> LeftOut:
    """Take retracted events out of ``best`` (event id -> first hot copy), and tell what of the snapshot is retracted."""
    targets = targets_of(retractions)
    known = set(best)
    before = set(person.retracted_ids.tolist())
    gone = [event_id for event_id in best if event_id in targets or (before and id_hash(event_id) in before)]
    entries = [best.pop(event_id) for event_id in gone]
    rows: list[int] = []
    pending: list[str] = []
    nothing: list[str] = []
    for target in sorted(targets):
        row = person.recent.entry_row(target)
        if row is not None:
            rows.append(row)
        elif holds(person.older_ids, target):
            pending.append(target)
        elif target not in known and not holds(person.retracted_ids, target):
            nothing.append(target)
    return LeftOut(retractions, entries, rows, pending, nothing)


def pending_primaries(catalogue: Catalogue, person: PersonSnapshot, left_out: LeftOut) -> frozenset[str]:
    """Primaries that a pending retraction may change: lifetime ones of whose facts the older part has some.

    Of a folded event only the hash of its id is known, not what it was.
    """
    if not left_out.pending:
        return frozenset()
    # A zero state is left out of the older part.
    return frozenset(p.name for p in catalogue.lifetime if p.name in person.older or not p.state.zero_is_nothing)


__all__ = ["NOTHING_LEFT_OUT", "LeftOut", "hashes_of", "holds", "leave_out", "pending_primaries", "targets_of"]

"""Why a person is in a segment, and since when: by looking back over the instants at which the rule may have turned.

Between two events nothing turns but by age: a fact comes in at ``at + 1``, leaves a window of width w at ``at + w + 1``, and grows
older than w at ``at + w + 1``; and a feature's own presentation says when else it moves. Between two such instants a rule keeps its
answer, so asking it at each of them is asking always.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import lru_cache
from typing import Any

import msgspec
import numpy as np

from twofold.features import Catalogue, Primary
from twofold.merge import Merged, merge
from twofold.rules import Age, Told, clauses, features_of, told
from twofold.segments import Segment
from twofold.states import Latest
from twofold.views import HotView, ManifestRow, PersonSnapshot

#: So many instants are looked at; whoever has been in for more of them gets ``entered_before``.
MOST_LOOKS = 5_000
_NOBODY = PersonSnapshot()


class Membership(msgspec.Struct, frozen=True):
    """A person and a segment at ``t``. Times in epoch ms.

    ``entered_at``: given all facts known now, the rule holds at every instant of ``[entered_at, t]`` and not just before it. Where
    that lies too far back it is null, and ``entered_before`` says how far it was followed: the rule holds at every instant from
    there on. Both null: not a member, or ``note`` says why there is no such instant.
    """

    person: str
    segment: str
    version: str
    rule: str
    t: int
    member: bool
    entered_at: int | None
    entered_before: int | None
    note: str | None
    clauses: tuple[Told, ...]


def membership_of(
    catalogue: Catalogue,
    segment: Segment,
    person: str,
    row: ManifestRow,
    snapshot: PersonSnapshot | None,
    hot: HotView | None,
    t: int,
) -> Membership:
    """The membership of one person at ``t``, which must not lie below the snapshot's range. A pure function of what is passed."""
    past = _Past(catalogue, segment, row, snapshot, hot)
    now = past.merged(t)
    values = past.values(now, t)
    member = segment.holds(values, t)
    entered_at = entered_before = note = None
    if now.conflict.intersection(past.part.primaries):
        note = "a duplicate may change these values until the next batch"
    elif now.pending.intersection(past.part.primaries):
        note = "a retraction may change these values at the next batch"
    elif member:
        entered_at, entered_before, note = past.entered(t)
    lines = tuple(told(segment.rule, values, t))
    return Membership(person, segment.name, segment.version, str(segment.rule), t, member, entered_at, entered_before, note, lines)


@lru_cache(maxsize=8)
def _part_of(catalogue: Catalogue, features: tuple[str, ...]) -> Catalogue:
    """Of the catalogue only what a rule reads: every look back folds this much."""
    primaries = {p.name: p for name in features for p in catalogue.primaries_of(name)}
    return Catalogue(list(primaries.values()), [catalogue.features[name] for name in features])


class _Past:
    """A person's past as far as one rule looks at it."""

    def __init__(
        self, catalogue: Catalogue, segment: Segment, row: ManifestRow, snapshot: PersonSnapshot | None, hot: HotView | None
    ) -> None:
        self._segment, self._snapshot, self._hot = segment, snapshot, hot
        self.part = _part_of(catalogue, features_of(segment.rule))
        # Instants below the snapshot's range are exact for a rule whose windows are narrower than the longest.
        self._row = replace(row, as_of_ms=None)
        self._presented = [(f, f.show) for f in self.part.features.values() if f.show is not None]
        widest_ms = max(p.window.width_ms or 0 for p in self.part.primaries.values())
        folded = snapshot is not None and len(snapshot.older_ids) > 0 and row.horizon_ms is not None
        #: From here on every value is exact; ``None``: always, because nothing of the person is folded away.
        self._floor_ms = (row.horizon_ms or 0) + widest_ms if folded else None

    def merged(self, t: int) -> Merged:
        return merge(self.part, self._row, self._snapshot, self._hot, t)

    def values(self, merged: Merged, t: int) -> dict[str, Any]:
        return {name: self.part.present(feature, merged.states, t) for name, feature in self.part.features.items()}

    def _holds(self, t: int) -> bool:
        return self._segment.holds(self.values(self.merged(t), t), t)

    def entered(self, t: int) -> tuple[int | None, int | None, str | None]:
        """``entered_at``, ``entered_before``, ``note`` of somebody who is in at ``t``."""
        scores = [c.operand.feature for c in clauses(self._segment.rule) if c.operand.type in ("score", "scores")]
        if scores:
            return None, None, f"{scores[0]} moves all the time: since when is not known"
        since = t
        floor_ms = self._floor_ms
        for looks, turn in enumerate(self._turns(t)):
            if looks >= MOST_LOOKS:
                return None, since, f"followed over {MOST_LOOKS} instants"
            if not self._holds(turn):
                return since, None, None
            since = turn
        if floor_ms is not None:
            return (None, floor_ms, "what lies before is folded") if self._holds(floor_ms) else (since, None, None)
        if self._holds(since - 1):
            return None, None, "since before the first event"
        return since, None, None

    def _turns(self, t: int) -> Iterator[int]:
        """Instants up to ``t`` at which the rule may turn, newest first; none at or below the floor."""
        found: set[int] = set()
        for primary in self.part.primaries.values():
            times = self._times(primary)
            for after_ms in self._delays(primary):
                found.update((times + (after_ms + 1)).tolist())
        lowest = -(2**63) if self._floor_ms is None else self._floor_ms
        after = t + 1
        for turn in sorted((turn for turn in found if lowest < turn <= t), reverse=True):
            yield from self._moves(turn, after)
            yield turn
            after = turn
        if self._floor_ms is not None:
            yield from self._moves(self._floor_ms, after)

    def _moves(self, start: int, end: int) -> Iterator[int]:
        """Instants between two turns, neither of them, at which a value moves by itself or one that is an instant has aged."""
        if not self._presented:
            return iter(())
        states, at = self.merged(start).states, start
        found: list[int] = []
        while len(found) <= MOST_LOOKS:
            moves = [move for f, show in self._presented if (move := show.next_move(at, *(states[n] for n in f.reads))) is not None]
            for clause in clauses(self._segment.rule):
                if isinstance(clause, Age) and self.part.features[clause.operand.feature].show is not None:
                    value = self.part.present(self.part.features[clause.operand.feature], states, at)
                    if value is not None and value + clause.width_ms + 1 > at:
                        moves.append(value + clause.width_ms + 1)
            at = min(moves, default=end)
            if at >= end:
                break
            found.append(at)
        return iter(reversed(found))

    def _delays(self, primary: Primary) -> Iterable[int]:
        """How long after a fact of a primary it may matter again, ms: at once, when it leaves the window, when it has aged."""
        delays = {0}
        if primary.window.width_ms is not None:
            delays.add(primary.window.width_ms)
        of = {name for name in self.part.features if primary in self.part.primaries_of(name)}
        delays.update(c.width_ms for c in clauses(self._segment.rule) if isinstance(c, Age) and c.operand.feature in of)
        return delays

    def _times(self, primary: Primary) -> Any:
        """Event times of the facts that a primary may select: more than it does is no harm."""
        snapshot = self._snapshot or _NOBODY
        recent, kinds = snapshot.recent, primary.select.kinds
        parts = [recent.at_ms[start:end] for start, end in map(recent.kind_range, kinds)]
        entries = self._hot.entries if self._hot is not None else ()
        hot = [e.at_ms for e in entries if e.at_ms is not None and any(fact.kind in kinds for fact in e.facts)]
        older = primary.state.decode(snapshot.older[primary.name]) if primary.name in snapshot.older else None
        if isinstance(primary.state, Latest) and older is not None:
            hot.append(older[0])
        return np.unique(np.concatenate([*parts, np.array(hot, dtype=np.int64)]))

"""When a record stops holding by itself: the next instant at which another value holds, with no new event.

States move by themselves only where a fact comes into a window ``[t - w, t)``, at ``at + 1``, or leaves it, at ``at + w + 1``: an
*edge*. Not every edge is a change: a product may leave a window that holds it once more, or one fact leave as another comes in.
So edges are tried in ascending order until a value differs; and beside them the instants at which the presentation of unmoved
states moves, which it says itself (an order grows a day older). Decayed values move all the time and are left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from twofold.events import FACT_KINDS
from twofold.features import Catalogue, Feature, Presentation, Primary
from twofold.merge import FEW_FACTS, Counted, Merged, fold_person, place_of
from twofold.rankings import Decayed
from twofold.states import Count

#: So many edges at which nothing changes are looked through; the next one is then given though nothing may change at it.
MOST_EDGES = 256


#: What a fact of one kind moves ``at + 1 + width`` later: with width 0 every primary that reads it, else those of a window.
_Moves = tuple[tuple[int, tuple[Primary, ...]], ...]


class _Plan(NamedTuple):
    moves: dict[str, _Moves]
    #: Features (decayed ones apart) that read a primary.
    features: dict[str, tuple[Feature, ...]]
    #: Features whose value moves while their states stay.
    moving: tuple[tuple[Feature, Presentation], ...]


@lru_cache(maxsize=16)
def _plan(catalogue: Catalogue) -> _Plan:
    moves: dict[str, _Moves] = {}
    for kind in FACT_KINDS:
        reading = tuple(p for p in catalogue.primaries.values() if kind in p.select.kinds and not isinstance(p.state, Decayed))
        by_width: dict[int, tuple[Primary, ...]] = {}
        for primary in reading:
            width_ms = primary.window.width_ms
            if width_ms is not None:
                by_width[width_ms] = (*by_width.get(width_ms, ()), primary)
        if reading:
            moves[kind] = ((0, reading), *by_width.items())
    features: dict[str, tuple[Feature, ...]] = {}
    for feature in catalogue.features.values():
        primaries = catalogue.primaries_of(feature.name)
        if not any(isinstance(primary.state, Decayed) for primary in primaries):
            for primary in primaries:
                features[primary.name] = (*features.get(primary.name, ()), feature)
    moving = tuple((f, f.show) for f in catalogue.features.values() if f.show is not None and f.show.moves)
    return _Plan(moves, features, moving)


class _Times:
    """Event times of the facts that count, by kind, ascending: from the snapshot and from the hot store."""

    def __init__(self, counted: Counted, kinds: Mapping[str, _Moves]) -> None:
        self.by_kind: dict[str, list[Any]] = {}
        columns, start = counted.person.recent, 0
        at_ms: Any = columns.at_ms.tolist() if columns.n_facts <= FEW_FACTS else columns.at_ms
        for kind, end in zip(FACT_KINDS, columns.kind_ends, strict=False):
            if end > start and kind in kinds:
                self.by_kind[kind] = [at_ms[start:end]]
            start = end
        hot: dict[str, list[int]] = {}
        for entry in counted.added:
            for fact in entry.facts:
                if fact.kind in kinds:
                    assert entry.at_ms is not None
                    hot.setdefault(fact.kind, []).append(entry.at_ms)
        for kind, times in hot.items():
            times.sort()
            self.by_kind.setdefault(kind, []).append(times)

    def number_at(self, kinds: tuple[str, ...], at_ms: int) -> int:
        """How many facts of some kinds there are at an instant."""
        found = 0
        for kind in kinds:
            for times in self.by_kind.get(kind, ()):
                found += place_of(times, at_ms + 1) - place_of(times, at_ms)
        return found


def _next_edge(times: _Times, plan: _Plan, after: int) -> tuple[int, list[Primary]] | None:
    """The first instant later than ``after`` at which a fact leaves a window or comes in, and the primaries that it touches."""
    first: int | None = None
    touched: list[tuple[Primary, ...]] = []
    for kind, found in times.by_kind.items():
        moves = plan.moves[kind]
        for kind_times in found:
            size = len(kind_times)
            for width_ms, primaries in moves:
                # States stay as they are in (at, at + w]: the earliest fact that is not yet past this edge.
                place = place_of(kind_times, after - width_ms)
                if place == size:
                    continue
                edge = int(kind_times[place]) + width_ms + 1
                if first is None or edge < first:
                    first, touched = edge, [primaries]
                elif edge == first:
                    touched.append(primaries)
    return None if first is None else (first, [primary for primaries in touched for primary in primaries])


def _next_move(plan: _Plan, states: Mapping[str, Any], after: int) -> int | None:
    """The first instant later than ``after`` at which a value of these very states moves."""
    first: int | None = None
    for feature, show in plan.moving:
        move = show.next_move(after, *[states[name] for name in feature.reads])
        if move is not None and (first is None or move < first):
            first = move
    return first


def next_change_at(
    catalogue: Catalogue, merged: Merged, values: Mapping[str, Any], t: int, differs: Callable[[Mapping[str, Any]], bool]
) -> int | None:
    """The smallest instant after ``t`` (epoch ms) at which a value differs from ``values``, with no new event; ``None``: never.

    ``differs`` says of the states at an instant whether something else but a value does: permission to send. Nothing differs
    before the answer; at it something does, unless ``MOST_EDGES`` edges came before it.
    """
    plan = _plan(catalogue)
    times = _Times(merged.counted, plan.moves)
    touched: set[str] = set()
    after, states = t, merged.states
    primaries: list[Primary]
    for _ in range(MOST_EDGES):
        edge, move = _next_edge(times, plan, after), _next_move(plan, states, after)
        if edge is None or (move is not None and move < edge[0]):
            if move is None:
                return None
            after, primaries = move, []
        else:
            after, primaries = edge
        if any(_counts_differ(times, plan, primary, after) for primary in primaries):
            return after
        if primaries:
            touched.update(primary.name for primary in primaries)
            states = {**merged.states, **fold_person(catalogue, merged.counted.person, merged.counted.added, after, touched)}
            if differs(states):
                return after
        if move == after and any(catalogue.present(feature, states, after) != values[feature.name] for feature, _s in plan.moving):
            return after
        for name in touched if primaries else ():
            for feature in plan.features.get(name, ()):
                if catalogue.present(feature, states, after) != values[feature.name]:
                    return after
    following, move = _next_edge(times, plan, after), _next_move(plan, states, after)
    return min((at for at in (None if following is None else following[0], move) if at is not None), default=None)


def _counts_differ(times: _Times, plan: _Plan, primary: Primary, edge: int) -> bool:
    """Whether a count surely is another one from this edge on: then nothing need be folded, which is the rule."""
    if not isinstance(primary.state, Count) or primary.select.equals or primary.name not in plan.features:
        return False
    width_ms, kinds = primary.window.width_ms, primary.select.kinds
    coming = times.number_at(kinds, edge - 1)
    return coming != (0 if width_ms is None else times.number_at(kinds, edge - 1 - width_ms))


__all__ = ["MOST_EDGES", "next_change_at"]

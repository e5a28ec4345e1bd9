"""snapshot ⊕ hot facts at (t, O) -> states of the primaries, and whether they are exact.

Two axes: the cut and ``high`` decide by log position which layer an entry belongs to; ``t`` decides by event time which
window it falls into. A gap, another version, a duplicate that may beat a folded copy, or a retraction of a folded event is
reported, never guessed over.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from twofold.columns import I8, NULL_CODE, Fact, FactColumns, facts_of, id_hash
from twofold.events import FACT_KINDS, RETRACTION_KIND, Entry
from twofold.features import Catalogue, Select
from twofold.retractions import NOTHING_LEFT_OUT, LeftOut, leave_out, pending_primaries
from twofold.states import Kind, Rows
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey
from twofold.views import HotView, ManifestRow, PersonSnapshot

#: What stands in the way of merging the two layers; "ok" when nothing does.
Outcome = Literal["ok", "gap", "definition", "archive"]
#: (broker time, topic ordinal, partition, offset): the first ok entry of an event id in this order wins.
Rank = tuple[int, int, int, int]

_EMPTY_PERSON = PersonSnapshot()
#: Up to so many facts their times are looked through as a list: bisect beats numpy there.
FEW_FACTS = 2_048
_AT_MS = attrgetter("at_ms")


class Counted(NamedTuple):
    """What the states of a read were folded from: one copy an event. ``person.recent`` lacks facts replaced or retracted."""

    person: PersonSnapshot = _EMPTY_PERSON
    #: Hot entries that count.
    added: Sequence[Entry] = ()
    #: Entry rows of the snapshot's recent columns whose place a hot copy took.
    replaced: Sequence[int] = ()
    #: Hot copies that may beat a folded entry.
    doubtful: Sequence[Entry] = ()
    #: The recent columns as the snapshot holds them, facts replaced or retracted too.
    recent: FactColumns = _EMPTY_PERSON.recent
    #: What retractions took out.
    left_out: LeftOut = NOTHING_LEFT_OUT


@dataclass(frozen=True)
class Merged:
    """States of every primary at ``t`` over everything below ``offsets``.

    ``conflict`` names primaries that a duplicate may change, ``pending`` those in which a retracted event may be folded.
    """

    outcome: Outcome
    offsets: Offsets
    states: Mapping[str, Any]
    conflict: frozenset[str] = frozenset()
    known: bool = True
    newest_event_ms: int | None = None
    counted: Counted = field(default=Counted(), compare=False)
    pending: frozenset[str] = frozenset()

    @property
    def inexact(self) -> frozenset[str]:
        """Primaries whose state may not be what a recomputation gives."""
        return self.conflict | self.pending


@dataclass(frozen=True)
class _Deduped:
    """Hot entries that count, rows of recent entries they replace, hot copies that may beat a folded entry; what is retracted."""

    added: list[Entry] = field(default_factory=list)
    replaced: list[int] = field(default_factory=list)
    doubtful: list[Entry] = field(default_factory=list)
    left_out: LeftOut = NOTHING_LEFT_OUT


def rank(entry: Entry, row: ManifestRow) -> Rank:
    """Order of the copies of an event id: independent of any cut."""
    return (entry.broker_ms, row.topic_ordinal(entry.topic_id), entry.partition, entry.offset)


def find_gap(row: ManifestRow, hot: HotView) -> list[PartitionKey]:
    """Partitions in which the hot store no longer reaches down to the cut, or whose topic no manifest has named yet.

    Between a topic's recreation and its adoption nobody knows how its entries rank among the others: fail closed.
    """
    unreached = [key for key, low in hot.low.items() if low > row.cut.next(key)]
    return unreached + [key for key in hot.high if key.topic_id not in row.topics]


def other_version(row: ManifestRow, hot: HotView) -> bool:
    """True when any position of [cut, high), rejected entries included, was admitted under another version."""
    for key, high in hot.high.items():
        cut = row.cut.next(key)
        for part in hot.versions.get(key, ()):
            if part.version != row.version and max(part.start, cut) < min(part.end, high):
                return True
    return False


def _dedupe(row: ManifestRow, person: PersonSnapshot, entries: Iterable[Entry], high: Offsets) -> _Deduped:
    bounds: dict[tuple[str, int], tuple[int, int]] = {key: (row.cut.next(key), end) for key, end in high.items()}
    best: dict[str, Entry] = {}
    retractions: list[Entry] = []
    for entry in entries:
        cut, end = bounds.get((entry.topic_id, entry.partition), (0, 0))
        if entry.verdict != "ok" or not cut <= entry.offset < end:
            continue
        assert entry.event_id is not None
        facts = entry.facts
        if facts and facts[0].kind == RETRACTION_KIND:
            retractions.append(entry)
        known = best.setdefault(entry.event_id, entry)
        if known is not entry and rank(entry, row) < rank(known, row):
            best[entry.event_id] = entry
    # Of a retracted id no copy counts, so which one is the first need not be asked.
    left_out = leave_out(person, best, retractions) if retractions or len(person.retracted_ids) else NOTHING_LEFT_OUT
    out = _Deduped(left_out=left_out)
    if not best:
        return out
    recent, older = person.recent, person.older_ids
    if not len(recent.id_hash) and not len(older):
        out.added.extend(best.values())
        return out
    hashes = np.array([id_hash(event_id) for event_id in best], dtype=np.int64)
    in_recent = np.searchsorted(recent.id_hash, hashes)
    in_older = np.searchsorted(older, hashes)
    maybe_recent, maybe_older = _found(recent.id_hash, in_recent, hashes), _found(older, in_older, hashes)
    for (event_id, entry), place, is_recent, is_older in zip(
        best.items(), in_recent.tolist(), maybe_recent, maybe_older, strict=True
    ):
        if is_older:
            if entry.broker_ms <= row.cut_time_ms:
                out.doubtful.append(entry)
            continue
        match = recent.entry_row_from(place, int(recent.id_hash[place]), event_id) if is_recent else None
        if match is None:
            out.added.append(entry)
            continue
        folded = (int(recent.broker_ms[match]), int(recent.topic[match]), int(recent.partition[match]), int(recent.offset[match]))
        if rank(entry, row) < folded:
            out.replaced.append(match)
            out.added.append(entry)
    return out


def _found(known: I8, places: npt.NDArray[np.intp], wanted: I8) -> list[bool]:
    """Which of the wanted hashes stand at their places in the sorted known ones."""
    if not len(known):
        return [False] * len(wanted)
    found: list[bool] = (known[np.minimum(places, len(known) - 1)] == wanted).tolist()
    return found


class _Folded:
    """Rows of a person's recent columns by selection, found once a read."""

    def __init__(self, columns: FactColumns, t: int) -> None:
        self._columns = columns
        #: (first row, end row, event times) of each kind's facts before t, where there are some.
        self._before_t: dict[str, tuple[int, int, Any]] = {}
        self._lows: dict[tuple[str, int], int] = {}
        self._equal: dict[tuple[str, tuple[tuple[str, str], ...]], npt.NDArray[np.intp]] = {}
        self._codes: dict[str, int] = {}
        self._texts: dict[int, str] = {}
        at_ms, start = columns.at_ms, 0
        every = at_ms.tolist() if len(at_ms) <= FEW_FACTS else None
        for kind, end in zip(FACT_KINDS, columns.kind_ends, strict=False):
            if end > start:
                times = at_ms[start:end] if every is None else every[start:end]
                before = place_of(times, t)
                if before:
                    self._before_t[kind] = (start, start + before, times)
                start = end

    def rows(self, select: Select, start_ms: int | None) -> list[Rows]:
        out: list[Rows] = []
        for kind in select.kinds:
            span = self._before_t.get(kind)
            if span is None:
                continue
            start, end, times = span
            low = start
            if start_ms is not None:
                # Windows of one width begin at one row, whoever asks.
                known = self._lows.get((kind, start_ms))
                low = self._lows[kind, start_ms] = start + place_of(times, start_ms) if known is None else known
                if low >= end:
                    continue
            if not select.equals:
                out.append(slice(low, end))
                continue
            rows = self._matching(kind, start, end, select.equals)
            if low > start:
                rows = rows[np.searchsorted(rows, low) :]
            if len(rows):
                out.append(rows)
        return out

    def _matching(self, kind: str, start: int, end: int, equals: tuple[tuple[str, str], ...]) -> npt.NDArray[np.intp]:
        known = self._equal.get((kind, equals))
        if known is None:
            mask: npt.NDArray[np.bool_] | None = None
            for column, text in equals:
                codes = getattr(self._columns, column)[start:end]
                code = self._code(text, codes)
                if code == NULL_CODE:
                    mask = None
                    break
                hit = codes == code
                mask = hit if mask is None else mask & hit
            known = np.empty(0, np.intp) if mask is None else np.flatnonzero(mask) + start
            self._equal[(kind, equals)] = known
        return known

    def _code(self, text: str, codes: npt.NDArray[np.int32]) -> int:
        """Code of a text, or ``NULL_CODE`` when none of these rows has it."""
        if len(codes) > 64:
            known = self._codes.get(text)
            if known is None:
                known = self._codes[text] = self._columns.names.find(text)
            return int(known)
        # Few rows have few distinct texts: looking at them costs less than a search among all names.
        for code in set(codes.tolist()):
            if code != NULL_CODE:
                name = self._texts.get(code)
                if name is None:
                    name = self._texts[code] = self._columns.names[code]
                if name == text:
                    return int(code)
        return NULL_CODE


def recent_facts(columns: FactColumns, select: Select, start_ms: int | None, t: int) -> Iterator[tuple[Fact, int]]:
    """Facts of a selection in ``[start_ms, t)`` (``None``: from the first), each with the row of its entry."""
    folded = _Folded(columns, t)
    for kind in select.kinds:
        for rows in folded.rows(Select((kind,), select.equals), start_ms):
            yield from zip(columns.facts_of_kind(kind, rows), columns.entry[rows].tolist(), strict=True)


def place_of(times: Any, at_ms: int) -> int:
    """The first place in ascending times (a list, where they are few, or an array) that is not before ``at_ms``."""
    return bisect_left(times, at_ms) if isinstance(times, list) else int(np.searchsorted(times, at_ms))


class _Step(NamedTuple):
    """A primary as a read walks it: what of its definition is looked at, without looking it up again for every read."""

    name: str
    state: Kind
    select: Select
    width_ms: int | None
    #: (place in a ``Fact``, text) of each column that must equal a text
    equals: tuple[tuple[int, str], ...]


@lru_cache(maxsize=16)
def _steps(catalogue: Catalogue) -> tuple[_Step, ...]:
    return tuple(
        _Step(
            primary.name,
            primary.state,
            primary.select,
            primary.window.width_ms,
            tuple((Fact._fields.index(column), text) for column, text in primary.select.equals),
        )
        for primary in catalogue.primaries.values()
    )


@lru_cache(maxsize=16)
def _by_kind(catalogue: Catalogue) -> dict[str, tuple[tuple[int | None, tuple[_Step, ...]], ...]]:
    """kind of fact -> (width of a window, the steps that read it)"""
    kinds: dict[str, dict[int | None, list[_Step]]] = {}
    for step in _steps(catalogue):
        for kind in step.select.kinds:
            kinds.setdefault(kind, {}).setdefault(step.width_ms, []).append(step)
    return {kind: tuple((width, tuple(steps)) for width, steps in by_width.items()) for kind, by_width in kinds.items()}


def _select_hot(
    catalogue: Catalogue, entries: Iterable[Entry], t: int, only: Container[str] | None = None
) -> dict[str, list[Fact]]:
    """Hot facts by the primary (of ``only`` those) that counts them at t. The lists may be shared: read them only."""
    by_kind = _by_kind(catalogue)
    of_kind: dict[str, list[Fact]] = {}
    for entry in sorted([e for e in entries if e.at_ms is not None and e.at_ms < t], key=_AT_MS):
        for fact in facts_of(entry):
            of_kind.setdefault(fact.kind, []).append(fact)
    out: dict[str, list[Fact]] = {}
    for kind, facts in of_kind.items():
        times = [fact[0] for fact in facts]
        for width_ms, steps in by_kind.get(kind, ()):
            low = 0 if width_ms is None else bisect_left(times, t - width_ms)
            inside = facts[low:] if low else facts
            for step in steps if inside else ():
                name = step.name
                if only is not None and name not in only:
                    continue
                chosen = inside
                for place, text in step.equals:
                    chosen = [fact for fact in chosen if fact[place] == text]
                if chosen:
                    known = out.get(name)
                    out[name] = chosen if known is None else known + chosen
    return out


def fold_person(
    catalogue: Catalogue, person: PersonSnapshot, hot: Iterable[Entry], t: int, only: Container[str] | None = None
) -> dict[str, Any]:
    """States of all primaries (or of ``only`` those) at ``t``: ``older`` ⊕ recent facts ⊕ hot entries (already deduplicated)."""
    columns = person.recent
    folded = _Folded(columns, t) if columns.n_facts else None
    hot_facts = _select_hot(catalogue, hot, t, only)
    older = person.older
    states: dict[str, Any] = {}
    for name, kind, select, width_ms, _equals in _steps(catalogue):
        if only is not None and name not in only:
            continue
        state: Any = None
        parts = folded.rows(select, None if width_ms is None else t - width_ms) if folded is not None else ()
        if parts:
            state = kind.fold_rows(columns, parts[0]) if len(parts) == 1 else kind.fold_parts(columns, parts)
        if width_ms is None and name in older:
            part = kind.decode(older[name])
            state = part if state is None else kind.plus(state, part)
        facts = hot_facts.get(name)
        if facts:
            part = kind.fold(facts)
            state = part if state is None else kind.plus(state, part)
        states[name] = kind.zero() if state is None else state
    return states


def _conflicts(catalogue: Catalogue, doubtful: list[Entry], t: int) -> frozenset[str]:
    """Primaries that a hot copy of a folded event may change: every lifetime one, and windows that the copy's facts fall into."""
    if not doubtful:
        return frozenset()
    return frozenset(p.name for p in catalogue.lifetime) | frozenset(_select_hot(catalogue, doubtful, t))


def merge(
    catalogue: Catalogue,
    row: ManifestRow,
    person: PersonSnapshot | None,
    hot: HotView | None,
    t: int,
    late_grace_days: int = 5,
    only: Container[str] | None = None,
) -> Merged:
    """Merge one person at instant ``t`` (epoch ms). ``hot=None``: no hot store, the snapshot alone answers at O = cut.
    ``only``: states of those primaries and no others.

    Outcome ``archive``: t lies below the snapshot's range; ``gap`` and ``definition``: answered from the snapshot alone at O = cut.
    """
    if row.below_range(t, late_grace_days):
        return Merged("archive", EMPTY_OFFSETS, {})
    outcome: Outcome = "ok"
    if hot is not None:
        if find_gap(row, hot):
            outcome = "gap"
        elif other_version(row, hot):
            outcome = "definition"
    snapshot = person or _EMPTY_PERSON
    if hot is None or outcome != "ok":
        states = fold_person(catalogue, snapshot, (), t, only)
        return Merged(outcome, row.cut, states, known=person is not None, counted=Counted(snapshot, recent=snapshot.recent))
    recent = snapshot.recent
    deduped = _dedupe(row, snapshot, hot.entries, hot.high)
    left_out = deduped.left_out
    if deduped.replaced or left_out.rows:
        snapshot = replace(snapshot, recent=recent.without_entries([*deduped.replaced, *left_out.rows]))
    states = fold_person(catalogue, snapshot, deduped.added, t, only)
    newest = max((entry.at_ms for entry in deduped.added if entry.at_ms is not None and entry.at_ms < t), default=None)
    return Merged(
        "ok",
        row.cut.join(hot.high),
        states,
        _conflicts(catalogue, deduped.doubtful, t),
        known=person is not None or bool(deduped.added) or bool(left_out.entries),
        newest_event_ms=newest,
        counted=Counted(snapshot, deduped.added, deduped.replaced, deduped.doubtful, recent, left_out),
        pending=pending_primaries(catalogue, snapshot, left_out),
    )

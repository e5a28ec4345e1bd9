"""Plausible mistakes, each switched on alone, to prove that the simulator would see it.

A mutant is a context that yields the :class:`Parts` to run with; product functions are wrapped while it lasts and put back after.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import msgspec
import numpy as np

from twofold import merge as merge_room
from twofold import pinned
from twofold.catalogue import CATALOGUE
from twofold.columns import I8, id_hash
from twofold.contiguity import Contiguity
from twofold.events import Entry, make_entry
from twofold.features import Catalogue
from twofold.rankings import Top, Weight
from twofold.retractions import leave_out
from twofold.segments import Segments
from twofold.states import Kind, Latest, Mark, MoneySum
from twofold.testing import pinning, slices
from twofold.testing.world import Message, Parts, World
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey
from twofold.views import HotView, ManifestRow, PersonSnapshot

Mutant = Callable[[], AbstractContextManager[Parts]]
_Dedupe = Callable[[ManifestRow, PersonSnapshot, Iterable[Entry], Offsets], Any]
_dedupe: _Dedupe = merge_room._dedupe
#: An offset above every other.
_ABOVE = 2**62


def _deduping(change: Callable[[ManifestRow, PersonSnapshot, list[Entry], Offsets], Any]) -> AbstractContextManager[Any]:
    def changed(row: ManifestRow, person: PersonSnapshot, entries: Iterable[Entry], high: Offsets) -> Any:
        return change(row, person, list(entries), high)

    return patch.object(merge_room, "_dedupe", changed)


@contextmanager
def event_time_cut() -> Iterator[Parts]:
    """Hot facts count from ``as_of`` by event time instead of from the cut by position."""

    def change(row: ManifestRow, person: PersonSnapshot, entries: list[Entry], high: Offsets) -> Any:
        if row.as_of_ms is None:
            return _dedupe(row, person, entries, high)
        late = [entry for entry in entries if (entry.at_ms or 0) >= (row.as_of_ms or 0)]
        return _dedupe(replace(row, cut=EMPTY_OFFSETS), person, late, high)

    with _deduping(change):
        yield Parts()


@contextmanager
def after_the_cut() -> Iterator[Parts]:
    """``>`` for ``>=``: the entry that stands at the cut falls between the layers."""

    def change(row: ManifestRow, person: PersonSnapshot, entries: list[Entry], high: Offsets) -> Any:
        return _dedupe(replace(row, cut=Offsets({key: row.cut.next(key) + 1 for key in high})), person, entries, high)

    with _deduping(change):
        yield Parts()


@contextmanager
def trim_at_the_new_cut() -> Iterator[Parts]:
    """Facts below the newest cut go, though an older snapshot is still readable."""

    def newest(rows: Sequence[ManifestRow], keep: int) -> Offsets | None:  # noqa: ARG001
        return rows[-1].cut

    yield Parts(trim_cut=newest)


@contextmanager
def older_ids_forgotten() -> Iterator[Parts]:
    """Event ids that were folded into ``older`` are not known any more."""

    def change(row: ManifestRow, person: PersonSnapshot, entries: list[Entry], high: Offsets) -> Any:
        return _dedupe(row, replace(person, older_ids=np.empty(0, np.int64)), entries, high)

    with _deduping(change):
        yield Parts()


@contextmanager
def dedupe_by_fact() -> Iterator[Parts]:
    """A fact is known by (event id, ordinal): a longer copy adds its further facts."""

    def change(row: ManifestRow, person: PersonSnapshot, entries: list[Entry], high: Offsets) -> Any:
        deduped = _dedupe(row, person, entries, high)
        recent = person.recent
        longest = (
            {recent.event_id(int(f)): int(recent.ordinal[f]) + 1 for f in np.argsort(recent.ordinal)} if recent.n_facts else {}
        )
        longest.update({entry.event_id: len(entry.facts) for entry in deduped.added})
        extra: list[Entry] = []
        for entry in entries:
            key = PartitionKey(entry.topic_id, entry.partition)
            known = longest.get(entry.event_id or "")
            if known is not None and len(entry.facts) > known and row.cut.next(key) <= entry.offset < high.next(key):
                longest[entry.event_id or ""] = len(entry.facts)
                extra.append(msgspec.structs.replace(entry, facts=entry.facts[known:]))
        return replace(deduped, added=[*deduped.added, *extra])

    with _deduping(change):
        yield Parts()


@contextmanager
def plus_mutates() -> Iterator[Parts]:
    """``plus`` adds into its first input."""

    def plus(self: MoneySum, a: dict[str, int], b: dict[str, int]) -> dict[str, int]:  # noqa: ARG001
        for currency, amount in b.items():
            a[currency] = a.get(currency, 0) + amount
        return a

    with patch.object(MoneySum, "plus", plus):
        yield Parts()


class _NewestPlusOne(Contiguity):
    def see(self, offset: int) -> bool:
        if offset < self.high:
            return False
        self.high = offset + 1
        return True


@contextmanager
def newest_plus_one() -> Iterator[Parts]:
    """``high`` is the newest position + 1, whatever is missing below it."""
    yield Parts(contiguity=_NewestPlusOne)


@contextmanager
def no_upper_bound() -> Iterator[Parts]:
    """Entries at or above ``high`` count as soon as they stand in the store."""

    def change(row: ManifestRow, person: PersonSnapshot, entries: list[Entry], high: Offsets) -> Any:
        return _dedupe(row, person, entries, Offsets(dict.fromkeys(high, _ABOVE)))

    with _deduping(change):
        yield Parts()


@contextmanager
def low_read_first() -> Iterator[Parts]:
    """``low`` is read before the facts: a trimmer in between goes unseen."""
    yield Parts(low_read_first=True)


@contextmanager
def top_truncated() -> Iterator[Parts]:
    """Rankings are cut to five names in ``plus``, and so in ``fold``, which is lifting and adding by definition."""
    whole = Top.plus

    def plus(self: Top, a: dict[str, Weight], b: dict[str, Weight]) -> dict[str, Weight]:
        added = whole(self, a, b)
        ranked = sorted(added, key=lambda name: (-added[name][0], -added[name][1], name))
        return {name: added[name] for name in ranked[:5]}

    with patch.object(Top, "plus", plus), patch.object(Top, "fold", Kind.fold):
        yield Parts()


@contextmanager
def clock_in_admission() -> Iterator[Parts]:
    """``future`` is judged by the instant of processing instead of the broker's time."""

    def admit(version: str, message: Message, now_ms: int) -> Entry:
        entry = make_entry(version, message.position, now_ms, message.value)
        return msgspec.structs.replace(entry, broker_ms=message.broker_ms)

    yield Parts(admit=admit)


@contextmanager
def last_by_arrival() -> Iterator[Parts]:
    """The latest fact is the one of the later layer, not of the later event time."""
    whole = Latest.plus

    def plus(self: Latest, a: Mark | None, b: Mark | None) -> Mark | None:
        return whole(self, a, b) if self.first or b is None else b

    with patch.object(Latest, "plus", plus):
        yield Parts()


@contextmanager
def winner_by_arrival() -> Iterator[Parts]:
    """Of the copies of an event the one that was seen first wins."""

    def rank(entry: Entry, row: ManifestRow) -> tuple[int, int, int, int]:  # noqa: ARG001
        return (_ABOVE, 0, 0, 0)

    with patch.object(merge_room, "rank", rank):
        yield Parts()


@contextmanager
def log_start_reread() -> Iterator[Parts]:
    """The empty snapshot's cut is the log start of now, not of the day that the home was created."""

    def now(world: World) -> Offsets:
        return Offsets({key: max(world.log[key].start, start) for key, start in world.rows[0].cut.items()})

    yield Parts(log_start=now)


@contextmanager
def versions_of_facts_only() -> Iterator[Parts]:
    """Only entries that carry facts tell their version: one rejected under another version goes unseen."""

    def other(row: ManifestRow, hot: HotView) -> bool:
        within = (e for e in hot.entries if hot.high.holds(e.position) and not row.cut.holds(e.position))
        return any(entry.version != row.version for entry in within)

    with patch.object(merge_room, "other_version", other):
        yield Parts()


@contextmanager
def conflict_in_lifetime_only() -> Iterator[Parts]:
    """A copy that may beat a folded one marks lifetime fields, not the windows that it may fall into."""

    def conflicts(catalogue: Catalogue, doubtful: list[Entry], t: int) -> frozenset[str]:  # noqa: ARG001
        return frozenset(primary.name for primary in catalogue.lifetime) if doubtful else frozenset()

    with patch.object(merge_room, "_conflicts", conflicts):
        yield Parts()


@contextmanager
def night_drops_folded_copies() -> Iterator[Parts]:
    """An incremental night takes every new entry whose id is folded for a copy that loses."""

    def unfolded(_row: Any, _before: Any, known: PersonSnapshot, came: Iterable[Entry], _entries: Any) -> list[Entry]:
        folded = set(known.older_ids.tolist())
        return [entry for entry in came if id_hash(entry.event_id or "") not in folded]

    with patch.object(slices, "_unfolded", unfolded):
        yield Parts()


@contextmanager
def night_without_crossing() -> Iterator[Parts]:
    """An incremental night looks at the persons of the slice only, not at those whose facts the new horizon passes."""
    add: Callable[..., PersonSnapshot] = slices._added

    def added(
        catalogue: Catalogue, row: ManifestRow, known: PersonSnapshot, entries: list[Entry], retracted_ids: I8
    ) -> PersonSnapshot:
        came = len(entries) != known.recent.n_entries
        return add(catalogue, row, known, entries, retracted_ids) if came else known

    with patch.object(slices, "_added", added):
        yield Parts()


@contextmanager
def retracted_ids_forgotten() -> Iterator[Parts]:
    """Retractions below the cut are not consulted for hot copies."""

    def change(row: ManifestRow, person: PersonSnapshot, entries: list[Entry], high: Offsets) -> Any:
        return _dedupe(row, replace(person, retracted_ids=np.empty(0, np.int64)), entries, high)

    with _deduping(change):
        yield Parts()


def _retracting(acts: Callable[[Entry, Entry | None, dict[str, Entry]], bool]) -> AbstractContextManager[Any]:
    """Hot retractions act only where ``acts(retraction, first hot copy of its target, first hot copies)``."""

    def changed(person: PersonSnapshot, best: dict[str, Entry], retractions: Sequence[Entry]) -> Any:
        return leave_out(person, best, [r for r in retractions if acts(r, best.get(r.target or ""), best)])

    return patch.object(merge_room, "leave_out", changed)


@contextmanager
def hot_retractions_ignored() -> Iterator[Parts]:
    """What is taken back stays until the next batch, in silence."""
    with _retracting(lambda *_: False):
        yield Parts()


@contextmanager
def retraction_by_event_time() -> Iterator[Parts]:
    """A retraction takes out only what happened before it."""
    with _retracting(lambda retraction, target, _best: target is None or (target.at_ms or 0) <= (retraction.at_ms or 0)):
        yield Parts()


@contextmanager
def target_must_come_first() -> Iterator[Parts]:
    """A retraction of nothing is forgotten: an event that comes after it counts."""
    with _retracting(lambda retraction, target, _best: target is None or target.broker_ms <= retraction.broker_ms):
        yield Parts()


@contextmanager
def losing_copies_do_not_retract() -> Iterator[Parts]:
    """A retraction that loses as a copy of another event of its id does nothing."""
    with _retracting(lambda retraction, _target, best: any(entry is retraction for entry in best.values())):
        yield Parts()


@contextmanager
def pending_unflagged() -> Iterator[Parts]:
    """A retraction of what is folded before the horizon is passed over in silence."""
    with patch.object(merge_room, "pending_primaries", lambda *_args: frozenset()):
        yield Parts()


@contextmanager
def night_keeps_the_folded() -> Iterator[Parts]:
    """An incremental night leaves in ``older`` what was retracted since."""
    with patch.object(slices, "holds", lambda *_args: False):
        yield Parts()


@contextmanager
def pin_reads_what_is_trimmed() -> Iterator[Parts]:
    """Under a pin the hot store is believed, whether or not it still reaches down to the pinned cut."""
    with patch.object(pinning, "reaches", lambda *_args: True):
        yield Parts()


@contextmanager
def pin_without_an_end() -> Iterator[Parts]:
    """Under a pin whatever is above the cut counts, also what came after the pin."""

    def endless(
        catalogue: Catalogue, row: ManifestRow, person: PersonSnapshot | None, hot: HotView | None, t: int
    ) -> merge_room.Merged:
        if hot is not None:
            hot = replace(hot, high=Offsets(dict.fromkeys(hot.high, _ABOVE)))
        return merge_room.merge(catalogue, row, person, hot, t)

    with patch.object(pinned, "merge", endless):
        yield Parts()


@contextmanager
def consent_is_pinned() -> Iterator[Parts]:
    """Consent under a pin is what it was when the pin was made."""
    make: Callable[..., pinned.PinnedRecord] = pinned.make_pinned

    def pinning_all(*given: Any) -> pinned.PinnedRecord:
        return make(*given[:5], given[5]._replace(values={}, fields={}), *given[6:])

    with patch.object(pinned, "make_pinned", pinning_all):
        yield Parts()


@contextmanager
def segments_of_a_later_instant() -> Iterator[Parts]:
    """Ages in rules are taken a millisecond late: ``>=`` for ``>``."""
    names_at = Segments.names_at
    with patch.object(Segments, "names_at", lambda self, values, t: names_at(self, values, t + 1)):
        yield Parts()


def _kind_of(feature: str) -> Any:
    """The class of state that a feature rests on, wherever it is defined."""
    return type(CATALOGUE.primaries_of(feature)[0].state)


@contextmanager
def visits_longer_by_a_moment() -> Iterator[Parts]:
    """``>`` for ``>=`` where a visit ends."""
    runs = _kind_of("sessions_7d")
    of = runs._of
    with patch.object(runs, "_of", lambda self, times: of(replace(self, gap_ms=self.gap_ms + 1), times)):
        yield Parts()


@contextmanager
def order_empties_its_own_layer() -> Iterator[Parts]:
    """An order takes out of the cart what its own layer put in, and leaves what the other one did."""

    def plus(_self: Any, a: Any, b: Any) -> Any:
        return max((last for last in (a[0], b[0]) if last is not None), default=None), tuple(sorted((*a[1], *b[1])))

    with patch.object(_kind_of("cart_items"), "plus", plus):
        yield Parts()


#: name -> mutant
MUTANTS: dict[str, Mutant] = {
    "event-time cut": event_time_cut,
    "> for >= at the cut": after_the_cut,
    "trim at the new cut": trim_at_the_new_cut,
    "older_ids forgotten": older_ids_forgotten,
    "per-fact dedupe": dedupe_by_fact,
    "plus mutates its input": plus_mutates,
    "high = newest + 1": newest_plus_one,
    "no upper bound at high": no_upper_bound,
    "low read first": low_read_first,
    "top-k truncated in plus": top_truncated,
    "clock in admission": clock_in_admission,
    "last by arrival": last_by_arrival,
    "duplicate winner by arrival": winner_by_arrival,
    "log start re-read": log_start_reread,
    "versions of facts only": versions_of_facts_only,
    "conflict in lifetime fields only": conflict_in_lifetime_only,
    "night drops folded copies": night_drops_folded_copies,
    "night without crossing": night_without_crossing,
    "retracted_ids forgotten": retracted_ids_forgotten,
    "hot retractions ignored": hot_retractions_ignored,
    "retraction by event time": retraction_by_event_time,
    "target must come first": target_must_come_first,
    "losing copies do not retract": losing_copies_do_not_retract,
    "pending not flagged": pending_unflagged,
    "night keeps the folded": night_keeps_the_folded,
    "pin reads what is trimmed": pin_reads_what_is_trimmed,
    "pin without an end": pin_without_an_end,
    "consent is pinned": consent_is_pinned,
    "segments of a later instant": segments_of_a_later_instant,
    "visits longer by a moment": visits_longer_by_a_moment,
    "order empties its own layer": order_empties_its_own_layer,
}

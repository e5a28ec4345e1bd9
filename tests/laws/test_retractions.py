"""However a log is cut and delivered, a record is F(person, t, O) with its retractions, but for fields that are pending."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.laws.test_next_change import START, TOPIC, Person, person_of
from twofold.catalogue import CATALOGUE
from twofold.errors import EmptyArchiveError, IncrementalRefused
from twofold.events import Entry
from twofold.merge import Merged, merge
from twofold.record import inexact_fields
from twofold.testing import oracle, strategies
from twofold.testing.nights import rebuild
from twofold.testing.slices import extend, first_difference
from twofold.testing.strategies import NOW_MS, PERSONS
from twofold.timeline import DAY_MS, Offsets
from twofold.views import HotView, ManifestRow, PersonSnapshot

VERSION = "1/test"
#: Two persons, so that one may retract what only the other has.
KINDS = ("view", "order", "consent", "trait", "email_complained", "retraction", "retraction", "retraction")
LOGS = strategies.histories(persons=PERSONS[:2], kinds=KINDS, max_entries=20, version=VERSION, rejected=False)


def night(log: list[Entry], cut: Offsets, as_of_ms: int) -> tuple[ManifestRow, dict[str, PersonSnapshot | None]]:
    try:
        snapshot = rebuild(CATALOGUE, VERSION, log, cut, START, "n1", as_of_ms)
    except EmptyArchiveError:
        return START, {}
    return snapshot.row, {person: snapshot.person(person) for person in PERSONS[:2]}


def values(merged: Merged, t: int) -> dict[str, object]:
    return {name: CATALOGUE.present(feature, merged.states, t) for name, feature in CATALOGUE.features.items()}


@given(st.data())
def test_any_cut_and_any_order_give_what_a_recomputation_gives(data: st.DataObject) -> None:
    log = data.draw(LOGS)
    cut, high = data.draw(strategies.cut_and_high(log))
    cut, high = START.cut.join(cut), START.cut.join(high)
    as_of_ms = NOW_MS + data.draw(st.sampled_from((-20, 0, 0, 5, 40))) * DAY_MS
    row, people = night(log, cut, as_of_ms)
    delivered = data.draw(strategies.deliveries(log))
    t = data.draw(strategies.instants(log))
    for person in PERSONS[:2]:
        hot = HotView(high=high, low=row.cut, entries=tuple(e for e in delivered if e.person == person))
        merged = merge(CATALOGUE, row, people.get(person), hot, t)
        if merged.outcome == "archive":
            continue
        offsets = row.cut.join(high)
        assert merged.outcome == "ok" and merged.offsets == offsets
        own = [entry for entry in log if entry.person == person and offsets.holds(entry.position)]
        right = oracle.values(oracle.winners(own, [TOPIC]), t)
        found, fields = values(merged, t), inexact_fields(CATALOGUE, merged)
        assert {name: found[name] for name in fields if fields[name] == "exact"} == {
            name: right[name] for name in fields if fields[name] == "exact"
        }
        assert merged.known == bool(own)
        # The next batch resolves all of it.
        row_after, after = night(log, offsets, as_of_ms)
        if after:
            settled = merge(CATALOGUE, row_after, after[person], HotView(high=high, low=row_after.cut, entries=hot.entries), t)
            assert settled.outcome == "archive" or (not settled.inexact and values(settled, t) == right)


@given(LOGS, st.randoms(use_true_random=False))
def test_a_retraction_twice_is_one_and_its_own_time_says_nothing(log: list[Entry], r: Random) -> None:
    t = NOW_MS + 6 * DAY_MS
    ends = strategies.log_end(log)
    again = [
        Entry(VERSION, "topic-a", 0, ends.next(next(iter(START.cut))) + n, NOW_MS + 90 * DAY_MS, "ok", e.person, f"again{n}",
              r.randrange(NOW_MS), facts=e.facts)
        for n, e in enumerate(e for e in log if e.target is not None)
    ]  # fmt: skip
    for person in PERSONS[:2]:
        once = [e for e in log if e.person == person]
        twice = [*once, *(e for e in again if e.person == person)]
        assert oracle.values(oracle.winners(twice, [TOPIC]), t) == oracle.values(oracle.winners(once, [TOPIC]), t)


@settings(deadline=None)
@given(st.data())
def test_a_night_after_a_night_is_a_full_rebuild(data: st.DataObject) -> None:
    log = data.draw(LOGS)
    cut = START.cut.join(data.draw(strategies.cuts(log)))
    later = data.draw(strategies.cuts(log, at_least=cut))
    try:
        first = rebuild(CATALOGUE, VERSION, log, cut, START, "n1", NOW_MS)
        full = rebuild(CATALOGUE, VERSION, log, later, first.row, "n2", NOW_MS + DAY_MS)
        extended = extend(CATALOGUE, VERSION, log, later, first, "n2", NOW_MS + DAY_MS)
    except (EmptyArchiveError, IncrementalRefused):
        return
    assert first_difference(extended, full) is None


def hold_next_change(person: Person, t: int) -> str:
    """A retraction moves nothing by time alone: the next change is that of what is left."""
    now = person.record(t)
    state = max(now.fields.values(), key=("exact", "pending_retraction", "conflict").index)
    if state == "exact" and now.sendable.reasons.count("consent_inexact") == 0:
        assert now.next_change_at == oracle.next_change_at(person.winners, t)
    return state


def test_the_next_change_is_that_of_what_is_left() -> None:
    seen: Counter[str] = Counter()
    for seed in range(10_000, 10_400):
        person, t = person_of(seed, copies=2)
        if any(entry.target in {e.event_id for e in person.hot} for entry in person.hot):
            seen[hold_next_change(person, t)] += 1
    assert seen["exact"] > 50 and seen["pending_retraction"] > 2, seen

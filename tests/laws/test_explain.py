"""What is told to contribute does: folded alone it gives the state, and no event of it can be spared. Random people, seeded."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given

from tests.laws.seeded import entries
from tests.laws.test_next_change import NOW_MS, PARTITIONS, PERSON, TOPIC, Person, event, person_of
from tests.laws.test_states import ALL, facts, seeds, shuffled
from twofold.catalogue import CATALOGUE
from twofold.contributing import contributing
from twofold.events import Entry, FactBody
from twofold.explain import explain, with_raw
from twofold.explanation import Explanation
from twofold.merge import merge
from twofold.record import Record, make_record
from twofold.states import Kind
from twofold.testing import oracle
from twofold.timeline import DAY_MS, Offsets, Position


@pytest.mark.parametrize("kind", ALL, ids=str)
@given(seeds)
def test_what_contributes_is_enough_and_nothing_of_it_is_spare(kind: Kind, r: Random) -> None:
    drawn = shuffled(r, facts(entries(r)))
    ids = {fact.event_id for fact in drawn}
    known = [entry for entry in entries(r) if entry.event_id not in ids]
    older = kind.fold(facts(known)) if r.random() < 0.5 else kind.zero()
    chosen = [drawn[place] for place in contributing(kind, drawn, older)]
    total = kind.plus(older, kind.fold(drawn))
    assert kind.plus(older, kind.fold(chosen)) == total
    for event_id in {fact.event_id for fact in chosen}:
        rest = [fact for fact in chosen if fact.event_id != event_id]
        assert kind.plus(older, kind.fold(rest)) != total, event_id


# --- whole explanations ---------------------------------------------------------------------------------------------------------
def explained(person: Person, t: int, field: str) -> tuple[Record, Explanation]:
    record = person.record(t)
    merged = merge(CATALOGUE, person.row, person.snapshot, person.view(t), t)
    return record, explain(CATALOGUE, record, field, person.row, merged, person.view(t))


def only(entry: Entry, ordinals: set[int]) -> Entry:
    """The entry with some of its facts."""
    fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
    return Entry(**{**fields, "facts": tuple(fact for n, fact in enumerate(entry.facts) if n in ordinals)})


def hold(seed: int, seen: Counter[str]) -> None:
    person, t = person_of(seed)
    t = max(t, NOW_MS - 4 * DAY_MS)
    winning = {entry.event_id: entry for entry in person.winners}
    horizon = person.row.horizon_ms
    for field in CATALOGUE.features:
        where = f"seed {seed}, {field}"
        record, found = explained(person, t, field)
        assert found.value == record.values[field] and found.state == record.fields[field]
        if found.state != "exact":
            seen[found.state] += 1
            continue
        told: dict[str, set[int]] = {}
        for part in found.parts:
            for c in part.contributions:
                entry = winning[c.event_id]
                assert (c.place.topic_id, c.place.partition, c.place.offset) == entry.position, where
                assert c.place.broker_ms == entry.broker_ms and c.at_ms == entry.at_ms
                below = person.row.cut.holds(entry.position)
                assert c.place.layer == ("batch" if below else "hot"), where
                assert c.late == (not below and person.row.as_of_ms is not None and c.at_ms < person.row.as_of_ms)
                assert part.start_ms is None or part.start_ms <= c.at_ms
                assert c.at_ms < part.end_ms == t
                told.setdefault(c.event_id, set()).update(c.ordinals)
                seen["late"] += c.late
                seen[c.place.layer] += 1
        # The oracle, given just what is told, and what the older part holds, says the value.
        # A retracted one among them counts nowhere in a field that is exact.
        older = [e for e in folded(person) if horizon is not None and (e.at_ms or 0) < horizon]
        listed = [only(winning[event_id], ordinals) for event_id, ordinals in told.items()]
        assert not {e.event_id for e in older} & told.keys(), where
        assert oracle.values([*older, *listed], t)[field] == record.values[field], where
        hold_older(found, older, seen, where)


def hold_older(found: Explanation, older: list[Entry], seen: Counter[str], where: str) -> None:
    for part in found.parts:
        if part.older is None:
            assert part.start_ms is not None or not older, where
            continue
        select = CATALOGUE.primaries[part.primary].select
        times = [e.at_ms or 0 for e in older for fact in facts([e]) if select.holds(fact)]
        assert part.older.all_events == len(older)
        if part.older.facts is not None:
            assert part.older.facts == len(times), where
            seen["counted"] += len(times) > 0
        if part.older.first_ms is not None:
            assert part.older.first_ms == min(times), where
            seen["first"] += 1
        if part.older.last_ms is not None and part.primary != "product_units_lifetime":
            assert part.older.last_ms == max(times), where
            seen["last"] += 1
        known = {e.event_id: e.at_ms for e in older}
        assert all(known[event.event_id] == event.at_ms for event in part.older.events), where
        seen["known"] += len(part.older.events)


def test_every_field_of_random_people_against_the_oracle() -> None:
    seen: Counter[str] = Counter()
    for seed in range(250):
        hold(seed, seen)
    assert all(seen[name] > 20 for name in ("batch", "hot", "late", "counted", "first", "last", "known")), seen


# --- copies ----------------------------------------------------------------------------------------------------------------------
def raw_of(person: Person, t: int, field: str) -> Explanation:
    merged = merge(CATALOGUE, person.row, person.snapshot, person.view(t), t)
    _record, found = explained(person, t, field)
    archived = [(entry, str(entry.position).encode()) for entry in (*person.hot, *person.hot[:2])]
    return with_raw(CATALOGUE, found, person.row, merged.offsets, archived, merged.offsets)


def test_copies_are_told_with_the_one_that_counts() -> None:
    """Every entry of a selection is told of once: it contributes, is of the older part, is a copy, or its event is spare."""
    seen: Counter[str] = Counter()
    for seed in range(400):
        person, t = person_of(seed, copies=4)
        t = max(t, NOW_MS - 4 * DAY_MS)
        for field in ("orders_lifetime", "page_views_30d", "interest", "first_order_at"):
            found = raw_of(person, t, field)
            primary = CATALOGUE.primaries[CATALOGUE.features[field].of]
            assert found.raw is not None and not found.raw.missing
            inside = [e for e in person.hot if primary.window.holds(e.at_ms or 0, t)]
            read = {e.position for e in inside if any(map(primary.select.holds, facts([e])))}
            counts = {e.position for e in person.winners}
            copies = [position(raw.place) for raw in (*found.raw.suppressed, *found.raw.retracted)]
            assert len(copies) == len(set(copies))
            # A doubtful copy may be the one that counts, which the oracle knows.
            exact = set(person.record(t).fields.values()) == {"exact"}
            if exact:
                assert set(copies) >= read - counts and not set(copies) & counts, seed
            above = {position(s.place): s for s in found.suppressed}
            assert above.keys() <= set(copies), seed
            # Of a copy of the older part's event, without the raw bytes, only its own facts say whether it matters here.
            untold = [raw for raw in found.raw.suppressed if position(raw.place) not in above]
            assert all(raw.place.layer != "hot" or position(raw.place) not in read for raw in untold), seed
            older = older_ids(person)
            assert all(raw.place.layer != "hot" or raw.event_id in older for raw in untold), seed
            at = {entry.position: entry.at_ms for entry in person.hot}
            for place, s in above.items():
                seen[s.why] += 1
                assert s.at_ms == at[place]
                if s.winner is not None:
                    assert not exact or position(s.winner) in counts
                    assert position(s.winner) != place
                    seen["winner"] += 1
            hold_retracted(person, found, seen)
            hold_raw(person, found, primary.lifetime and exact, read & counts, seen)
    names = ("later_copy", "replaced", "doubtful", "winner", "older", "events", "retracted", "known retraction")
    assert all(seen[name] > 5 for name in names) and seen["pending"] > 2, seen


def hold_retracted(person: Person, found: Explanation, seen: Counter[str]) -> None:
    """Whatever is told to be retracted is, by the entry that is told of."""
    assert found.raw is not None
    targets = {entry.position: entry.target for entry in person.hot if entry.target is not None}
    for raw in found.raw.retracted:
        assert raw.retraction is not None and targets[position(raw.retraction)] == raw.event_id
    for s in found.suppressed:
        assert (s.why == "retracted") == (s.event_id in targets.values()) or s.why == "doubtful"
        if s.retraction is not None:
            assert targets[position(s.retraction)] == s.event_id
            seen["known retraction"] += 1
    for retraction in (*found.nothing, *(r for part in found.parts if part.older for r in part.older.pending)):
        assert targets[position(retraction.place)] == retraction.target
    for part in found.parts:
        pending = part.older.pending if part.older else ()
        assert {r.target for r in pending} <= older_ids(person)
        assert not pending or found.state in ("pending_retraction", "conflict")
        seen["pending"] += len(pending)
    ids = {entry.event_id for entry in person.hot}
    assert not {retraction.target for retraction in found.nothing} & ids


def folded(person: Person) -> list[Entry]:
    """What counts below the cut."""
    return oracle.winners((e for e in person.hot if person.row.cut.holds(e.position)), [TOPIC])


def older_ids(person: Person) -> set[str]:
    """Events that the snapshot folded into the older part."""
    horizon = person.row.horizon_ms
    return {e.event_id or "" for e in folded(person) if horizon is not None and (e.at_ms or 0) < horizon}


def hold_raw(person: Person, found: Explanation, lifetime: bool, counting: set[Position], seen: Counter[str]) -> None:
    assert found.raw is not None
    for raw in (*found.raw.older, *found.raw.suppressed, *found.raw.events):
        assert raw.value == str(position(raw.place))
    contributing_places = {position(c.place) for part in found.parts for c in part.contributions}
    assert {position(raw.place) for raw in found.raw.events} == contributing_places
    if lifetime and person.row.horizon_ms is not None:
        at = {entry.position: entry.at_ms or 0 for entry in person.hot}
        expected = {p for p in counting if person.row.cut.holds(p) and at[p] < person.row.horizon_ms}
        assert {position(raw.place) for raw in found.raw.older} == expected
    seen["older"] += len(found.raw.older)
    seen["events"] += len(found.raw.events)


def position(place: Any) -> Position:
    return Position(place.topic_id, place.partition, place.offset)


def test_a_field_that_rests_on_nothing_says_so() -> None:
    _record, found = explained(Person([], 0, NOW_MS), NOW_MS, "orders_lifetime")
    (part,) = found.parts
    assert (found.value, part.contributions, part.older, part.facts, found.suppressed) == (0, (), None, 0, ())
    assert (found.person, found.freshness.high) == (PERSON, {TOPIC: {"0": 1, "1": 1, "2": 1}})


def test_behind_a_gap_only_the_snapshot_is_told_of() -> None:
    person = Person([event(n, NOW_MS - DAY_MS * (n + 1), FactBody("page")) for n in range(4)], 2, NOW_MS)
    view = replace(person.view(NOW_MS), low=Offsets({PARTITIONS[0]: 3}))
    merged = merge(CATALOGUE, person.row, person.snapshot, view, NOW_MS)
    record = make_record(CATALOGUE, PERSON, person.row, merged, view, NOW_MS, NOW_MS, 10_000, 60_000)
    found = explain(CATALOGUE, record, "page_views_7d", person.row, merged, view)
    assert (found.freshness.state, found.value, found.suppressed) == ("gap", 2, ())
    assert [(c.event_id, c.place.layer) for c in found.parts[0].contributions] == [("e0", "batch"), ("e1", "batch")]
    archived = [(entry, b"{}") for entry in person.hot]
    raw = with_raw(CATALOGUE, found, person.row, merged.offsets, archived, person.high).raw
    assert raw is not None and [event.event_id for event in raw.events] == ["e1", "e0"]

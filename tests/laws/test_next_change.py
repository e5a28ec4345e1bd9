"""When a record stops holding by itself: nothing moves before that instant, and at it something does. Random people, seeded."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from tests.laws.seeded import entries
from twofold.catalogue import CATALOGUE
from twofold.events import Entry, FactBody
from twofold.merge import merge
from twofold.next_change import MOST_EDGES
from twofold.record import Record, make_record
from twofold.rule_grammar import parse_rule
from twofold.segments import NO_SEGMENTS, Segment, Segments
from twofold.testing import oracle
from twofold.testing.nights import rebuild
from twofold.testing.strategies import NOW_MS, WIDTHS_MS
from twofold.timeline import DAY_MS, MINUTE_MS, Offsets, PartitionKey
from twofold.views import Heartbeat, HotView, ManifestRow, PersonSnapshot, empty_manifest

TOPIC, PERSON = "topic-a", "user:1"
PARTITIONS = [PartitionKey(TOPIC, p) for p in range(3)]
START = empty_manifest(Offsets(dict.fromkeys(PARTITIONS, 0)), "1/test")


class Person:
    """One person, some of whose entries lie below a cut, with copies of them above it: read at any instant, at one lag."""

    def __init__(self, log: list[Entry], cut: int, as_of_ms: int) -> None:
        self.row: ManifestRow = START
        self.snapshot: PersonSnapshot | None = None
        below = Offsets(dict.fromkeys(PARTITIONS, cut))
        if any(below.holds(entry.position) for entry in log):
            night = rebuild(CATALOGUE, "1/test", log, below, START, "n1", as_of_ms)
            self.row, self.snapshot = night.row, night.person(PERSON)
        self.high = Offsets(dict.fromkeys(PARTITIONS, len(log) + 1))
        self.hot = tuple(log)
        self.winners = oracle.winners(log, [TOPIC])

    def view(self, t: int, lag_ms: int = 0) -> HotView:
        high_broker = dict.fromkeys(PARTITIONS, t - lag_ms)
        end = Offsets(dict.fromkeys(PARTITIONS, self.high[PARTITIONS[0]] + (lag_ms > 0)))
        return HotView(self.high, Offsets(), self.hot, heartbeat=Heartbeat(t, end), high_broker_ms=high_broker)

    def record(self, t: int, lag_ms: int = 0, segments: Segments = NO_SEGMENTS) -> Record:
        hot = self.view(t, lag_ms)
        merged = merge(CATALOGUE, self.row, self.snapshot, hot, t)
        return make_record(CATALOGUE, PERSON, self.row, merged, hot, t, t, 10_000, 60_000, self.high, segments)


def consenting(r: Random, log: list[Entry]) -> list[Entry]:
    """A consent before the rest, for most people: else nobody may be written to and permission never moves."""
    if r.random() < 0.3:
        return log
    at = NOW_MS - r.choice((0, 1, 3)) * DAY_MS - 5
    fact = FactBody("consent", key="marketing", value="granted")
    return [*log, Entry("1/test", TOPIC, 0, len(log), at, "ok", PERSON, "consent", at, "web", None, (fact,))]


def person_of(seed: int, copies: int = 1) -> tuple[Person, int]:
    """A person read at an instant; up to so many of the log's entries are copies of others, with other facts."""
    r = Random(seed)
    log = consenting(r, entries(r))
    for _ in range(r.randrange(copies + 1) if log else 0):
        copied = r.choice(log)
        fields = {name: getattr(copied, name) for name in copied.__struct_fields__}
        fields |= {"partition": r.randrange(3), "offset": len(log), "facts": r.choice(log).facts}
        log.append(Entry(**{**fields, "broker_ms": copied.broker_ms + r.choice((-1, 0, 1))}))
    person = Person(log, r.randrange(len(log) + 1), NOW_MS)
    times = [entry.at_ms or 0 for entry in log if (entry.at_ms or 0) >= NOW_MS - 3 * DAY_MS]
    t = r.choice((NOW_MS, r.choice(times or [NOW_MS]))) + r.choice((-1, 0, 1, r.randrange(DAY_MS)))
    return person, t


def steady(record: Record) -> dict[str, Any]:
    return {**record.values, "interest": None, "sendable": record.sendable.ok}


def hold(seed: int, instants: int) -> bool:
    """Whether the person's record ever moves by itself."""
    person, t = person_of(seed)
    now = person.record(t)
    found, r = now.next_change_at, Random(seed)
    # Of what may be wrong the oracle says nothing: fields, and permission, which rests on more than fields.
    if set(now.fields.values()) == {"exact"} and "consent_inexact" not in now.sendable.reasons:
        assert found == oracle.next_change_at(person.winners, t), f"seed {seed}"
    times = sorted({entry.at_ms or 0 for entry in person.winners})
    edges = {at + width + 1 for at in times for width in (0, *WIDTHS_MS)}
    end = found if found is not None else t + 400 * DAY_MS
    before = {edge - 1 for edge in edges if t < edge <= end} | {end - 1} | {r.randrange(t, end) for _ in range(instants)}
    for instant in sorted(before):
        if instant >= t:
            assert steady(person.record(instant)) == steady(now), f"seed {seed} at {instant}"
    if found is not None:
        assert found > t
        assert steady(person.record(found)) != steady(now), f"seed {seed} at {found}"
    return found is not None


def test_nothing_moves_before_it_and_something_at_it() -> None:
    moving = sum(hold(seed, 5) for seed in range(400))
    assert 100 < moving < 400


@pytest.mark.slow
def test_nothing_moves_before_it_and_something_at_it_for_ten_thousand_people() -> None:
    assert sum(hold(seed, 50) for seed in range(10_000)) > 5_000


# --- by hand ----------------------------------------------------------------------------------------------------------------------
def event(offset: int, at_ms: int, *facts: FactBody) -> Entry:
    return Entry("1/test", TOPIC, 0, offset, at_ms, "ok", PERSON, f"e{offset}", at_ms, "web", None, facts)


def views(*times: int, product: str = "a") -> list[Entry]:
    return [event(n, at, FactBody("view", product=product)) for n, at in enumerate(times)]


@pytest.mark.parametrize("cut", [0, 1, 2])
def test_a_product_that_the_window_holds_once_more_is_no_change(cut: int) -> None:
    first = NOW_MS - 6 * DAY_MS
    # One visit, so that nothing else moves either.
    second = first + 10 * MINUTE_MS
    person = Person(views(first, second), cut, NOW_MS)
    assert person.record(NOW_MS).next_change_at == second + 7 * DAY_MS + 1
    assert person.record(second + 7 * DAY_MS + 1).next_change_at == first + 30 * DAY_MS + 1


def test_one_that_leaves_as_another_comes_in_is_no_change() -> None:
    leaving, coming = NOW_MS - 7 * DAY_MS + 9, NOW_MS + 9
    mails = [event(n, at, FactBody("email_sent")) for n, at in enumerate((leaving, coming))]
    for cut in (0, 1):
        assert Person(mails, cut, NOW_MS).record(NOW_MS).next_change_at == coming + 7 * DAY_MS + 1
    late = [*mails, event(2, coming + 1, FactBody("email_sent"))]
    assert Person(late, 1, NOW_MS).record(NOW_MS).next_change_at == coming + 2


def test_a_trait_said_again_is_no_change_and_another_is() -> None:
    def trait(offset: int, at: int, value: str) -> Entry:
        return event(offset, at, FactBody("trait", key="tier", value=value))

    again = [trait(0, NOW_MS - 9, "gold"), trait(1, NOW_MS + 5, "gold")]
    assert Person(again, 0, NOW_MS).record(NOW_MS).next_change_at is None
    other = [*again, trait(2, NOW_MS + 7, "silver")]
    assert Person(other, 0, NOW_MS).record(NOW_MS).next_change_at == NOW_MS + 8


def test_permission_alone_is_a_change_but_not_where_nobody_is_written_to() -> None:
    granted = event(0, NOW_MS - 9, FactBody("consent", key="marketing", value="granted"))
    complaint = event(1, NOW_MS + 5, FactBody("email_complained"))
    person = Person([granted, complaint], 0, NOW_MS)
    assert person.record(NOW_MS).next_change_at == NOW_MS + 6
    # So far behind the log nobody is written to, before or after it.
    assert person.record(NOW_MS, lag_ms=2 * MINUTE_MS).next_change_at is None


def test_a_segment_that_someone_enters_by_age_is_a_change() -> None:
    at = NOW_MS - DAY_MS
    person = Person([event(0, at, FactBody("email_clicked"))], 1, NOW_MS)
    lapsing = Segments([Segment("lapsing", parse_rule("last_email_click_at older than 2 d", CATALOGUE))])
    assert person.record(NOW_MS).next_change_at == at + 30 * DAY_MS + 1
    turn = at + 2 * DAY_MS + 1
    assert person.record(NOW_MS, segments=lapsing).next_change_at == turn
    assert [person.record(t, segments=lapsing).segments for t in (turn - 1, turn)] == [(), ("lapsing",)]
    assert person.record(turn, segments=lapsing).next_change_at == at + 30 * DAY_MS + 1


def test_a_decayed_score_is_left_out() -> None:
    catalogue_entry = event(0, NOW_MS - 40 * DAY_MS, FactBody("view", product="a", category="c"))
    record = Person([catalogue_entry], 0, NOW_MS).record(NOW_MS)
    assert record.values["interest"] and record.next_change_at is None


def test_after_many_edges_without_a_change_the_next_one_is_given() -> None:
    """A bound of work: what is given then is still no later than the first change."""
    times = [NOW_MS - 7 * DAY_MS + MINUTE_MS * (n + 1) for n in range(MOST_EDGES + 10)]
    person = Person(views(*times), len(times), NOW_MS)
    found = person.record(NOW_MS).next_change_at
    assert found == times[MOST_EDGES] + 7 * DAY_MS + 1
    assert steady(person.record(found)) == steady(person.record(NOW_MS))
    fewer = Person(views(*times[: MOST_EDGES - 1]), 3, NOW_MS)
    assert fewer.record(NOW_MS).next_change_at == times[MOST_EDGES - 2] + 7 * DAY_MS + 1

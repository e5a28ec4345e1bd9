"""Since when a person is in a segment: as asking at every single millisecond would tell, before and after a snapshot."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.unit.histories import entry
from twofold.catalogue import CATALOGUE
from twofold.events import FactBody
from twofold.features import Catalogue, Primary, Select
from twofold.membership import membership_of
from twofold.merge import merge
from twofold.rule_grammar import parse_rule
from twofold.rules import Age, AllOf, AnyOf, Compare, IsNull, Not, Operand, evaluator, joined
from twofold.segments import Segment
from twofold.states import Count
from twofold.testing.nights import rebuild
from twofold.timeline import DAY_MS, Offsets, PartitionKey, Window
from twofold.views import HotView, empty_manifest

P0 = PartitionKey("T", 0)
START = empty_manifest(Offsets({P0: 0}), "1/x")
PERSON = "user:1"
#: Windows of milliseconds, so that every instant of a history can be asked.
TINY = Catalogue(
    [
        Primary("views", Count(), Select(("page",)), Window(4)),
        Primary("clicks", Count(), Select(("email_clicked",)), Window(9)),
        *(CATALOGUE.primaries[name] for name in ("orders_lifetime", "last_order", "first_order", "tier")),
    ],
    [
        CATALOGUE.features["orders_lifetime"],
        CATALOGUE.features["last_order_at"],
        CATALOGUE.features["first_order_at"],
        CATALOGUE.features["tier"],
        *(type(CATALOGUE.features["tier"])(name, "Tiny", name) for name in ("views", "clicks")),
    ],
)
LAST = 60
_number = st.sampled_from(["views", "clicks", "orders_lifetime"]).map(lambda name: Operand(name, "integer"))
_time = st.sampled_from(["last_order_at", "first_order_at"]).map(lambda name: Operand(name, "time"))
clauses = st.one_of(
    st.builds(Compare, _number, st.sampled_from(["=", ">=", "<"]), st.integers(0, 2)),
    st.builds(Compare, _time, st.sampled_from([">=", "<"]), st.integers(0, LAST)),
    st.builds(Age, _time, st.booleans(), st.sampled_from([1, 5, 20])),
    st.builds(IsNull, _time, st.booleans()),
    st.builds(Compare, st.just(Operand("tier", "text")), st.just("="), st.sampled_from(["a", "b"])),
)
rules = st.recursive(
    clauses,
    lambda inner: st.one_of(
        inner.map(Not),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: joined(AllOf, parts)),
        st.lists(inner, min_size=2, max_size=3).map(lambda parts: joined(AnyOf, parts)),
    ),
    max_leaves=4,
)
bodies = st.sampled_from(
    [FactBody("page"), FactBody("email_clicked"), FactBody("order"), *(FactBody("trait", key="tier", value=v) for v in "ab")]
)
histories = st.lists(st.tuples(st.integers(0, LAST - 1), bodies), max_size=10)


def log_of(history):
    return [entry(f"e{n}", at, body, offset=n, broker_ms=at) for n, (at, body) in enumerate(history)]


def holds_at(rule, log, t: int) -> bool:
    hot = HotView(high=Offsets({P0: len(log)}), low=Offsets({P0: 0}), entries=tuple(log))
    states = merge(TINY, START, None, hot, t).states
    return evaluator(rule)({name: TINY.present(f, states, t) for name, f in TINY.features.items()}, t)


def by_every_millisecond(rule, log, t: int) -> int | None:
    """The first instant of the run of instants at which the rule holds that ends at t; ``None``: it held from the beginning."""
    at = t
    while at >= -30 and holds_at(rule, log, at):
        at -= 1
    return None if at < -30 else at + 1


VIEWS, PAGE = Operand("views", "integer"), FactBody("page")


# The window empties: no fact comes or ages at that instant.
@example(Compare(VIEWS, "<", 1), [(10, PAGE)], 20)
@given(rules, histories, st.integers(1, LAST + 25))
def test_before_any_snapshot_every_instant_is_known(rule, history, t):
    log = log_of(history)
    hot = HotView(high=Offsets({P0: len(log)}), low=Offsets({P0: 0}), entries=tuple(log))
    found = membership_of(TINY, Segment("s", rule), PERSON, START, None, hot, t)
    assert found.member == holds_at(rule, log, t)
    if not found.member:
        assert (found.entered_at, found.entered_before, found.note) == (None, None, None)
        return
    want = by_every_millisecond(rule, log, t)
    assert (found.entered_at, found.entered_before) == (want, None)
    assert (found.note == "since before the first event") == (want is None)


# At 33 the window would need the page at 30, which is folded away: that instant must not be asked.
@example(Compare(VIEWS, ">=", 2), [(at, PAGE) for at in (30, 32, 34, 36, 38, 39)], 6, 0)
@given(rules, histories.filter(bool), st.integers(1, 10), st.integers(0, 25))
def test_behind_a_snapshot_it_is_the_same_or_says_how_far_it_was_followed(rule, history, cut, later):
    """The horizon lies in the middle: grace 0 in days, so that it is ``as_of`` less the longest window."""
    log = sorted(log_of(history), key=lambda e: e.offset)
    cut = min(cut, len(log))
    as_of = 40
    horizon = as_of - TINY.longest_window_ms
    snapshot = rebuild(TINY, "1/x", log[:cut], Offsets({P0: cut}), START, "n1", as_of, late_grace_days=0)
    assert snapshot.row.horizon_ms == horizon
    t = as_of + later
    hot = HotView(high=Offsets({P0: len(log)}), low=Offsets({P0: cut}), entries=tuple(log[cut:]))
    found = membership_of(TINY, Segment("s", rule), PERSON, snapshot.row, snapshot.person(PERSON), hot, t)
    assert found.member == holds_at(rule, log, t)
    if not found.member:
        return
    want = by_every_millisecond(rule, log, t)
    if found.entered_before is None:
        assert found.entered_at == want
    else:
        assert found.entered_at is None
        assert horizon <= found.entered_before <= as_of
        assert want is None or want <= found.entered_before


# --- what is told beside it -------------------------------------------------------------------------------------------------------
T = 1_735_732_800_000


def order(event_id: str, at_ms: int, offset: int, broker_ms: int):
    return entry(event_id, at_ms, FactBody("order", amount_minor=1, currency="EUR"), offset=offset, broker_ms=broker_ms)


def membership(rule: str, *log, t: int = T, cut: int | None = None):
    segment = Segment("s", parse_rule(rule, CATALOGUE))
    row, person = START, None
    if cut is not None:
        snapshot = rebuild(CATALOGUE, "1/x", log[:cut], Offsets({P0: cut}), START, "n1", T)
        row, person = snapshot.row, snapshot.person(PERSON)
    hot = HotView(high=Offsets({P0: len(log)}), low=Offsets({P0: cut or 0}), entries=tuple(log[cut or 0 :]))
    return membership_of(CATALOGUE, segment, PERSON, row, person, hot, t)


def test_an_age_enters_in_the_millisecond_after_it():
    found = membership("orders_lifetime >= 1 and last_order_at older than 60 d", order("a", T - 70 * DAY_MS, 0, T))
    assert (found.member, found.entered_at, found.note) == (True, T - 10 * DAY_MS + 1, None)
    assert [(line.rule, line.holds) for line in found.clauses][1:] == [
        ("orders_lifetime >= 1", True),
        ("last_order_at older than 60 d", True),
    ]


@pytest.mark.parametrize("cut", [None, 1, 3])
@pytest.mark.parametrize(
    ("rule", "since"),
    [
        ("days_since_last_order >= 2", T - 5 * DAY_MS),
        ("days_since_last_order = 7", T),
        # At the midnight at which the second day without an activity begins; t is a noon.
        ("streak_days = 0", T - 5 * DAY_MS - DAY_MS // 2),
        ("days_since_last_order < 8 and orders_lifetime = 3", T - 7 * DAY_MS + 1),
    ],
)
def test_values_that_move_by_themselves_are_followed(rule, since, cut):
    log = [order(f"o{n}", T - (9 - n) * DAY_MS, n, T) for n in range(3)]
    found = membership(rule, *log, cut=cut)
    assert (found.member, found.entered_at, found.note) == (True, since, None)


def test_an_interruption_begins_it_anew():
    """Out for as long as the second order was young: the first entry does not count."""
    log = [order("a", T - 200 * DAY_MS, 0, T), order("b", T - 90 * DAY_MS, 1, T)]
    assert membership("last_order_at older than 60 d", *log).entered_at == T - 30 * DAY_MS + 1


def test_what_is_folded_bounds_it():
    """Lifetime features reach to the horizon, 35 days back; windows of 30 days to the grace, 5 days back."""
    log = [order("a", T - 90 * DAY_MS, 0, T)]
    found = membership("orders_lifetime >= 1", *log, cut=1)
    assert (found.entered_at, found.entered_before) == (None, T - 35 * DAY_MS) and found.note == "what lies before is folded"
    assert membership("orders_lifetime >= 1 and orders_30d = 0", *log, cut=1).entered_before == T - 5 * DAY_MS
    # What an old fact does later is known all the same.
    assert membership("last_order_at older than 80 d", *log, cut=1).entered_at == T - 10 * DAY_MS + 1
    # Nothing of the person is folded: everything is known.
    recent = [order("a", T - 20 * DAY_MS, 0, T)]
    assert membership("orders_lifetime >= 1", *recent, cut=1).entered_at == T - 20 * DAY_MS + 1


@pytest.mark.parametrize(
    ("rule", "note"),
    [
        ("interest.lamps is null", "interest moves all the time: since when is not known"),
        ("orders_lifetime = 0", "since before the first event"),
    ],
)
def test_where_there_is_no_instant_it_says_why(rule, note):
    found = membership(rule)
    assert (found.member, found.entered_at, found.entered_before, found.note) == (True, None, None, note)


def test_many_turns_are_followed_so_far(monkeypatch):
    monkeypatch.setattr("twofold.membership.MOST_LOOKS", 3)
    log = [order(f"o{n}", T - (10 + n) * DAY_MS, n, T) for n in range(10)]
    found = membership("orders_lifetime >= 1", *log)
    assert (found.entered_at, found.entered_before) == (None, T - 12 * DAY_MS + 1) and found.note == "followed over 3 instants"


def test_a_doubtful_duplicate_is_told():
    log = [order("a", T - 90 * DAY_MS, 0, T - 9), order("a", T - 90 * DAY_MS, 1, T - 9)]
    found = membership("orders_lifetime >= 1", *log, cut=1)
    assert found.member and found.entered_at is None and "duplicate" in (found.note or "")

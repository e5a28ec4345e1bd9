"""Retractions on histories written by hand: each sentence of docs/retractions.md."""

from __future__ import annotations

import json
import struct

import msgspec
import numpy as np
import pytest

from tests.unit.histories import T, entry
from tests.unit.test_merge import P0, P1, START, hot_view, night, order, read
from twofold.catalogue import CATALOGUE
from twofold.columns import FactColumns, id_hash
from twofold.events import Entry, FactBody
from twofold.explain import explain, with_raw
from twofold.explanation import Explanation, Retraction
from twofold.features import Catalogue, Feature, Primary, Select
from twofold.membership import membership_of
from twofold.pinned import PinnedAt, make_pinned, make_standing
from twofold.record import make_record
from twofold.retractions import pending_primaries
from twofold.rule_grammar import parse_rule
from twofold.segments import Segment
from twofold.states import Count, Sum
from twofold.testing import oracle
from twofold.testing.nights import rebuild
from twofold.testing.slices import extend, first_difference
from twofold.timeline import DAY_MS, Offsets
from twofold.views import HotView, ManifestRow, PersonSnapshot

OLD = T - 90 * DAY_MS
NEW = T - DAY_MS


def retraction(target: str, offset: int, event_id: str | None = None, at_ms: int = T - 7, partition: int = 1, **who) -> Entry:
    fact = FactBody("retraction", key=target)
    return entry(event_id or f"r{offset}", at_ms, fact, partition=partition, offset=offset, broker_ms=T - 7, **who)


def fact_of(event_id: str, at_ms: int, offset: int, fact: FactBody, broker_ms: int = T - 9) -> Entry:
    return entry(event_id, at_ms, fact, partition=0, offset=offset, broker_ms=broker_ms)


def consent(event_id: str, at_ms: int, offset: int, value: str = "granted") -> Entry:
    return fact_of(event_id, at_ms, offset, FactBody("consent", key="marketing", value=value))


def hot(*entries: Entry) -> HotView:
    """All of them above the cut, or around it; both partitions read to their ends."""
    return hot_view(*entries, high={P0: 9, P1: 9})


def states(record) -> set[str]:
    return set(record.fields.values())


# --- at once ------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("at_ms", [T - 400 * DAY_MS, NEW - 1, T - 1, T + 9, T + 4 * DAY_MS])
def test_its_own_time_plays_no_part(at_ms):
    bought = order("a", NEW, 100, 0, 0, T - 9)
    record, _merged = read(START, None, hot(bought, retraction("a", 0, at_ms=at_ms)))
    assert record.values["orders_lifetime"] == 0 and record.values["revenue_lifetime"] == {}
    assert states(record) == {"exact"}


@pytest.mark.parametrize("target_first", [True, False])
@pytest.mark.parametrize("cut", [0, 1])
def test_in_whichever_order_the_two_arrive(cut, target_first):
    bought, back = order("a", NEW, 100, 0, 0, T - 9), retraction("a", 0)
    below = {P0: cut, P1: 0} if target_first else {P0: 0, P1: cut}
    row, person = night(bought, back, order("z", NEW, 5, 0, 8, T - 9), cut=below, as_of_ms=T) if cut else (START, None)
    record, _merged = read(row, person, hot(bought, back))
    assert record.values["orders_lifetime"] == 0
    assert states(record) == {"exact"}
    assert record.freshness.state != "default"


def test_a_later_copy_does_not_bring_it_back():
    bought, back = order("a", NEW, 100, 0, 0, T - 9), retraction("a", 0)
    row, person = night(bought, back, cut={P0: 1, P1: 1}, as_of_ms=T)
    assert person.retracted_ids.tolist() == [id_hash("a")] and len(person.older_ids) == 0
    assert [row_ for row_ in person.recent.facts() if row_.kind == "order"] == []
    for broker_ms in (T - 10, T - 1):
        record, _merged = read(row, person, hot(bought, back, order("a", NEW, 200, 0, 1, broker_ms)))
        assert record.values["orders_lifetime"] == 0 and states(record) == {"exact"}


def test_twice_is_once_and_another_events_copy_acts_too():
    bought, other = order("a", NEW, 100, 0, 0, T - 9), order("b", NEW, 7, 0, 1, T - 9)
    # The second loses against the order `b` of its own id, and yet it retracts.
    record, _merged = read(START, None, hot(bought, other, retraction("a", 0), retraction("a", 1), retraction("a", 2, "b")))
    assert record.values["revenue_lifetime"] == {"USD": 7}
    record, _merged = read(START, None, hot(bought, other, retraction("a", 0, "b")))
    assert record.values["revenue_lifetime"] == {"USD": 7}


def test_a_retraction_cannot_be_taken_back():
    bought = order("a", NEW, 100, 0, 0, T - 9)
    log = (bought, retraction("a", 0, "back"), retraction("back", 1), retraction("back", 2, "back"))
    for cut in range(4):
        row, person = night(*log, cut={P0: 1, P1: cut}, as_of_ms=T)
        record, _merged = read(row, person, hot(*log))
        assert record.values["orders_lifetime"] == 0 and states(record) == {"exact"}


def test_another_persons_retraction_does_nothing():
    log = [order("a", NEW, 100, 0, 0, T - 9), retraction("a", 0, person="user:2")]
    mine = [e for e in oracle.winners(log, ["T"]) if e.person == "user:1"]
    assert oracle.values(mine, T)["orders_lifetime"] == 1
    row, person = night(*log, cut={P0: 1, P1: 1}, as_of_ms=T)
    assert person.retracted_ids.tolist() == []
    assert read(row, person, hot(log[0]))[0].values["orders_lifetime"] == 1


def test_a_copy_of_the_retractions_own_id_loses():
    """So a retraction stays in `recent`, and its id in `older_ids`, like any entry."""
    log = (retraction("a", 0, "back"), fact_of("back", NEW, 0, FactBody("order"), broker_ms=T - 1))
    for as_of_ms in (T, T + 60 * DAY_MS):
        row, person = night(*log, cut={P0: 0, P1: 1}, as_of_ms=as_of_ms)
        merged = read(row, person, hot(*log), t=as_of_ms)[1]
        assert merged.states["orders_lifetime"] == 0


def test_whoever_has_retracted_everything_is_still_known():
    bought, back = order("a", NEW, 100, 0, 0, T - 9), retraction("a", 0, "a")
    for view in (hot(bought, retraction("a", 0)), hot(bought, back)):
        assert read(START, None, view)[1].known


def test_a_retracted_opt_in_is_no_longer_one():
    log = (consent("c", NEW, 0), retraction("c", 0))
    assert read(START, None, hot(log[0]))[1].states["consent_marketing"] is not None
    record, _merged = read(START, None, hot(*log))
    assert "consent_missing" in record.sendable.reasons and record.values["consent_marketing"] is None


# --- pending ------------------------------------------------------------------------------------------------------------------
def test_what_is_folded_stays_until_the_next_batch_and_says_so():
    log = (order("a", OLD, 100, 0, 0, T - 9), fact_of("t", OLD, 1, FactBody("trait", key="tier", value="gold")), retraction("a", 0))
    row, person = night(*log, cut={P0: 2, P1: 0}, as_of_ms=T)
    record, merged = read(row, person, hot(*log))
    assert record.values["revenue_lifetime"] == {"USD": 100}
    touched = {name for name, state in record.fields.items() if state == "pending_retraction"}
    # Whatever has a part in what is folded: nobody knows what the event was.
    of_orders = {"orders_lifetime", "revenue_lifetime", "average_order", "first_order_at", "last_order_at"}
    assert touched == of_orders | {"days_since_last_order", "reorder_interval_days", "reorder_due", "tier"}
    assert states(record) == {"exact", "pending_retraction"}
    assert merged.counted.left_out.pending == ["a"] and merged.inexact == merged.pending
    after, settled = night(*log, cut={P0: 2, P1: 1}, as_of_ms=T)
    record, _merged = read(after, settled, hot(*log))
    assert record.values["revenue_lifetime"] == {} and record.values["tier"] == "gold" and states(record) == {"exact"}
    assert settled.older_ids.tolist() == [id_hash("t")]


def test_consent_that_waits_is_no_permission_and_consent_of_today_is():
    old, new = consent("c", OLD, 0), consent("d", NEW, 1)
    bought, back = order("a", OLD, 100, 0, 2, T - 9), retraction("a", 0)
    row, person = night(old, bought, cut={P0: 3, P1: 0}, as_of_ms=T)
    record, _merged = read(row, person, hot(back))
    assert record.fields["consent_marketing"] == "pending_retraction" and "consent_inexact" in record.sendable.reasons
    assert record.next_change_at == OLD + 91 * DAY_MS  # Only the age of the order in doubt moves.
    row, person = night(new, bought, cut={P0: 3, P1: 0}, as_of_ms=T)
    record, _merged = read(row, person, hot(back))
    assert record.fields["consent_marketing"] == "exact" and "consent_inexact" not in record.sendable.reasons
    assert record.fields["orders_lifetime"] == "pending_retraction"


def test_a_doubtful_copy_of_a_retracted_event_marks_nothing_and_of_another_all():
    folded, other = order("a", OLD, 100, 0, 0, T - 9), order("b", OLD, 5, 0, 1, T - 9)
    row, person = night(folded, other, cut={P0: 2, P1: 0}, as_of_ms=T)
    doubtful = order("a", NEW, 200, 1, 1, T - 10)
    record, merged = read(row, person, hot(doubtful, retraction("a", 0)))
    assert merged.conflict == frozenset() and record.fields["orders_30d"] == "exact" and record.values["orders_30d"] == 0
    assert record.fields["orders_lifetime"] == "pending_retraction"
    record, merged = read(row, person, hot(order("b", NEW, 6, 1, 1, T - 10), retraction("a", 0)))
    # Both touch it: in conflict any value may be right, which promises less.
    assert record.fields["orders_lifetime"] == "conflict" and record.fields["orders_30d"] == "conflict"
    assert merged.pending < merged.conflict


def test_a_zero_of_a_sum_may_hide_facts():
    order_ = Select(("order",))
    both = Catalogue([Primary("sum", Sum("quantity"), order_), Primary("count", Count(), order_)], [Feature("sum", "s", "sum")])
    merged = read(*night(order("a", OLD, 1, 0, 0, T - 9), cut={P0: 1, P1: 0}, as_of_ms=T), hot(retraction("a", 0)))[1]
    assert pending_primaries(both, PersonSnapshot(), merged.counted.left_out) == {"sum"}


# --- the snapshot -------------------------------------------------------------------------------------------------------------
def test_retracted_ids_are_packed_and_a_blob_from_before_is_read():
    columns = FactColumns.of_entries([(order("z", NEW, 1, 0, 0, T), 0)])
    ids, gone = np.array([-5, 7], dtype=np.int64), np.array([-9, 1, 3], dtype=np.int64)
    found = PersonSnapshot.unpack(PersonSnapshot({"orders_lifetime": 3}, ids, columns, gone).pack())
    assert (found.older, found.older_ids.tolist(), found.retracted_ids.tolist()) == ({"orders_lifetime": 3}, [-5, 7], [-9, 1, 3])
    assert found.recent.pack() == columns.pack()
    before = struct.pack("<4sII4x", b"TFP1", 2, 0) + ids.tobytes() + columns.pack()
    found = PersonSnapshot.unpack(before)
    assert (found.older_ids.tolist(), found.retracted_ids.tolist(), found.recent.pack()) == ([-5, 7], [], columns.pack())


def test_of_nothing_is_counted_kept_and_works_when_its_target_comes():
    log = (order("a", NEW, 100, 0, 0, T - 9), retraction("a", 0), retraction("ghost", 1), retraction("ghost", 2))
    row, person = night(*log, cut={P0: 1, P1: 3}, as_of_ms=T)
    assert (row.counts["retractions"], row.counts["retractions_of_nothing"]) == (2, 1)
    assert person.retracted_ids.tolist() == sorted(map(id_hash, ("a", "ghost")))
    record, merged = read(row, person, hot(*log, order("ghost", NEW, 9, 0, 1, T - 1)))
    assert record.values["orders_lifetime"] == 0 and merged.counted.left_out.nothing == []
    _record, merged = read(START, None, hot(*log))
    assert merged.counted.left_out.nothing == ["ghost"]
    # What the batch has counted is not counted again.
    _record, merged = read(row, person, hot(*log, retraction("ghost", 4)))
    assert merged.counted.left_out.nothing == []


def test_an_incremental_night_folds_who_retracts_the_folded_anew():
    log = [order("a", OLD, 100, 0, 0, T - 9), order("b", OLD, 5, 0, 1, T - 9), retraction("a", 0)]
    first = night_of(log, {P0: 2, P1: 0})
    full = night_of(log, {P0: 2, P1: 1}, first.row)
    extended = extend(CATALOGUE, "1/x", log, Offsets({P0: 2, P1: 1}), first, "n2", T)
    assert first_difference(extended, full) is None
    assert extended.person("user:1").older["revenue_lifetime"] == {"USD": 5}


def night_of(log: list[Entry], cut: dict, parent: ManifestRow = START):
    return rebuild(CATALOGUE, "1/x", log, Offsets(cut), parent, "n", T)


# --- pins, segments -------------------------------------------------------------------------------------------------------------
def test_under_a_pin_the_pinned_offsets_decide_and_consent_is_current():
    log = (order("a", NEW, 100, 0, 0, T - 9), consent("c", NEW, 1), retraction("a", 0), retraction("c", 1))
    pinned_row, pinned_person = night(*log, cut={P0: 2, P1: 0}, as_of_ms=T)
    at = PinnedAt("p", "n1", {}, {}, T, T, "1/x", "hot")
    view = hot(*log)
    standing_merged = read(pinned_row, pinned_person, view)[1]
    standing = make_standing(CATALOGUE, pinned_row, standing_merged, view, T, T, 10_000, 60_000)
    for high, orders in ((0, 1), (1, 0)):
        bound = hot_view(*log, high={P0: 2, P1: high})
        record = make_pinned(CATALOGUE, "user:1", at, pinned_row, read(pinned_row, pinned_person, bound)[1], standing)
        assert record.values["orders_lifetime"] == orders
        assert record.values["consent_marketing"] is None and "consent_missing" in record.sendable.reasons


def test_a_segment_forgets_a_retracted_event_for_ever_and_knows_when_it_cannot():
    rule = Segment("buyer", parse_rule("orders_lifetime >= 1", CATALOGUE))
    log = (order("a", NEW, 100, 0, 0, T - 9), order("b", T - 9, 1, 0, 1, T - 9), retraction("a", 0))
    found = membership_of(CATALOGUE, rule, "user:1", START, None, hot(*log), T)
    assert found.member and found.entered_at == T - 8
    row, person = night(order("a", OLD, 100, 0, 0, T - 9), cut={P0: 1, P1: 0}, as_of_ms=T)
    found = membership_of(CATALOGUE, rule, "user:1", row, person, hot(retraction("a", 0)), T)
    assert found.member and (found.entered_at, found.entered_before) == (None, None)
    assert found.note == "a retraction may change these values at the next batch"


# --- what is told ---------------------------------------------------------------------------------------------------------------
def told(row, person, *entries: Entry, field: str = "orders_lifetime") -> Explanation:
    view = hot(*entries)
    record, merged = read(row, person, view)
    assert record == make_record(CATALOGUE, "user:1", row, merged, view, T, T, 10_000, 60_000)
    found = explain(CATALOGUE, record, field, row, merged, view)
    archived = [(e, json.dumps(e.event_id).encode()) for e in entries]
    return with_raw(CATALOGUE, found, row, merged.offsets, archived, merged.offsets)


def test_a_retracted_event_is_told_with_the_retractions_position():
    bought, back = order("a", NEW, 100, 0, 0, T - 9), retraction("a", 3)
    for row, person in ((START, None), night(bought, cut={P0: 1, P1: 0}, as_of_ms=T)):
        found = told(row, person, bought, back, retraction("ghost", 4))
        ((suppressed,), raw) = found.suppressed, found.raw
        assert (suppressed.event_id, suppressed.why, suppressed.winner) == ("a", "retracted", None)
        assert (suppressed.place.partition, suppressed.place.offset) == (0, 0)
        assert (suppressed.retraction.partition, suppressed.retraction.offset, suppressed.retraction.layer) == (1, 3, "hot")
        assert [(r.event_id, r.retraction) for r in raw.retracted] == [("a", suppressed.retraction)] and raw.events == ()
        assert [r.target for r in found.nothing] == ["ghost"]


def test_what_the_batch_left_out_is_told_from_the_archive():
    bought, back = order("a", NEW, 100, 0, 0, T - 9), retraction("a", 3)
    row, person = night(bought, back, cut={P0: 1, P1: 4}, as_of_ms=T)
    copy = order("a", NEW, 100, 0, 1, T - 1)
    found = told(row, person, bought, back, copy)
    (suppressed,) = found.suppressed
    # The retraction is still among the recent facts.
    assert (suppressed.place.offset, suppressed.retraction.offset, suppressed.retraction.layer) == (1, 3, "batch")
    assert [(r.place.offset, r.place.layer, r.retraction.offset) for r in found.raw.retracted] == [(0, "batch", 3), (1, "hot", 3)]
    without = PersonSnapshot(person.older, person.older_ids, FactColumns.of_entries(()), person.retracted_ids)
    assert told(row, without, copy).suppressed[0].retraction is None


def test_a_pending_one_is_told_in_the_older_part():
    bought, back = order("a", OLD, 100, 0, 0, T - 9), retraction("a", 3)
    row, person = night(bought, cut={P0: 1, P1: 0}, as_of_ms=T)
    found = told(row, person, bought, back)
    assert found.state == "pending_retraction" and found.suppressed == found.nothing == ()
    (part,) = found.parts
    ((target, place),) = [msgspec.structs.astuple(r) for r in part.older.pending]
    assert (target, place.offset) == ("a", 3) and isinstance(part.older.pending[0], Retraction)
    assert found.raw.retracted == () and [(r.event_id, r.retraction.offset) for r in found.raw.older] == [("a", 3)]

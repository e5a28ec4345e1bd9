"""The merge on histories written by hand: what the simulator found, and what the contract says in so many words."""

from __future__ import annotations

import pytest

from tests.unit.histories import T, entry
from twofold.catalogue import CATALOGUE
from twofold.events import FactBody
from twofold.merge import find_gap, merge
from twofold.record import lag_ms, make_record
from twofold.testing.nights import rebuild
from twofold.timeline import DAY_MS, Offsets, PartitionKey
from twofold.views import Heartbeat, HotView, ManifestRow, PersonSnapshot, empty_manifest

P0, P1 = PartitionKey("T", 0), PartitionKey("T", 1)
START = empty_manifest(Offsets({P0: 0, P1: 0}), "1/x")
PERSON = "user:1"


def order(event_id: str, at_ms: int, minor: int, partition: int, offset: int, broker_ms: int, topic: str = "T"):
    fact = FactBody("order", amount_minor=minor, currency="USD")
    return entry(event_id, at_ms, fact, topic=topic, partition=partition, offset=offset, broker_ms=broker_ms)


def hot_view(*entries, high: dict[PartitionKey, int], low: dict[PartitionKey, int] | None = None) -> HotView:
    return HotView(high=Offsets(high), low=Offsets(low if low is not None else dict.fromkeys(high, 0)), entries=entries)


def read(row: ManifestRow, person: PersonSnapshot | None, hot: HotView, t: int = T):
    merged = merge(CATALOGUE, row, person, hot, t)
    return make_record(CATALOGUE, PERSON, row, merged, hot, t, t, 10_000, 60_000), merged


def night(*entries, cut: dict[PartitionKey, int], as_of_ms: int | None = None):
    snapshot = rebuild(CATALOGUE, "1/x", entries, Offsets(cut), START, "n1", as_of_ms)
    return snapshot.row, snapshot.person(PERSON)


# --- duplicates ---------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("hot_broker_ms", "right"), [(T - 10, 200), (T - 8, 100)])
def test_the_copy_with_the_lower_broker_time_wins_wherever_it_stands(hot_broker_ms, right):
    folded = order("a", T - DAY_MS, 100, 0, 0, T - 9)
    row, person = night(folded, cut={P0: 1, P1: 0})
    record, _merged = read(row, person, hot_view(order("a", T - DAY_MS, 200, 1, 0, hot_broker_ms), high={P0: 1, P1: 1}))
    assert record.values["revenue_lifetime"] == {"USD": right}
    assert record.values["orders_lifetime"] == 1
    assert set(record.fields.values()) == {"exact"}


def test_of_equal_broker_times_the_lower_partition_wins():
    folded = order("a", T - DAY_MS, 100, 1, 0, T - 9)
    row, person = night(folded, cut={P0: 0, P1: 1})
    record, _merged = read(row, person, hot_view(order("a", T - DAY_MS, 200, 0, 0, T - 9), high={P0: 1, P1: 1}))
    assert record.values["revenue_lifetime"] == {"USD": 200}


def older_and_copy(copy_broker_ms: int, copy_at_ms: int):
    folded = order("a", T - 90 * DAY_MS, 100, 0, 0, T - 9)
    row, person = night(folded, cut={P0: 1, P1: 0}, as_of_ms=T)
    assert row.cut_time_ms == T - 9
    return read(row, person, hot_view(order("a", copy_at_ms, 200, 1, 0, copy_broker_ms), high={P0: 1, P1: 1}))


@pytest.mark.parametrize("copy_broker_ms", [T - 10, T - 9])
def test_a_copy_that_may_beat_a_folded_one_marks_lifetime_fields(copy_broker_ms):
    record, _merged = older_and_copy(copy_broker_ms, T - 80 * DAY_MS)
    assert record.fields["revenue_lifetime"] == record.fields["average_order"] == record.fields["consent_marketing"] == "conflict"
    assert record.fields["orders_30d"] == "exact"
    assert "consent_inexact" in record.sendable.reasons


def test_a_restamped_copy_marks_the_windows_that_it_would_fall_into():
    # If the copy is the first, it counts in the last 30 days; the folded one never does.
    record, _merged = older_and_copy(T - 10, T - DAY_MS)
    assert record.fields["orders_30d"] == "conflict"
    assert record.fields["page_views_30d"] == record.fields["units_30d"] == "exact"


def test_a_copy_of_after_the_cut_loses_without_a_mark():
    record, _merged = older_and_copy(T - 8, T - DAY_MS)
    assert set(record.fields.values()) == {"exact"}
    assert record.values["revenue_lifetime"] == {"USD": 100}
    assert record.values["orders_30d"] == 0


# --- what stands in the way -----------------------------------------------------------------------------------------------------
def test_a_topic_that_no_manifest_names_fails_closed():
    """Found by the simulator: entries of a recreated topic counted before anyone had adopted it."""
    old, new = order("a", T - DAY_MS, 100, 0, 0, T - 9), order("b", T - DAY_MS, 200, 0, 0, T - 8, topic="U")
    row, person = night(old, cut={P0: 1, P1: 0})
    hot = hot_view(new, high={P0: 1, PartitionKey("U", 0): 1})
    assert find_gap(row, hot) == [PartitionKey("U", 0)]
    record, merged = read(row, person, hot)
    assert merged.outcome == "gap"
    assert merged.offsets == row.cut
    assert record.values["revenue_lifetime"] == {"USD": 100}
    assert record.sendable.reasons[0] == "state_gap"


def test_a_partition_that_the_cut_does_not_name_has_cut_0():
    row, person = night(order("a", T - DAY_MS, 100, 0, 0, T - 9), cut={P0: 1, P1: 0})
    grown = PartitionKey("T", 2)
    late = order("b", T - DAY_MS, 200, 2, 0, T - 8)
    record, merged = read(row, person, hot_view(late, high={P0: 1, grown: 1}))
    assert merged.outcome == "ok"
    assert record.values["revenue_lifetime"] == {"USD": 300}
    _record, merged = read(row, person, hot_view(high={P0: 1, grown: 1}, low={P0: 0, grown: 1}))
    assert merged.outcome == "gap"


# --- freshness --------------------------------------------------------------------------------------------------------------------
def test_the_cuts_time_bounds_no_other_partitions_lag():
    """Found by the simulator: the record said fresh while an entry of twelve days ago was missing.

    Partition 1 lags in the archive; its newest entry below the cut is as old as the log, the cut's time is partition 0's.
    """
    row, _person = night(order("a", T - DAY_MS, 100, 0, 0, T - 9), cut={P0: 1, P1: 0})
    beat = Heartbeat(T, Offsets({P0: 1, P1: 1}))
    hot = HotView(high=Offsets({P0: 0, P1: 0}), low=Offsets({P0: 0, P1: 0}), heartbeat=beat)
    lag = lag_ms(row, hot, T)
    assert lag is not None
    assert lag >= 12 * DAY_MS


def test_an_idle_log_is_no_lag_and_a_dead_follower_is():
    row, _person = night(order("a", T - DAY_MS, 100, 0, 0, T - 9), cut={P0: 1, P1: 0})
    hot = HotView(high=Offsets({P0: 1, P1: 0}), low=Offsets({P0: 0, P1: 0}), heartbeat=Heartbeat(T, Offsets({P0: 1, P1: 0})))
    assert lag_ms(row, hot, T) == 0
    assert lag_ms(row, hot, T + 70_000) == 70_000

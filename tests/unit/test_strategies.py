"""What the strategies draw could have come from the broker, and reaches the corners that they promise."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.histories import EMPTY
from twofold.events import FACT_KINDS, MAX_FUTURE_MS
from twofold.testing import oracle, strategies
from twofold.timeline import DAY_MS, PartitionKey

LATE_ENOUGH_MS = strategies.NOW_MS + 5 * DAY_MS


@given(strategies.histories(topics=("t1", "t2")))
def test_a_history_is_a_log(log):
    assert len({e.position for e in log}) == len(log)
    by_partition = {}
    for e in log:
        by_partition.setdefault((e.topic_id, e.partition), []).append(e)
        if e.verdict == "ok":
            assert e.person and e.event_id and e.facts and e.at_ms <= e.broker_ms + MAX_FUTURE_MS
        else:
            assert not e.facts
    for entries in by_partition.values():
        assert all(a.offset < b.offset and a.broker_ms <= b.broker_ms for a, b in pairwise(entries))


@given(st.data())
def test_a_recomputation_does_not_depend_on_delivery(data):
    log = data.draw(strategies.histories(topics=("t1", "t2")))
    t = data.draw(strategies.instants(log))
    cut = data.draw(strategies.cuts(log))
    expected = list(oracle.recompute_entries(log, None, t, ("t1", "t2"), upto=cut))
    again = data.draw(strategies.deliveries(log))
    assert list(oracle.recompute_entries(again, None, t, ("t1", "t2"), upto=cut)) == expected
    below = [e for e in log if e.offset < cut.next(PartitionKey(e.topic_id, e.partition))]
    assert list(oracle.recompute_entries(below, None, t, ("t1", "t2"))) == expected
    assert all(list(record["values"]) == list(EMPTY) for _person, record in expected)


@given(st.data())
def test_vectors_stay_within_the_log(data):
    log = data.draw(strategies.histories())
    cut, high = data.draw(strategies.cut_and_high(log))
    end = strategies.log_end(log)
    assert end.covers(cut) and end.covers(high)
    assert all(end.holds(e.position) for e in log)
    assert data.draw(strategies.cuts(log, at_least=cut)).covers(cut)


@given(strategies.raw_lines())
def test_raw_events_are_admitted(lines):
    for e in oracle.admit_lines(lines, broker_ms=LATE_ENOUGH_MS):
        assert e.verdict == "ok", lines[e.offset]


def _copies(log):
    by_id = {}
    for e in log:
        if e.verdict == "ok":
            by_id.setdefault((e.person, e.event_id), []).append(e)
    return [pair for copies in by_id.values() for pair in pairwise(copies)]


CORNERS = {
    "a copy with another body": lambda log: any(a.facts != b.facts for a, b in _copies(log)),
    "a copy with another time": lambda log: any(a.at_ms != b.at_ms for a, b in _copies(log)),
    "a copy in another partition": lambda log: any(a.partition != b.partition for a, b in _copies(log)),
    "a later copy of lower rank": lambda log: any(b.broker_ms < a.broker_ms for a, b in _copies(log)),
    "an exact copy": lambda log: any((a.at_ms, a.facts) == (b.at_ms, b.facts) for a, b in _copies(log)),
    "a tie of different events": lambda log: any(
        a.at_ms == b.at_ms and a.event_id != b.event_id for a, b in pairwise([e for e in log if e.verdict == "ok"])
    ),
    "sixty days late": lambda log: any(e.verdict == "ok" and e.broker_ms - e.at_ms > 50 * DAY_MS for e in log),
    "a hole": lambda log: any(b.offset > a.offset + 1 for a, b in pairwise(log) if a.partition == b.partition),
    "a rejection": lambda log: any(e.verdict != "ok" for e in log),
    "a negative purchase": lambda log: any(f.kind == "purchase" and f.quantity < 0 for e in log for f in e.facts),
    "two currencies": lambda log: len({f.currency for e in log for f in e.facts if f.kind == "order" and f.amount_minor}) > 1,
    "a retraction of an earlier event": lambda log: any(
        b.target is not None and (a.person, a.event_id) == (b.person, b.target) for n, b in enumerate(log) for a in log[:n]
    ),
    "a retraction of a later event": lambda log: any(
        b.target is not None and (a.person, a.event_id) == (b.person, b.target) for n, b in enumerate(log) for a in log[n + 1 :]
    ),
    "a retraction of another person's event only": lambda log: any(
        b.target is not None
        and b.target in {a.event_id for a in log}
        and (b.person, b.target) not in {(a.person, a.event_id) for a in log}
        for b in log
    ),
    "a retraction of nothing": lambda log: any(b.target not in {None, *(a.event_id for a in log)} for b in log),
    "a purchase of no product": lambda log: any(f.kind == "purchase" and f.product is None for e in log for f in e.facts),
}


@pytest.mark.slow
def test_every_kind_and_every_corner_is_reached():
    seen = set()

    # So many in any profile: what is tested is that they are enough.
    @settings(max_examples=400, derandomize=True)
    @given(strategies.histories(), strategies.raw_lines())
    def look(log, lines):
        seen.update(name for name, reached in CORNERS.items() if reached(log))
        seen.update(f"entry of {f.kind}" for e in log for f in e.facts)
        seen.update(f"event of {f.kind}" for e in oracle.admit_lines(lines) for f in e.facts)

    look()
    assert {*CORNERS, *(f"{how} of {kind}" for how in ("entry", "event") for kind in FACT_KINDS)} - seen == set()

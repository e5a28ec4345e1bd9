"""Retractions natively, one person a case: the set merge at every cut, and each night two ways, against plain Python."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import NamedTuple

import pytest
from pyspark.sql import functions as F

from tests.spark.test_batch import TOPIC, decoded, page, plain_state
from tests.spark.test_incremental import InMemory, as_of, interpreted  # noqa: F401  (a fixture)
from twofold.catalogue import CATALOGUE
from twofold.columns import id_hash
from twofold.events import Entry, FactBody
from twofold.features import Catalogue
from twofold.spark.cut import judged_entries
from twofold.spark.incremental import differing, night_rows
from twofold.spark.present import TO_JSON, field_states
from twofold.spark.set_merge import merge_people
from twofold.spark.state_rows import STATE, ok_entries
from twofold.testing import oracle
from twofold.testing.strategies import NOW_MS
from twofold.timeline import DAY_MS, HOUR_MS

pytestmark = pytest.mark.spark

_NAMES = ("orders_lifetime", "revenue_lifetime", "orders_30d", "first_name")
SOME = Catalogue([CATALOGUE.primaries[name] for name in _NAMES], [CATALOGUE.features[name] for name in _NAMES])
NIGHTS = 4
NEW = NOW_MS - DAY_MS
#: Folded before the horizon by the first night.
OLD = SOME.horizon(as_of(0), 5) - 60 * DAY_MS
#: Recent in the first two nights, folded by the third.
EDGE = SOME.horizon(as_of(1), 5) + 12 * HOUR_MS


class Sent(NamedTuple):
    night: int
    event_id: str
    at_ms: int
    fact: FactBody


def order(night: int, event_id: str, at_ms: int = NEW) -> Sent:
    return Sent(night, event_id, at_ms, FactBody("order", amount_minor=100 + night, currency="EUR"))


def back(night: int, target: str, event_id: str = "r", at_ms: int = NEW - 7) -> Sent:
    return Sent(night, event_id, at_ms, FactBody("retraction", key=target))


#: Person -> what they send, each in its night; and how many orders are left in the end.
CASES: dict[str, tuple[int, list[Sent]]] = {
    "hot": (0, [order(1, "a"), back(1, "a")]),
    "hot, before it came": (0, [back(1, "a"), order(1, "a")]),
    "recent": (0, [order(0, "a"), back(1, "a")]),
    "below the cut": (0, [order(0, "a"), back(0, "a")]),
    "below the cut, before it came": (0, [back(0, "a"), order(0, "a")]),
    "below the cut, old": (0, [order(0, "a", OLD), back(0, "a")]),
    "folded": (0, [order(0, "a", OLD), back(1, "a")]),
    "folded, with others": (2, [order(0, "a", OLD), order(0, "b", OLD), order(1, "c"), back(1, "a")]),
    "awaited for a night": (0, [back(0, "a"), order(1, "a")]),
    "awaited for nights": (0, [back(0, "a"), order(3, "a")]),
    "awaited for nights, old": (0, [back(0, "a"), order(3, "a", OLD)]),
    "nothing": (1, [order(0, "b"), back(0, "x"), back(1, "y", "s"), back(1, "x", "t")]),
    "twice": (1, [order(0, "a"), order(0, "b"), back(1, "a"), back(1, "a"), back(2, "a", "s")]),
    "folded, twice": (1, [order(0, "a", OLD), order(0, "b", OLD), back(1, "a"), back(1, "a", "s"), back(2, "a", "t")]),
    "retraction taken back": (0, [order(0, "a"), back(0, "a"), back(1, "r", "s"), back(2, "s", "t")]),
    "folded retraction taken back": (1, [order(0, "a", OLD), order(0, "b", OLD), back(0, "a", at_ms=OLD), back(1, "r", "s")]),
    "retraction taken back before it came": (0, [back(0, "r", "s"), order(0, "a"), back(1, "a")]),
    "copies afterwards": (0, [order(0, "a"), back(1, "a"), order(2, "a"), order(3, "a", OLD)]),
    "folded, a copy afterwards": (0, [order(0, "a", OLD), back(1, "a"), order(2, "a")]),
    "by a copy of another event": (1, [order(0, "a"), order(0, "b"), back(1, "a", "b")]),
    "by a copy of itself": (0, [order(0, "a"), back(1, "a", "a")]),
    "in the night that folds it": (1, [order(0, "a", EDGE), order(0, "b", EDGE), back(2, "a")]),
    "after the night that folded it": (1, [order(0, "a", EDGE), order(0, "b", EDGE), back(3, "a")]),
    "somebody's": (1, [order(0, "a")]),
    "somebody else": (0, [back(0, "a"), back(1, "a", "s")]),
}
#: Cut of a night -> whose older part holds what is taken back above it. Of the folded retraction nobody knows what it was.
PENDING = {
    0: {"folded", "folded, with others", "folded, twice", "folded retraction taken back", "folded, a copy afterwards"},
    1: set(),
    2: {"after the night that folded it"},
    3: set(),
}


def nights() -> list[list[Entry]]:
    """The log by nights, in one partition."""
    out: list[list[Entry]] = [[] for _ in range(NIGHTS)]
    offset = 0
    for night in range(NIGHTS):
        for person, (_left, sent) in CASES.items():
            for one in sent:
                if one.night == night:
                    broker_ms, fact = as_of(night) - HOUR_MS + offset, (one.fact,)
                    out[night].append(page(offset, person, broker_ms=broker_ms, event_id=one.event_id, at_ms=one.at_ms, facts=fact))
                    offset += 1
    return out


@pytest.fixture
def log(interpreted) -> InMemory:  # noqa: F811
    return InMemory(interpreted, nights(), SOME)


ENTRIES = [entry for night in nights() for entry in night]


def merged(log: InMemory, night: int, upto: int, t: int) -> dict[str, tuple[dict, dict]]:
    """Person -> values and states of fields: the snapshot of a night ⊕ the entries from its cut to that of ``upto``."""
    row = log.row(night)
    row = replace(row, cut_time_ms=max(entry.broker_ms for entry in ENTRIES if row.cut.holds(entry.position)))
    hot = ok_entries(judged_entries(log.archive, log.cuts[upto], row.cut), (TOPIC,))
    people = merge_people(log.full(night), hot, row, SOME, t)
    fields = F.to_json(field_states(SOME, F.col("conflict"), F.col("pending"))).alias("fields")
    json_ = F.to_json("values", TO_JSON).alias("json")
    return {r.person: (json.loads(r.json), json.loads(r.fields)) for r in people.select("person", fields, json_).collect()}


@pytest.mark.parametrize(("night", "upto"), [(0, 1), (0, 3), (1, 2), (1, 3), (2, 3), (3, 3)])
def test_every_case_above_every_cut(log, night, upto):
    t = as_of(night) + 1
    found = merged(log, night, upto, t)
    right = dict(oracle.recompute_entries(ENTRIES, None, t, [TOPIC], upto=log.cuts[upto]))
    assert sorted(found) == sorted(right)
    for person, (values, fields) in found.items():
        waits = person in PENDING[night]
        state = "pending_retraction" if waits else "exact"
        # Nobody's older part has a name, and no window reaches below the horizon.
        assert fields == {name: state if name.endswith("lifetime") else "exact" for name in _NAMES}, person
        for name in _NAMES:
            if fields[name] == "exact":
                assert values[name] == right[person]["values"][name], (person, name)
        if waits:
            held = [s for s in CASES[person][1] if s.fact.kind == "order" and s.night <= upto]
            still = {s.event_id for s in held if s.at_ms == OLD or s.at_ms == EDGE} | {s.event_id for s in held if s.night > night}
            gone = {"a"} if person == "folded retraction taken back" else set()
            assert values["orders_lifetime"] == len(still - gone), person
        elif upto == NIGHTS - 1:
            assert values["orders_lifetime"] == CASES[person][0], person


def test_every_night_two_ways(log):
    """A night on the last one, and a fold of all, each with just what plain Python keeps of a person."""
    state, anew = log.full(0), []
    for number in range(NIGHTS):
        full = log.full(number)
        if number:
            with night_rows(log.night(number - 1, number, state)) as (rows, touched):
                state = rows.select(*STATE).localCheckpoint()
            anew.append(touched.anew)
        assert [row.person for row in differing(state, full).collect()] == [], number
        below = [entry for entry in ENTRIES if log.cuts[number].holds(entry.position)]
        expected = plain_state(below, log.row(number).horizon_ms, catalogue=SOME)
        found = {row.person: row for row in state.collect()}
        assert sorted(found) == sorted(expected)
        for person, (older, older_ids, recent, retracted_ids) in expected.items():
            row = found[person]
            assert decoded(json.loads(row.older_json)) == older, (number, person)
            assert (row.older_ids, row.retracted_ids) == (older_ids, retracted_ids), (number, person)
            assert [entry.event_id for entry in row.recent] == [entry.event_id for entry in recent], (number, person)
            came = {id_hash(entry.event_id) for entry in below if entry.person == person}
            assert row.awaited_ids == [one for one in retracted_ids if one not in came], (number, person)
    assert anew == [len(PENDING[0]), len(PENDING[1]), len(PENDING[2])]

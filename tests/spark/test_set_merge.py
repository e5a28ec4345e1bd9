"""The native merge of many people equals the library's, person by person, at every instant: values, permission, conflicts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from pyspark.sql import functions as F

from twofold.catalogue import CATALOGUE
from twofold.events import Entry, FactBody
from twofold.merge import merge
from twofold.record import Record, make_record
from twofold.spark.admission import FACTS_TYPE
from twofold.spark.present import TO_JSON, field_states, next_change_ms, sendable_reasons
from twofold.spark.set_merge import merge_people
from twofold.spark.state_rows import STATE, state_rows
from twofold.stores.memory import MemorySnapshot
from twofold.testing.nights import rebuild
from twofold.testing.oracle import winners
from twofold.testing.strategies import NOW_MS, histories, log_end
from twofold.timeline import DAY_MS, HOUR_MS, Offsets, PartitionKey
from twofold.views import Heartbeat, HotView, empty_manifest

pytestmark = pytest.mark.spark

TOPIC = "topic-a"
#: The cut of every partition.
FAR = 1_000_000
ENTRIES = (
    "person string, event_id string, at_ms bigint, broker_ms bigint, topic int, partition int, offset bigint,"
    f"channel string, device string, facts {FACTS_TYPE}"
)
BODY = ("kind", "product", "category", "campaign", "amount_minor", "currency", "quantity", "key", "value")
START = empty_manifest(Offsets({PartitionKey(TOPIC, p): 0 for p in range(3)}), "1/test")
#: Around the catalogue's edges, and far after them.
INSTANTS = (NOW_MS - 5 * DAY_MS, NOW_MS - 1, NOW_MS, NOW_MS + 1, NOW_MS + HOUR_MS, NOW_MS + 7 * DAY_MS, NOW_MS + 400 * DAY_MS + 777)


def row_of(entry: Entry) -> tuple:
    facts = [tuple(getattr(fact, name) for name in BODY) for fact in entry.facts]
    places = (entry.at_ms, entry.broker_ms, 0, entry.partition, entry.offset)
    return (entry.person, entry.event_id, *places, entry.channel, entry.device, facts)


class Night:
    """Many drawn histories as one log, cut in its middle: what Python and Spark make of it."""

    def __init__(self, spark: Any, examples: int) -> None:
        self.log: list[Entry] = []

        @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
        @given(histories(max_entries=30))
        def draw(drawn: list[Entry]) -> None:
            number = len(self.log)
            for place, entry in enumerate(drawn):
                fields = {name: getattr(entry, name) for name in entry.__struct_fields__}
                # Each history is cut in its own middle: the first half of everyone's entries lies below the cut.
                fields["offset"] = len(self.log) + (0 if place < len(drawn) // 2 else FAR)
                fields["person"] = None if entry.person is None else f"{entry.person}/{number}"
                self.log.append(Entry(**fields))
            # Arrival order seldom gives a hot copy that beats a folded one: planted, with another body.
            folded = next((e for e in self.log[number:] if e.verdict == "ok" and e.offset < FAR), None)
            if folded is not None and number % 3 == 0:
                fields = {name: getattr(folded, name) for name in folded.__struct_fields__}
                fields |= {"partition": (folded.partition + 1) % 3, "offset": len(self.log) + FAR, "facts": self.log[-1].facts}
                self.log.append(Entry(**{**fields, "broker_ms": folded.broker_ms - 1}))
            for place, target in enumerate([e for e in self.log[number:] if e.verdict == "ok"]):
                if place % 4 == number % 4:
                    self._take_back(target, below=place % 3 == 0)

        draw()
        self.end = START.cut.join(log_end(self.log))
        cut = Offsets(dict.fromkeys(self.end, FAR))
        self.snapshot: MemorySnapshot = rebuild(CATALOGUE, "1/test", self.log, cut, START, "n1", NOW_MS)
        self.row = self.snapshot.row
        ok = [entry for entry in self.log if entry.verdict == "ok"]
        below = spark.createDataFrame([row_of(e) for e in ok if cut.holds(e.position)], ENTRIES)
        self.state = state_rows(below, CATALOGUE, self.row.horizon_ms, 2).select(*STATE).cache()
        self.hot = spark.createDataFrame([row_of(e) for e in ok if not cut.holds(e.position)], ENTRIES)
        self.by_person: dict[str, list[Entry]] = {}
        for entry in ok:
            self.by_person.setdefault(entry.person or "", []).append(entry)

    def _take_back(self, target: Entry, below: bool) -> None:
        """A drawn retraction seldom meets its target: planted, of whatever lies anywhere, before or after it comes; some twice."""
        number = len(self.log)
        fields = {name: getattr(target, name) for name in target.__struct_fields__}
        fields |= {"event_id": f"back{number}", "offset": number + (0 if below else FAR), "at_ms": target.at_ms + DAY_MS}
        fields |= {"broker_ms": target.broker_ms + (-5, 5)[number % 2], "facts": (FactBody("retraction", key=target.event_id),)}
        self.log.append(Entry(**fields))
        if number % 3 == 0:
            self.log.append(Entry(**{**fields, "offset": len(self.log) + FAR}))

    def library(self, t: int, hot: bool) -> Iterator[tuple[Record, Any]]:
        """The library's records: everyone's with the hot entries, else those of the snapshot alone at O = cut."""
        people = sorted(self.by_person) if hot else list(self.snapshot.persons())
        for person in people:
            beat = Heartbeat(t, self.end)
            end = self.end if hot else self.row.cut
            entries = tuple(self.by_person[person]) if hot else ()
            view = HotView(high=end, low=self.row.cut, entries=entries, heartbeat=beat, high_broker_ms=dict.fromkeys(end, t))
            merged = merge(CATALOGUE, self.row, self.snapshot.person(person), view, t)
            yield make_record(CATALOGUE, person, self.row, merged, view, t, t, 5_000, 60_000, view.high), merged


def native(spark: Any, night: Night, with_hot: bool, instants: tuple[int, ...]) -> dict[tuple[str, int], Any]:
    """(person, t) -> the row of the native merge: one query for every instant."""
    times = F.broadcast(spark.createDataFrame([(t,) for t in instants], "t bigint"))
    hot = night.hot.crossJoin(times) if with_hot else None
    people = merge_people(night.state.crossJoin(times), hot, night.row, CATALOGUE, F.col("t"), edges=True)
    conflict, pending = F.col("conflict"), F.col("pending")
    shown = people.select(
        "*",
        sendable_reasons(F.col("states"), F.array_union(conflict, pending), F.lit("fresh"), F.lit(0), 60_000).alias("reasons"),
        F.to_json(field_states(CATALOGUE, conflict, pending)).alias("fields"),
        next_change_ms(CATALOGUE, F.col("edge_ms"), F.col("states"), F.col("t")).alias("next_change_ms"),
    ).withColumn("json", F.to_json("values", TO_JSON))
    columns = ("person", "t", "json", "reasons", "fields", "conflict", "pending", "newest_event_ms", "next_change_ms")
    return {(row.person, row.t): row for row in shown.select(*columns).collect()}


@pytest.fixture(scope="module")
def night(spark) -> Night:
    return Night(spark, 80)


@pytest.mark.parametrize("with_hot", [True, False])
def test_every_person_at_every_instant(spark, night, with_hot):
    found = native(spark, night, with_hot, INSTANTS)
    conflicts = changed = pending = 0
    for t in INSTANTS:
        for record, merged in night.library(t, with_hot):
            row = found.pop((record.person, t))
            where = f"{record.person} at {t}"
            values = json.loads(row.json)
            assert values == record.values, where
            assert list(values["interest"]) == list(record.values["interest"]), where
            assert json.loads(row.fields) == record.fields, where
            assert set(row.conflict) == merged.conflict, where
            assert set(row.pending) == merged.pending, where
            assert row.newest_event_ms == record.freshness.newest_event, where
            expected = tuple(reason for reason in record.sendable.reasons if reason != "state_default")
            assert tuple(row.reasons) == expected, where
            conflicts += bool(merged.conflict)
            pending += bool(merged.pending)
            changed += row.next_change_ms is not None
            assert row.next_change_ms is None or row.next_change_ms > t
    assert not found, "the native merge has people that the library has not"
    assert changed and ((conflicts and pending) or not with_hot)


def first_edge(entries: list[Entry], states: Any, t: int) -> int | None:
    """The first instant after ``t`` at which a window gains or loses one of these entries' facts, or a value moves by itself."""
    edges = [
        entry.at_ms + 1 + width
        for entry in entries
        for primary in CATALOGUE.primaries.values()
        if entry.at_ms is not None and any(map(primary.select.holds, entry.facts))
        for width in (0, primary.window.width_ms or 0)
    ]
    moving = [f for f in CATALOGUE.features.values() if f.show is not None]
    edges += [at for f in moving if (at := f.show.next_move(t, *(states[name] for name in f.reads))) is not None]
    return min((edge for edge in edges if edge > t), default=None)


@pytest.mark.parametrize("with_hot", [True, False])
def test_valid_until_is_the_first_edge_and_no_later_than_the_next_change(spark, night, with_hot):
    """A row may lapse though nothing differs; until it does, nothing but a decayed score moves. Where it must, it does at once."""
    found = native(spark, night, with_hot, INSTANTS)
    changes = same = 0
    for t in INSTANTS:
        for record, merged in night.library(t, with_hot):
            until = found[(record.person, t)].next_change_ms
            where = f"{record.person} at {t}"
            if record.next_change_at is not None:
                assert until is not None and t < until <= record.next_change_at, where
                changes, same = changes + 1, same + (until == record.next_change_at)
            if not merged.inexact:
                end = merged.offsets
                counted = winners((e for e in night.by_person[record.person] if end.holds(e.position)), [TOPIC])
                assert until == first_edge(counted, merged.states, t), where
    assert changes > 100
    print(f"{same} of {changes} changes are at the first edge")
    assert same > changes // 2


def test_a_copy_below_a_recent_entry_replaces_it(spark, night):
    """The planted rule of ``merge``: without the ranking some of these histories differ."""
    recent = {(e.person, e.event_id): e for e in night.log if e.verdict == "ok" and night.row.cut.holds(e.position)}
    beaten = [
        e
        for e in night.log
        if e.verdict == "ok"
        and not night.row.cut.holds(e.position)
        and (known := recent.get((e.person, e.event_id))) is not None
        and e.broker_ms < known.broker_ms
    ]
    assert beaten, "no drawn history has such a copy: draw more"

"""The families natively: values, and until when they hold, of people drawn at the edges of each family's rules; and all zones."""

from __future__ import annotations

import json
from random import Random

import pytest
from pyspark.sql import functions as F

from tests.laws.test_families import EXAMPLES, of_family
from tests.laws.test_next_change import Person
from tests.spark.test_set_merge import ENTRIES, first_edge, row_of
from twofold.catalogue import CATALOGUE
from twofold.events import Entry
from twofold.families import FAMILIES
from twofold.families.send_hours import local_hours, native_local_hours, zones
from twofold.merge import merge
from twofold.spark.present import TO_JSON, next_change_ms
from twofold.spark.set_merge import merge_people
from twofold.spark.state_rows import state_rows
from twofold.testing.strategies import NOW_MS
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS, parse_instant

pytestmark = pytest.mark.spark

INSTANTS = (NOW_MS - 1, NOW_MS, NOW_MS + 1, NOW_MS + 30 * MINUTE_MS, NOW_MS + HOUR_MS, NOW_MS + DAY_MS + 1, NOW_MS + 9 * DAY_MS)


def people() -> dict[str, tuple[list[Entry], tuple[int, ...]]]:
    """Person -> their entries, and the instants at which they are read: drawn ones, and the worked examples."""
    out = {}
    for name, family in FAMILIES.items():
        for number in range(60):
            r = Random(f"native {name} {number}")
            out[f"{name}/{number}"] = (of_family(r, family, r.choice((6, 20, 60))), INSTANTS)
    for family, feature in EXAMPLES:
        example = family.told[feature].example
        log = []
        for number, (at, body) in enumerate(example.facts):
            at_ms = parse_instant(at) or 0
            log.append(Entry("1/test", "topic-a", 0, number, at_ms, "ok", "user:1", f"e{number}", at_ms, "web", None, (body,)))
        t = parse_instant(example.at) or 0
        out[f"example/{feature}"] = (log, (t - 1, t, t + 1))
    return out


def test_values_and_until_when_they_hold(spark):
    drawn = people()
    rows, expected, told = [], {}, {feature: family.told[feature].example for family, feature in EXAMPLES}
    for person, (log, instants) in drawn.items():
        known = Person(log, 0, NOW_MS)
        rows += [(t, person, *row_of(entry)[1:]) for t in instants for entry in log]
        for t in instants if log else ():
            states = merge(CATALOGUE, known.row, None, known.view(t), t).states
            values = {name: CATALOGUE.present(f, states, t) for name, f in CATALOGUE.features.items()}
            expected[person, t] = (values, first_edge(known.winners, states, t))
    hot = spark.createDataFrame(rows, f"t bigint, {ENTRIES}")
    nobody = state_rows(hot.drop("t").where("false"), CATALOGUE, 0, 2).withColumn("t", F.lit(0).cast("bigint"))
    merged = merge_people(nobody, hot, known.row, CATALOGUE, F.col("t"), edges=True)
    next_change = next_change_ms(CATALOGUE, F.col("edge_ms"), F.col("states"), F.col("t")).alias("next_change_ms")
    found = merged.select("person", "t", F.to_json("values", TO_JSON).alias("json"), next_change).collect()
    assert len(found) == len(expected) > 1_000
    for row in found:
        values, until = expected[row.person, row.t]
        assert json.loads(row.json) == values, (row.person, row.t)
        assert row.next_change_ms == until, (row.person, row.t)
        kind, _, feature = row.person.partition("/")
        if kind == "example" and row.t == parse_instant(told[feature].at):
            assert values[feature] == told[feature].value


def test_every_zone_turns_at_the_same_instants_on_both_sides(spark):
    """At each turn from 2000 to 2037, and a millisecond before it."""
    numbers, starts, _offsets = zones()
    rows = []
    for zone, number in [*numbers.items(), ("Mars/Base", 0), (None, 0)]:
        turns = [at for at in starts[number] if at > 0]
        rows.append((zone, [at + d for at in (*turns, NOW_MS) for d in (-1, 0)]))
    frame = spark.createDataFrame(rows, "zone string, times array<bigint>")
    found = frame.select("zone", "times", native_local_hours(F.col("times"), F.col("zone")).alias("hours")).collect()
    assert len(found) > 590 and sum(len(row.times) for row in found) > 20_000
    for row in found:
        assert row.hours == local_hours(row.times, row.zone), row.zone

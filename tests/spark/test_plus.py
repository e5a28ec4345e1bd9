"""The native sum of two states equals the fold of both parts together, byte for byte, for every kind and parameter."""

from __future__ import annotations

import random

import pytest
from pyspark.sql import functions as F

from tests.laws.test_states import ALL
from tests.spark.test_laws import FACT_NAMES, FACTS_SCHEMA, gathered, random_facts
from twofold.errors import DefinitionError
from twofold.events import FACT_KINDS
from twofold.features import Primary, Select
from twofold.rankings import half_up as plain_half_up
from twofold.spark.lower import fold
from twofold.spark.plus import plus
from twofold.spark.present import half_up
from twofold.states import Kind
from twofold.timeline import LATEST_MS

pytestmark = pytest.mark.spark

PRIMARIES = tuple(Primary(f"p{number}", state, Select(FACT_KINDS)) for number, state in enumerate(ALL))


def test_plus_equals_the_fold_of_both(spark):
    r = random.Random(5)
    rows = [
        (f"user:{n}", *(getattr(fact, name) for name in FACT_NAMES), r.random() < 0.5)
        for n in range(120)
        for fact in random_facts(r, r.choice((0, 1, 2, 7, 40)))
    ]
    facts = spark.createDataFrame(rows, FACTS_SCHEMA + ", side boolean").cache()

    def folded(frame, name):
        return gathered(frame).select("person", fold(F.col("facts"), PRIMARIES, LATEST_MS).alias(name))

    parts = folded(facts.where("side"), "a").join(folded(facts.where("not side"), "b"), "person", "full_outer")
    sums = F.struct(*(plus(p.state, F.col("a")[p.name], F.col("b")[p.name]).alias(p.name) for p in PRIMARIES))
    both = parts.join(folded(facts, "whole"), "person").select("person", F.to_json(sums), F.to_json("whole")).collect()
    assert len(both) > 80
    for person, got, want in both:
        assert got == want, person


def test_unknown_kind_is_refused():
    class Other(Kind):
        id = "other"
        zero = lift = plus = fold_rows = Kind.fold  # whole, so that only the missing native sum is wrong with it

    with pytest.raises(DefinitionError, match="no native sum"):
        plus(Other(), F.lit(None), F.lit(None))


def test_half_up_bit_for_bit(spark):
    r = random.Random(6)
    halves = [(n + 0.5) / 10**6 for n in (*range(200), *(r.randrange(10**9) for _ in range(2_000)))]
    near = [h + d * h * 2.0**-52 for h in halves for d in (-2, -1, 0, 1, 2)]
    exact = [2.0**-k * n for k in range(30) for n in (1, 3, 5, 7)]
    scores = [*near, *exact, 0.0, *(r.random() * 10.0 ** r.randrange(-12, 8) for _ in range(5_000))]
    frame = spark.createDataFrame([(s,) for s in scores], "s double")
    got = [row[0] for row in frame.select(half_up(F.col("s"))).collect()]
    assert got == [plain_half_up(s, 6) for s in scores]

"""The native Spark fold of every kind equals the Python one: the catalogue's primaries and a set that tries every parameter."""

from __future__ import annotations

import inspect
import json
import random
import string
from collections.abc import Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from pyspark.sql import functions as F

from tests.laws.test_states import ALL, STATES, subclasses
from twofold.catalogue import CATALOGUE
from twofold.columns import Fact
from twofold.columns import facts_of as python_facts_of
from twofold.errors import DefinitionError
from twofold.events import FACT_KINDS
from twofold.features import Primary, Select
from twofold.rankings import decay_weight
from twofold.spark.admission import FACTS_TYPE
from twofold.spark.lower import decay_columns, facts_of, fold
from twofold.states import Count, Kind
from twofold.testing.strategies import NOW_MS, event_times, histories
from twofold.timeline import DAY_MS, EARLIEST_MS, HOUR_MS, LATEST_MS, Window

pytestmark = pytest.mark.spark

FACTS_SCHEMA = (
    "person string, at_ms bigint, event_id string, ordinal int, kind string, product string, category string, campaign string,"
    "channel string, device string, amount_minor bigint, currency string, quantity bigint, key string, value string"
)
ANY = Select(FACT_KINDS)
SOME = Select(("order", "refund", "purchase", "view"))
TEXTS = ("product", "category", "campaign", "currency", "key", "value", "channel", "device")
MONTH = Window(30 * DAY_MS)

#: Every kind and every parameter it can take, lifetime and windowed, over all facts and over some.
EXTRA = (
    *(Primary(f"all{number}", state, ANY) for number, state in enumerate(ALL)),
    *(Primary(f"some{number}", state, SOME, MONTH) for number, state in enumerate(STATES)),
    Primary("named_page", Count(), Select(("page",), (("key", "é"),)), MONTH),
    Primary("empty_tier", Count(), Select(("trait",), (("key", "tier"), ("value", "")))),
)
PRIMARIES = (*CATALOGUE.primaries.values(), *EXTRA)
NAMES = (
    None,
    None,
    "",
    "a",
    "b",
    "Z",
    "é",
    "\uffee",
    "😀",
    "日本",
    'quo"te',
    "back\\slash",
    "new\nline",
    "granted",
    "tier",
    "USD",
    "first_name",
)


def python_fold(primary: Primary, facts: Sequence[Fact], t_ms: int):
    return primary.state.fold(f for f in facts if primary.window.holds(f.at_ms, t_ms) and primary.select.holds(f))


BODY = ("kind", "product", "category", "campaign", "amount_minor", "currency", "quantity", "key", "value")


def gathered(facts):
    """``person`` and their ``facts``, as ``lower.facts_of`` gives them, from a frame of ``FACTS_SCHEMA``."""
    entry = F.struct("event_id", "at_ms", "channel", "device").alias("entry")
    return facts.groupBy("person").agg(
        F.collect_list(F.struct("kind", "at_ms", "ordinal", entry, F.struct(*BODY).alias("fact"))).alias("facts")
    )


def native(spark, people: dict[str, Sequence[Fact]], t_ms: int) -> dict[str, dict]:
    """person -> primary -> decoded state, in one query."""
    rows = [(person, *(getattr(fact, name) for name in FACT_NAMES)) for person, facts in people.items() for fact in facts]
    frame = spark.createDataFrame(rows, FACTS_SCHEMA)
    encoded = gathered(frame).select("person", F.to_json(fold(F.col("facts"), PRIMARIES, t_ms)).alias("json")).collect()
    out = {}
    for person, text in encoded:
        data = json.loads(text)
        out[person] = {p.name: p.state.decode(data[p.name]) if p.name in data else p.state.zero() for p in PRIMARIES}
    return out


FACT_NAMES = [column.split()[0] for column in FACTS_SCHEMA.replace("\n", "").split(",")][1:]


def random_facts(r: random.Random, n: int) -> list[Fact]:
    """Distinct (event id, ordinal); ties of event time, nulls, negative numbers, both bounds of the calendar."""
    facts = []
    for number in range(n):
        at = r.choice((
            r.choice((NOW_MS, NOW_MS - 1, NOW_MS - 30 * DAY_MS, NOW_MS - 30 * DAY_MS - 1, EARLIEST_MS, LATEST_MS - 1)),
            NOW_MS - r.randrange(5) * HOUR_MS,
            r.randrange(NOW_MS - 60 * DAY_MS, NOW_MS + DAY_MS),
            r.randrange(EARLIEST_MS, NOW_MS),
        ))  # fmt: skip
        event_id = r.choice(("e", "E", "é", "😀", "\uffee")) + str(number // 3 if r.random() < 0.5 else number)
        columns = {name: r.choice(NAMES) for name in TEXTS if name != "currency"}
        facts.append(
            Fact(
                at, event_id, number, kind=r.choice(FACT_KINDS), **columns, currency=r.choice((None, "USD", "EUR", "KWD")),
                amount_minor=r.choice((None, 0, 1, -7, 10**15, -(10**15), r.randrange(10**6))),
                quantity=r.choice((None, 0, 1, -3, 10**9)),
            )
        )  # fmt: skip
    return facts


def drawn_histories(examples: int) -> dict[str, list[Fact]]:
    people: dict[str, list[Fact]] = {}

    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(histories(persons=("user:1",), rejected=False))
    def draw(log):
        winners = {entry.event_id: entry for entry in log}.values()
        people[f"drawn:{len(people)}"] = [fact for entry in winners for fact in python_facts_of(entry)]

    draw()
    return people


@pytest.fixture(scope="module")
def people() -> dict[str, list[Fact]]:
    """Persons by the prefix of their key; one query folds them all, since compiling it is what takes the time."""
    r = random.Random(20)
    seeded = {f"seeded:{n}{r.choice(string.ascii_letters)}": random_facts(r, r.choice((0, 1, 2, 5, 40))) for n in range(150)}
    large = [
        Fact(NOW_MS - n, f"e{n}", 0, None, None, "order", product="p", amount_minor=10**15, currency="USD") for n in range(1, 9_500)
    ]
    return {**seeded, "seeded:é😀": random_facts(r, 3_000), **drawn_histories(120), "large": large}


@pytest.fixture(scope="module")
def folded(spark, people) -> dict[str, dict]:
    return native(spark, people, NOW_MS)


def assert_equal(people, folded, prefix: str) -> None:
    wanted = {person: facts for person, facts in people.items() if person.startswith(prefix) and facts}
    assert {person for person in folded if person.startswith(prefix)} == set(wanted)
    for person, facts in wanted.items():
        for primary in PRIMARIES:
            expected = python_fold(primary, facts, NOW_MS)
            assert folded[person][primary.name] == expected, (person, primary, folded[person][primary.name], expected)


def test_random_facts_of_many_persons(people, folded):
    assert_equal(people, folded, "seeded")


def test_generated_histories(people, folded):
    """Hypothesis draws the persons."""
    assert_equal(people, folded, "drawn")


def test_sums_above_64_bits(people, folded):
    assert folded["large"]["revenue_lifetime"] == {"USD": 9_499 * 10**15}
    assert_equal(people, folded, "large")


def test_decay_weights_bit_for_bit(spark):
    r = random.Random(3)
    for half_life_ms in (7 * DAY_MS, DAY_MS, HOUR_MS, 1, 2, 846**3, 999_983):
        instants = [r.randrange(EARLIEST_MS, LATEST_MS) for _ in range(3_000)]
        instants += [n * half_life_ms + d for n in (EARLIEST_MS // half_life_ms + 1, NOW_MS // half_life_ms) for d in (-1, 0, 1)]
        frame = spark.createDataFrame([(at,) for at in instants], "at bigint")
        got = frame.select(*decay_columns(F.col("at"), half_life_ms)).collect()
        assert [tuple(row) for row in got] == [decay_weight(at, half_life_ms) for at in instants]


def test_tables_are_literals_of_the_plan(spark):
    """Reading the tables per row would be a hundred times slower."""
    frame = spark.range(1).select(decay_columns(F.col("id"), 7 * DAY_MS)[1].alias("weight"))
    assert "array(" not in frame._jdf.queryExecution().optimizedPlan().toString()


def test_the_facts_of_entries(spark):
    log = []

    @settings(max_examples=40, suppress_health_check=list(HealthCheck))
    @given(histories(persons=("user:1",), rejected=False), event_times())
    def draw(entries, _at):
        person = f"user:{len(log)}"
        log.append((person, list({entry.event_id: entry for entry in entries}.values())))

    draw()
    rows = [
        (
            person,
            [(e.event_id, e.at_ms, e.channel, e.device, [tuple(getattr(f, c) for c in BODY) for f in e.facts]) for e in winners],
        )
        for person, winners in log
    ]
    entry = f"struct<event_id:string,at_ms:bigint,channel:string,device:string,facts:{FACTS_TYPE}>"
    frame = spark.createDataFrame(rows, f"person string, entries array<{entry}>").withColumn("facts", facts_of(F.col("entries")))
    horizon = CATALOGUE.horizon(NOW_MS, 5)
    older = fold(F.col("facts"), CATALOGUE.lifetime, horizon)
    got = {row.person: row for row in frame.select("person", F.size("facts").alias("n"), F.to_json(older).alias("json")).collect()}
    for person, winners in log:
        assert got[person].n == sum(len(entry.facts) for entry in winners)
        facts = [fact for entry in winners if entry.at_ms < horizon for fact in python_facts_of(entry)]
        states = json.loads(got[person].json)
        for primary in CATALOGUE.lifetime:
            encoded = states.get(primary.name)
            state = primary.state.zero() if encoded is None else primary.state.decode(encoded)
            assert state == python_fold(primary, facts, horizon), primary


def test_unknown_kind_is_refused():
    class Other(Kind):
        id = "other"
        zero = lift = plus = fold_rows = Kind.fold  # whole, so that only the missing native fold is wrong with it

    with pytest.raises(DefinitionError, match="no native fold"):
        fold(F.array(), [Primary("p", Other(), ANY)], NOW_MS)


def test_every_kind_of_the_closed_set_is_tried():
    assert {type(p.state) for p in PRIMARIES} == {kind for kind in subclasses(Kind) if not inspect.isabstract(kind)}

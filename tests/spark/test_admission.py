"""Spark's admission and plain Python's give every entry the same verdict and the same facts."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F
from pyspark.sql.types import BinaryType, IntegerType, StructField, StructType

from twofold import events as E
from twofold.spark.admission import ADMITTED, FACTS_TYPE, admit
from twofold.testing import hostile
from twofold.testing.hostile_values import ABSENT, BROKER_MS, SCALARS, Raw, event
from twofold.testing.mutating import mutate, rewrite
from twofold.timeline import EARLIEST_MS, LATEST_MS

pytestmark = pytest.mark.spark

_INPUT = StructType([StructField("i", IntegerType()), StructField("value", BinaryType())])
_RESULT = msgspec.json.Decoder(E.Admission)


def spark_admissions(spark, values: list[bytes | None]) -> list[E.Admission]:
    """What Spark says of each value, in the values' order: one query, read back through the wire format."""
    entries = spark.createDataFrame([(i, None if v is None else bytearray(v)) for i, v in enumerate(values)], _INPUT)
    rows = admit(entries.withColumn("broker_ms", F.lit(BROKER_MS))).select("i", F.to_json(F.struct(*ADMITTED)).alias("json"))
    out: list[E.Admission] = [E.Admission("malformed")] * len(values)
    seen = 0
    for row in rows.toLocalIterator():
        out[row.i] = _RESULT.decode(row.json.encode("utf-8"))
        seen += 1
    assert seen == len(values)
    return out


def differences(spark, values: list[bytes | None]) -> list[tuple[bytes | None, E.Admission, E.Admission]]:
    """(value, Spark, Python) where the two differ, shortest first."""
    found = [
        (value, ours, theirs)
        for value, ours in zip(values, spark_admissions(spark, values), strict=True)
        if ours != (theirs := E.admit(value, BROKER_MS))
    ]
    return sorted(found, key=lambda one: len(one[0] or b""))


def test_hostile_corpus(spark):
    corpus = hostile.corpus()
    names = {value: name for name, value in corpus}
    found = differences(spark, [None, *(value for _name, value in corpus)])
    assert not found, [(names.get(value), ours, theirs) for value, ours, theirs in found[:10]]


@pytest.mark.parametrize("number", [1, 2])
def test_mutated_entries(spark, number):
    rng = random.Random(number)
    bases = [value for _name, value in hostile.corpus() if len(value) < 2_000]
    values = [mutate(rng, rng.choice(bases)) if rng.random() < 0.5 else rewrite(rng, rng.choice(bases)) for _ in range(12_000)]
    found = differences(spark, values)
    assert not found, f"seed {number}: {len(found)} differ: {found[:5]}"


# Generated events: every envelope field, and properties that the facts table names, with values of every kind.
_scalars = st.one_of(
    st.sampled_from([value for value in SCALARS.values() if value is not ABSENT]),
    st.text(max_size=8),
    st.integers(-(2**70), 2**70),
    st.decimals(allow_nan=False, allow_infinity=False, places=4).map(lambda d: Raw(format(d, "f"))),
    st.floats(allow_nan=False, allow_infinity=False).map(lambda f: Raw(repr(f))),
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
_names = sorted({s.name for r in E.FACT_RULES for f in (*r.fields, *r.item_fields) for s in f.sources})
_products = st.lists(st.dictionaries(st.sampled_from(_names), _scalars, max_size=4) | _scalars, max_size=4)
_properties = st.dictionaries(st.sampled_from(_names), _values, max_size=6).flatmap(
    lambda properties: st.builds(
        lambda products, purposes: {**properties, **products, **purposes},
        st.fixed_dictionaries({}, optional={"products": _products}),
        st.fixed_dictionaries({}, optional={"purposes": st.dictionaries(st.text(max_size=3), _scalars, max_size=4)}),
    )
)
_days = st.datetimes().map(lambda d: d.isoformat() + "Z") | st.integers(EARLIEST_MS - 10, LATEST_MS + 10)
_events = st.fixed_dictionaries(
    {"type": st.sampled_from(E.EVENT_TYPES), "name": st.sampled_from(sorted({n for r in E.FACT_RULES for n in r.names} | {"x"}))},
    optional={
        "event_id": _scalars,
        "user_id": _scalars,
        "anonymous_id": _scalars,
        "source_kind": _scalars,
        "occurred_at": _days | _values,
        "properties": _properties | _values,
        "traits": st.dictionaries(st.text(max_size=4), _values, max_size=5) | _values,
        "context": st.fixed_dictionaries({"device": st.fixed_dictionaries({"type": _scalars}) | _scalars}) | _values,
    },
).map(lambda fields: event(**fields).decode("utf-8", "surrogatepass").encode("utf-8", "surrogatepass"))


def test_generated_events(spark):
    """Hypothesis makes the events; they are compared in one query."""
    values: list[bytes | None] = []

    @seed(7)
    @settings(max_examples=4_000, database=None, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(_events)
    def gather(value: bytes) -> None:
        values.append(value)

    gather()
    verdicts = {E.admit(value, BROKER_MS).verdict for value in values}
    assert {"ok", "schema"} <= verdicts
    found = differences(spark, values)
    assert not found, f"{len(found)} of {len(values)} differ: {found[:5]}"


def test_columns_and_types(spark):
    entries = spark.createDataFrame([(0, bytearray(event()))], _INPUT).withColumn("broker_ms", F.lit(BROKER_MS))
    admitted = admit(entries)
    assert admitted.columns == ["i", "value", "broker_ms", *ADMITTED]
    assert admitted.schema["facts"].dataType.simpleString() == FACTS_TYPE
    assert tuple(f.name for f in admitted.schema["facts"].dataType.elementType.fields) == ("kind", *_body_columns())
    assert admitted.schema["at_ms"].dataType.simpleString() == "bigint"


def _body_columns() -> tuple[str, ...]:
    return tuple(name for name in E.FactBody.__struct_fields__ if name != "kind")

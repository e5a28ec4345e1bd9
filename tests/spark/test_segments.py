"""Rules evaluated natively give what they give in Python: random rules over random values, in one query an example."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from tests.spark.personalize_home import assert_equal_to_the_library, finish
from tests.spark.test_batch import TOPIC, drawn_logs, offsets, page
from twofold.catalogue import CATALOGUE
from twofold.events import FactBody
from twofold.rule_grammar import parse_rule
from twofold.segments import Segment, Segments, next_change_ms
from twofold.settings import load_settings
from twofold.spark import segments as native
from twofold.spark.present import feature_columns
from twofold.stores.segments_file import load_segments
from twofold.testing.rule_strategies import rules, values
from twofold.testing.strategies import NOW_MS, log_end
from twofold.timeline import DAY_MS, PartitionKey

pytestmark = pytest.mark.spark

T = NOW_MS
SCHEMA = ", ".join(["t bigint", *(f"{name} {type_}" for name, type_, _comment in feature_columns(CATALOGUE))])


def as_row(found: dict[str, Any]) -> tuple:
    """Values as Spark takes them, in the order of the columns: money is decimal."""

    def of(name: str, type_: str) -> Any:
        return {key: Decimal(minor) for key, minor in found[name].items()} if "decimal" in type_ else found[name]

    return (T, *(of(name, type_) for name, type_, _comment in feature_columns(CATALOGUE)))


def segments_of(*texts: str) -> Segments:
    return Segments(Segment(f"s{n:02}", parse_rule(text, CATALOGUE)) for n, text in enumerate(texts))


@settings(max_examples=12)
@given(
    st.lists(rules(CATALOGUE, T), min_size=8, max_size=16), st.lists(values(CATALOGUE, T), min_size=10, max_size=30), st.booleans()
)
def test_every_rule_of_every_row(spark, drawn, people, constant):
    rule_set = Segments(Segment(f"s{n:02}", rule) for n, rule in enumerate(drawn))
    frame = spark.createDataFrame([as_row(found) for found in people], SCHEMA).coalesce(1)
    t = T if constant else F.col("t")
    found = frame.select(
        native.segment_names(rule_set, t).alias("names"), native.next_change_ms(rule_set, t).alias("next")
    ).collect()
    for values_, row in zip(people, found, strict=True):
        assert tuple(row.names) == rule_set.names_at(values_, T), values_
        assert row.next == next_change_ms(rule_set, values_, T), values_


def test_no_rules(spark):
    row = spark.range(1).select(native.segment_names(Segments(), T).alias("s"), native.next_change_ms(Segments(), T).alias("n"))
    assert [tuple(r) for r in row.collect()] == [([], None)]


# --- the table --------------------------------------------------------------------------------------------------------------------
def test_rows_hold_the_segments_of_the_library(homes):
    """Random histories: shipped rules, and one of each operator, in rows before and after a snapshot."""
    shipped = load_segments(load_settings(environ={}), CATALOGUE)
    more = segments_of(
        "page_views_30d >= 1 and not page_views_1h >= 1",
        "interest is not empty or active_hours_30d is not empty",
        "revenue_lifetime.USD > 0 or refunds_lifetime is not empty",
        "tier in ('a', 'b', 'c') or first_name is not null",
        "last_order_at older than 7 d or last_email_click_at within 30 d",
        "recent_products is empty",
    )
    # Chance may leave a rule that nobody meets, or everybody: these two meet each rule but the last, and only the last.
    met = (
        FactBody("view", product="p", category="c"),
        FactBody("order", amount_minor=100, currency="USD"),
        FactBody("trait", key="tier", value="a"),
    )
    drawn = drawn_logs(30)
    first = log_end(drawn).next(PartitionKey(TOPIC, 0))
    log = [
        *drawn,
        page(first, "user:met", at_ms=NOW_MS - 10 * DAY_MS, facts=(FactBody("page", key="k"), *met)),
        page(first + 1, "user:not", at_ms=NOW_MS - 10 * DAY_MS, facts=(FactBody("custom", key="k"),)),
    ]
    ends = log_end(log)
    home = homes(catalogue=CATALOGUE, segments=Segments([*shipped, *more]))
    home.archive(log, ends)
    home.batch(as_of_ms=NOW_MS)
    home.open()
    finish(home)
    rows = assert_equal_to_the_library(home)
    for segment in more:
        inside = sum(segment.name in row["segments"] for row in rows.values())
        assert 0 < inside < len(rows), f"a rule that all or nobody meets tests little: {segment.rule}"


def test_who_grows_old_is_emitted_again_and_other_rules_are_for_everyone(homes):
    # Of a click nothing else moves before it is 30 days old.
    old = segments_of("last_email_click_at older than 7 d")
    click = (FactBody("email_clicked"),)
    home = homes(catalogue=CATALOGUE, segments=old, now_ms=NOW_MS + 40 * DAY_MS)
    clicked_ms = home.clock.now_ms - 5 * DAY_MS
    home.archive([page(0, "user:a", at_ms=clicked_ms, facts=click), page(1, "user:b", at_ms=NOW_MS)], offsets(2))
    home.open()
    finish(home)
    row = assert_equal_to_the_library(home)["user:a"]
    assert row["segments"] == [] and row["valid_until"] == clicked_ms + 7 * DAY_MS + 1
    home.clock.now_ms = row["valid_until"]
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert {person: (row["segments"], row["batch"]) for person, row in rows.items()} == {"user:a": (["s00"], 2), "user:b": ([], 1)}
    # The same rules: nothing is due. Other ones: everyone.
    home.open()
    finish(home)
    assert home.batches() == [1, 2]
    home.segments = segments_of("email_clicks_30d = 0")
    home.open()
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert {person: row["segments"] for person, row in rows.items()} == {"user:a": [], "user:b": ["s00"]}

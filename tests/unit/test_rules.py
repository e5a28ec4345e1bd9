"""Rules of segments: what the grammar takes and says no to, what a clause means at its edges, and how a rule is written back."""

from __future__ import annotations

import pytest
from hypothesis import given

from twofold.catalogue import CATALOGUE
from twofold.errors import SegmentError
from twofold.rule_grammar import DEEPEST_RULE, parse_rule
from twofold.rules import Told, evaluator, told
from twofold.testing.rule_strategies import rules, values
from twofold.timeline import DAY_MS

T = 1_735_732_800_000
EMPTY = {
    name: {"array": [], "object": {}, "integer": 0}.get(shape["type"]) if isinstance(shape["type"], str) else None
    for name, shape in CATALOGUE.schema()["properties"].items()
}


def holds(rule: str, t: int = T, **some) -> bool:
    return evaluator(parse_rule(rule, CATALOGUE))({**EMPTY, **some}, t)


@given(rules(CATALOGUE, T), values(CATALOGUE, T))
def test_a_rule_written_back_is_the_same_rule(rule, drawn):
    again = parse_rule(str(rule), CATALOGUE)
    assert again == rule and str(again) == str(rule)
    holds = evaluator(rule)(drawn, T)
    assert isinstance(holds, bool)
    lines = told(rule, drawn, T)
    assert lines[0].holds == holds and lines[0].depth == 0


# --- meaning ----------------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "some", "expected"),
    [
        ("orders_lifetime = 3", {"orders_lifetime": 3}, True),
        ("orders_lifetime != 3", {"orders_lifetime": 3}, False),
        ("orders_lifetime < 3", {"orders_lifetime": 3}, False),
        ("orders_lifetime <= 3", {"orders_lifetime": 3}, True),
        ("orders_lifetime > 3", {"orders_lifetime": 3}, False),
        ("orders_lifetime >= 3", {"orders_lifetime": 3}, True),
        ("tier = 'gold'", {"tier": "Gold"}, False),
        ("tier < 'b'", {"tier": "a"}, True),
        # By code point, not by UTF-16 unit.
        ("tier > '\uffff'", {"tier": "\U00010437"}, True),
        ("tier = 'it''s'", {"tier": "it's"}, True),
        ('tier = "it\'s"', {"tier": "it's"}, True),
        ("tier = true", {"tier": "true"}, True),
        ("tier in ('gold', 'silver')", {"tier": "silver"}, True),
        ("orders_lifetime in (1, 2)", {"orders_lifetime": 3}, False),
        ("recent_products contains 'lamp-1'", {"recent_products": ["desk-4", "lamp-1"]}, True),
        ("recent_products contains 'lamp'", {"recent_products": ["lamp-1"]}, False),
        ("active_hours_30d contains 33", {"active_hours_30d": [33]}, True),
        ("recent_products is empty", {}, True),
        ("revenue_lifetime is not empty", {"revenue_lifetime": {"EUR": 0}}, True),
        ("revenue_lifetime.EUR >= 10000", {"revenue_lifetime": {"EUR": 10_000}}, True),
        ("interest.'garden tools' > 0.5", {"interest": {"garden tools": 0.500001}}, True),
        ("first_order_at >= '2025-01-01T00:00:00Z'", {"first_order_at": 1_735_689_600_000}, True),
        ("first_order_at < 1735689600000", {"first_order_at": 1_735_689_600_000}, False),
        # Null, and a part that is not there: no comparison holds, and every `not` of one does.
        ("tier = 'gold'", {}, False),
        ("tier != 'gold'", {}, False),
        ("not tier = 'gold'", {}, True),
        ("not tier in ('gold')", {}, True),
        ("tier is null", {}, True),
        ("tier is not null", {}, False),
        ("revenue_lifetime.EUR < 1", {}, False),
        ("revenue_lifetime.EUR is null", {"revenue_lifetime": {"USD": 1}}, True),
        ("last_order_at older than 1 d", {}, False),
        ("last_order_at within 1 d", {}, False),
        # `not` binds closest, then `and`, then `or`.
        ("orders_lifetime = 1 or tier = 'a' and tier = 'b'", {"orders_lifetime": 1}, True),
        ("(orders_lifetime = 1 or tier = 'a') and tier = 'b'", {"orders_lifetime": 1}, False),
        ("not orders_lifetime = 1 and tier = 'a'", {"orders_lifetime": 1}, False),
        ("NOT (orders_lifetime = 1 AND tier = 'a')", {"orders_lifetime": 1}, True),
    ],
)
def test_what_a_rule_means(rule, some, expected):
    assert holds(rule, **some) is expected


@pytest.mark.parametrize(
    ("unit", "ms"), [("60 d", 60 * DAY_MS), ("60d", 60 * DAY_MS), ("2 weeks", 14 * DAY_MS), ("90 min", 90 * 60_000), ("7 ms", 7)]
)
def test_an_age_turns_in_one_millisecond(unit, ms):
    assert [holds(f"last_order_at older than {unit}", last_order_at=T - ms + off) for off in (-1, 0, 1)] == [True, False, False]
    assert [holds(f"last_order_at within {unit}", last_order_at=T - ms + off) for off in (-1, 0, 1)] == [False, True, True]


def test_why_has_a_line_a_clause():
    rule = parse_rule("orders_lifetime >= 3 and not (tier = 'gold' or revenue_lifetime.EUR > 5)", CATALOGUE)
    assert told(rule, {**EMPTY, "orders_lifetime": 7, "revenue_lifetime": {"EUR": 9}}, T) == [
        Told(0, "all of", None, False),
        Told(1, "orders_lifetime >= 3", 7, True),
        Told(1, "not", None, False),
        Told(2, "any of", None, True),
        Told(3, "tier = 'gold'", None, False),
        Told(3, "revenue_lifetime.EUR > 5", 9, True),
    ]


def test_parentheses_that_say_nothing_are_no_part_of_a_rule():
    a, b = (
        parse_rule(text, CATALOGUE)
        for text in ("(tier='a' and (tier='b' AND\ntier = 'c'))", "tier = 'a' and tier='b' and tier='c'")
    )
    assert a == b and str(a) == "tier = 'a' and tier = 'b' and tier = 'c'"
    assert str(parse_rule("last_order_at within 7 days and last_order_at older than 90 minutes", CATALOGUE)) == (
        "last_order_at within 7 d and last_order_at older than 90 min"
    )


# --- what it says no to -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("order_lifetime >= 3", "column 1: unknown feature 'order_lifetime'; did you mean 'orders_lifetime'?"),
        (
            "tier = 'a' and\n  zzz = 3",
            "line 2 column 3: unknown feature 'zzz'; `twofold table personalization --schema` lists them",
        ),
        ("orders_lifetime >", "column 18: found the end, expected one of: a 'text', a number, false, true"),
        ("orders_lifetime == 3", "column 18: found '=': write one ="),
        ("tier = 'a' && tier = 'b'", "column 12: found '&&': write and"),
        ("tier <> 'a'", "column 7: found '>': write !="),
        ("tier not in ('a')", "column 6: found 'not': write it before the feature, as in not tier in ('gold')"),
        ("tier = 'a", "column 8: the text that begins here has no closing '"),
        ("(tier = 'a'", "column 12: found the end, expected )"),
        ("tier = 'a' tier", "column 12: found 'tier', expected one of: and, or"),
        ("orders_lifetime is greater than 3", "column 20: found 'greater', expected one of: empty, not, null"),
        (" ", "is empty: write a condition, as in orders_lifetime >= 3"),
        ("revenue_lifetime >= 3", "column 1: revenue_lifetime is a map by currency: name one, as in revenue_lifetime.EUR"),
        ("revenue_lifetime.eur >= 3", "column 18: 'eur' is no currency; did you mean 'EUR'?"),
        ("revenue_lifetime.euros >= 3", "column 18: 'euros' is no currency: write three capitals, as in .EUR"),
        ("revenue_lifetime.EUR >= 3.5", "column 25: revenue_lifetime.EUR is in minor units: write 1050 for 10.50"),
        ("interest > 1", "column 1: interest is a map by name: name one, as in interest.'lamps'"),
        ("orders_lifetime >= 3.5", "column 20: orders_lifetime is in whole numbers: leave out the fraction"),
        ("orders_lifetime >= '3'", "column 20: orders_lifetime is a number and '3' is none: leave out the quotes"),
        ("orders_lifetime = 9223372036854775808", "column 19: 9223372036854775808 does not fit 64 bits"),
        ("orders_lifetime is null", "column 1: orders_lifetime is never null: write = 0"),
        ("distinct_products_viewed_7d is null", "column 1: distinct_products_viewed_7d is never null: write = 0"),
        ("recent_products is null", "column 1: recent_products is never null: write is empty"),
        ("recent_products = 'a'", "column 1: recent_products is a list: write contains, or is empty"),
        ("tier is empty", "column 1: tier is neither a list nor a map: write is null"),
        ("tier contains 'a'", "column 1: tier is no list: write ="),
        ("tier = 3", "column 8: tier is text: write '3'"),
        ("tier.x = 'a'", "column 6: tier is no map: leave out .x"),
        ("tier older than 3 d", "column 1: tier is no time: older than and within need one, as in last_order_at"),
        ("last_order_at within 3 months", "column 24: found 'months', expected a unit (ms, s, min, h, d, w)"),
        ("last_order_at within 0 d", "column 22: 0 is no duration: write a whole number above 0"),
        ("last_order_at within 36526 d", "column 22: 36526 d is longer than 36525 d"),
        ("last_order_at > '2025'", "column 17: last_order_at is a time and '2025' is none: write RFC 3339"),
        ("last_order_at > 7258118400000", "column 17: last_order_at is a time and 7258118400000 is none"),
        ("not " * DEEPEST_RULE + "tier = 'a'", f": nested more than {DEEPEST_RULE} deep: make two segments of it"),
        ("tier = '" + "a" * 4_000 + "'", ": 4009 characters, at most 4000: make two segments of it"),
    ],
)
def test_a_bad_rule_is_one_line_with_its_place(rule, said):
    with pytest.raises(SegmentError) as refused:
        parse_rule(rule, CATALOGUE, "the rule")
    assert str(refused.value).startswith(f"the rule {said}" if said[0] != ":" else f"the rule{said}")
    assert "\n" not in str(refused.value) and refused.value.exit_code == 2

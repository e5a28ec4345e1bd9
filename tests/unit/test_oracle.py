"""The oracle's features against literals worked out by hand: edge instants, ties, nulls, several currencies, rounding."""

from __future__ import annotations

from decimal import Decimal, localcontext

import pytest

from tests.unit.histories import EMPTY, WEEK_MS, T, each, entry, value
from twofold.events import FactBody
from twofold.testing import oracle
from twofold.timeline import DAY_MS, HOUR_MS


def test_no_events_give_the_default_of_every_feature_in_catalogue_order():
    found = oracle.values([], T)
    assert found == EMPTY
    assert list(found) == list(EMPTY)


# --- windows: [t - w, t) ----------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "kind", "width_ms"),
    [
        ("page_views_1h", "page", HOUR_MS),
        ("page_views_1d", "page", DAY_MS),
        ("page_views_7d", "page", 7 * DAY_MS),
        ("page_views_30d", "page", 30 * DAY_MS),
        ("product_views_30d", "view", 30 * DAY_MS),
        ("cart_adds_7d", "cart_add", 7 * DAY_MS),
        ("orders_30d", "order", 30 * DAY_MS),
        ("emails_sent_7d", "email_sent", 7 * DAY_MS),
        ("email_opens_30d", "email_opened", 30 * DAY_MS),
        ("email_clicks_30d", "email_clicked", 30 * DAY_MS),
    ],
)
def test_a_window_holds_its_start_and_not_its_end(name, kind, width_ms):
    held = {at: value(name, each(kind, at)) for at in (T - width_ms - 1, T - width_ms, T - width_ms + 1, T - 1, T, T + 1)}
    assert list(held.values()) == [0, 1, 1, 1, 0, 0]
    assert value(name, each(kind, *held)) == 3
    assert value(name, each("custom", T - 1)) == 0


def test_the_edge_cuts_every_windowed_list_and_sum():
    inside, outside, end = T - 30 * DAY_MS, T - 30 * DAY_MS - 1, T
    for at, products, categories, units in ((inside, ["p"], ["c"], 2), (outside, [], [], 0), (end, [], [], 0)):
        views = [entry("v", at, FactBody("view", product="p", category="c"))]
        order = [entry("o", at, FactBody("order"), FactBody("purchase", product="p", quantity=2))]
        assert value("recent_products", views) == products
        assert value("top_categories_30d", views) == categories
        assert len(value("active_hours_30d", views)) == len(products)
        assert value("units_30d", order) == units
    for at, distinct in ((T - WEEK_MS - 1, 0), (T - WEEK_MS, 1), (T - 1, 1), (T, 0)):
        assert value("distinct_products_viewed_7d", each("view", at, product="p")) == distinct


def test_lifetime_is_before_t():
    history = [
        *each("order", T - 1000 * DAY_MS, T - 1, T, amount_minor=100, currency="USD"),
        *each("refund", T - 1000 * DAY_MS, T, amount_minor=7, currency="EUR"),
        *each("cart_add", T - 500 * DAY_MS, T - 400 * DAY_MS, T),
        *each("email_clicked", T - 300 * DAY_MS, T),
    ]
    found = oracle.values(history, T)
    assert found["orders_lifetime"] == 2
    assert found["revenue_lifetime"] == {"USD": 200}
    assert found["refunds_lifetime"] == {"EUR": 7}
    assert (found["first_order_at"], found["last_order_at"]) == (T - 1000 * DAY_MS, T - 1)
    assert found["last_cart_add_at"] == T - 400 * DAY_MS
    assert found["last_email_click_at"] == T - 300 * DAY_MS
    assert (found["cart_adds_7d"], found["email_clicks_30d"], found["orders_30d"]) == (0, 0, 1)


# --- lists ------------------------------------------------------------------------------------------------------------
def test_recent_products_newest_first_distinct_five():
    named = [(1, "a"), (2, "b"), (3, "c"), (4, "d"), (5, "e"), (6, "f"), (7, "b"), (8, None)]
    views = [entry(f"v{n}", T - 100 + n, FactBody("view", product=product)) for n, product in named]
    assert value("recent_products", views) == ["b", "f", "e", "d", "c"]
    assert value("recent_products", views[::-1]) == ["b", "f", "e", "d", "c"]
    assert value("recent_products", [views[1], views[6]]) == ["b"]
    assert value("product_views_30d", views) == 8
    assert value("distinct_products_viewed_7d", views) == 6


def test_recent_products_tie_is_larger_event_id_first_then_larger_ordinal():
    views = [
        entry("x2", T - 5, FactBody("view", product="two")),
        entry("x10", T - 5, FactBody("view", product="ten")),
        entry("x3", T - 5, FactBody("view", product="first"), FactBody("view", product="second")),
    ]
    assert value("recent_products", views) == ["second", "first", "two", "ten"]


def test_top_categories_weight_then_last_time_then_name():
    views = [
        entry(f"v{n}", T - at, FactBody("view", category=category))
        for n, (category, at) in enumerate(
            [
                ("old", 50),
                ("old", 40),
                ("new", 50),
                ("new", 39),
                ("a", 1),
                ("b", 1),
                ("z", 0),
                ("most", 9),
                ("most", 8),
                ("most", 7),
            ]
        )
    ]
    assert value("top_categories_30d", views) == ["most", "new", "old"]
    assert value("top_categories_30d", views[::-1]) == ["most", "new", "old"]
    assert value("top_categories_30d", views[4:6]) == ["a", "b"]
    assert value("top_categories_30d", each("view", T - 1)) == []
    # ties go by code point: Z before a, and a letter beyond the basic plane after one at its end
    odd = [entry(c, T - 1, FactBody("view", category=c)) for c in ("a", "Z", "\U0001f600", "\uffee")]
    assert value("top_categories_30d", odd) == ["Z", "a", "\uffee"]
    assert value("top_categories_30d", odd[2:]) == ["\uffee", "\U0001f600"]


def test_top_products_by_quantity_sum_without_names_of_no_weight():
    def bought(event_id, at, *lines):
        return entry(event_id, at, FactBody("order"), *(FactBody("purchase", product=p, quantity=q) for p, q in lines))

    history = [
        bought("o1", T - 400 * DAY_MS, ("a", 3), ("b", 1), ("zero", 2), (None, 99), ("minus", -4)),
        bought("o2", T - 10, ("a", -1), ("zero", -2), ("c", 2), ("d", 1), ("e", 1)),
        bought("o3", T - 9, ("b", 1), ("f", 1)),
        bought("o4", T, ("f", 50)),
    ]
    # a 2 (last T-10), b 2 (T-9), c 2 (T-10), d 1 (T-10), e 1 (T-10), f 1 (T-9), zero 0, minus -4
    assert value("top_products_lifetime", history) == ["b", "a", "c", "f", "d"]
    assert value("top_products_lifetime", history[::-1]) == ["b", "a", "c", "f", "d"]
    assert value("units_30d", history) == -1 - 2 + 2 + 1 + 1 + 1 + 1
    # a line of quantity 0 weighs nothing, yet its time is the product's last time
    tied = [bought("o1", T - 9, ("x", 1)), bought("o2", T - 10, ("y", 1)), bought("o3", T - 1, ("y", 0))]
    assert value("top_products_lifetime", tied) == ["y", "x"]
    assert value("top_products_lifetime", tied[::-1]) == ["y", "x"]
    # fewer than five have weight: nothing of weight 0 or less fills the list
    assert value("top_products_lifetime", [bought("o", T - 1, ("zero", 0), ("minus", -1), ("plus", 1))]) == ["plus"]


def test_active_hours_are_utc_hours_of_the_week_from_monday():
    assert oracle.hour_of_week(1_735_516_800_000) == 0  # Monday 2024-12-30 00:00
    assert oracle.hour_of_week(1_735_516_799_999) == 167  # one millisecond before
    assert oracle.hour_of_week(T) == 60  # Wednesday 12h
    assert oracle.hour_of_week(0) == 72  # Thursday 00h
    history = [
        *each("page", T - 1, T - 2, T - HOUR_MS - 1),  # Wednesday 11h twice, 10h
        *each("view", T - 2 * HOUR_MS),  # Wednesday 10h
        *each("email_clicked", T - 2 * HOUR_MS - 1),  # Wednesday 09h
        *each("email_opened", T - 5 * HOUR_MS),  # does not count
        *each("order", T - 5 * HOUR_MS),
    ]
    assert value("active_hours_30d", history) == [59, 58, 57]
    # equal weights: the later last time first, then the smaller hour is never asked (one instant has one hour)
    early = [entry("a", T - DAY_MS, FactBody("page")), entry("b", T - 2 * HOUR_MS, FactBody("page"))]
    assert value("active_hours_30d", early) == [58, 36]
    four = [*early, entry("c", T - 1, FactBody("page")), entry("d", T - 30 * DAY_MS, FactBody("page"))]
    assert value("active_hours_30d", four) == [59, 58, 36]
    two = [entry("e", T - 8 * DAY_MS, FactBody("page"))]  # hour 36 a second time
    assert value("active_hours_30d", [*four, *two]) == [36, 59, 58]


# --- money ------------------------------------------------------------------------------------------------------------
def test_a_currency_appears_iff_a_fact_of_it_carries_an_amount():
    history = [
        entry("o1", T - 3, FactBody("order", amount_minor=500, currency="USD")),
        entry("o2", T - 2, FactBody("order", amount_minor=-500, currency="USD")),
        entry("o3", T - 2, FactBody("order", amount_minor=0, currency="GBP")),
        entry("o4", T - 2, FactBody("order", currency="EUR")),
        entry(
            "o5", T - 1, FactBody("order", amount_minor=12, currency="CHF"), FactBody("purchase", amount_minor=9, currency="SEK")
        ),
        entry("r1", T - 1, FactBody("refund", currency="EUR")),
        entry("r2", T - 1, FactBody("refund", amount_minor=3, currency="JPY")),
    ]
    assert value("revenue_lifetime", history) == {"CHF": 12, "GBP": 0, "USD": 0}
    assert list(value("revenue_lifetime", history)) == ["CHF", "GBP", "USD"]
    assert value("average_order", history) == {"CHF": 12, "GBP": 0, "USD": 0}
    assert value("refunds_lifetime", history) == {"JPY": 3}
    assert value("orders_lifetime", history) == 5


@pytest.mark.parametrize(
    ("amounts", "average"),
    [
        ((1, 2), 2),  # 1.5
        ((-1, -2), -2),  # -1.5, away from zero
        ((1, 0), 1),  # 0.5
        ((-1, 0), -1),  # -0.5
        ((1, 0, 0), 0),  # 0.33
        ((-1, 0, 0), 0),
        ((5, 0, 0), 2),  # 1.67
        ((-5, 0, 0), -2),
        ((10, None, None, 5), 8),  # orders without an amount are no divisor: 7.5
        ((10**15, 10**15 - 1), 10**15),
    ],
)
def test_average_order_rounds_half_away_from_zero(amounts, average):
    orders = [entry(f"o{n}", T - 1, FactBody("order", amount_minor=a, currency="USD")) for n, a in enumerate(amounts)]
    assert value("average_order", orders) == {"USD": average}


# --- latest -----------------------------------------------------------------------------------------------------------
def test_latest_trait_by_event_time_then_event_id_then_ordinal_never_arrival():
    def trait(event_id, at, *pairs, **where):
        return entry(event_id, at, *(FactBody("trait", key=k, value=v) for k, v in pairs), **where)

    history = [
        trait("e9", T - 20, ("first_name", "late arrival"), ("tier", "gold"), broker_ms=T),
        trait("e1", T - 10, ("first_name", "Ada"), ("locale", "en"), ("color", "red")),
        trait("e2", T - 10, ("first_name", ""), ("country", "CH"), ("country", "DE")),
        trait("e3", T, ("first_name", "future")),
    ]
    found = oracle.values(history, T)
    assert (found["first_name"], found["locale"], found["country"], found["tier"]) == ("", "en", "DE", "gold")
    assert oracle.values(history, T + 1)["first_name"] == "future"


def test_consent_is_the_latest_of_the_purpose_marketing():
    def consent(event_id, at, **purposes):
        return entry(event_id, at, *(FactBody("consent", key=k, value=v) for k, v in sorted(purposes.items())))

    history = [consent("a", T - 9, marketing="granted"), consent("b", T - 5, analytics="denied")]
    assert value("consent_marketing", history) == "granted"
    history.append(consent("c", T - 3, marketing="denied", analytics="granted"))
    assert value("consent_marketing", history) == "denied"
    assert value("consent_marketing", history, T - 3) == "granted"
    assert value("consent_marketing", history, T - 9) is None


# --- interest ---------------------------------------------------------------------------------------------------------
def test_interest_halves_in_seven_days():
    def score(at, t=T):
        return value("interest", [entry("v", at, FactBody("view", category="c"))], t).get("c")

    assert score(T - WEEK_MS) == 0.5
    assert score(T - 2 * WEEK_MS) == 0.25
    assert score(T - WEEK_MS // 2) == 0.707107  # 2 ** -0.5 = 0.70710678
    assert score(T - 1) == 1.0  # 0.9999999989
    assert score(T) is None
    # a thousand views show one millisecond: 500 * 2 ** (-1 / HL) = 499.99999943
    many = [entry("v", T - WEEK_MS, *[FactBody("view", category="c")] * 1000)]
    assert [value("interest", many, t)["c"] for t in (T - 1, T, T + 1)] == [500.000001, 500.0, 499.999999]
    # 2 ** -20 = 0.00000095 rounds to 0.000001; 2 ** -21 = 0.00000048 rounds to nothing and is dropped
    assert score(T - 20 * WEEK_MS) == 0.000001
    assert score(T - 21 * WEEK_MS) is None
    assert score(631_152_000_000, 7_258_118_399_999) is None


def test_interest_ranks_rounded_scores_then_names_and_keeps_five():
    def view(n, at, category):
        return entry(f"v{n}", at, FactBody("view", category=category))

    week, two = T - WEEK_MS, T - 2 * WEEK_MS
    history = [
        view(1, week, "b"),  # 0.5
        view(2, two, "a"),
        view(3, two, "a"),  # 0.5
        view(4, week, "c"),
        view(5, two, "c"),  # 0.75
        view(6, T - 3 * WEEK_MS, "d"),  # 0.125
        view(7, T - 4 * WEEK_MS, "e"),  # 0.0625
        view(8, T - 5 * WEEK_MS, "f"),  # 0.03125
        view(9, T - 1, None),
    ]
    found = value("interest", history)
    assert list(found.items()) == [("c", 0.75), ("a", 0.5), ("b", 0.5), ("d", 0.125), ("e", 0.0625)]
    assert list(value("interest", history[::-1]).items()) == list(found.items())
    # one millisecond apart: different before rounding, equal after it, so the name decides
    assert list(value("interest", [view(1, week + 1, "y"), view(2, week, "x")])) == ["x", "y"]


def test_decayed_unit_is_two_to_the_fraction_in_units_of_two_to_minus_forty():
    assert oracle.decayed_unit(0) == 2**40
    with localcontext() as context:
        context.prec = 60
        for r_ms in (1, 2, 845, 846, 847, 846**2 - 1, 846**2, WEEK_MS // 2, WEEK_MS - 1, *range(12_345, WEEK_MS, 7_654_321)):
            exact = Decimal(2) ** (Decimal(r_ms) / WEEK_MS) * 2**40
            assert abs(oracle.decayed_unit(r_ms) - exact) <= Decimal("0.502"), r_ms

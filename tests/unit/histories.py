"""Small histories written by hand, for the tests of the oracle."""

from __future__ import annotations

import itertools

from twofold.events import Entry, FactBody
from twofold.families import FAMILIES
from twofold.testing import oracle
from twofold.timeline import DAY_MS

T = 1_735_732_800_000  # 2025-01-01T12:00:00Z, a Wednesday
WEEK_MS = 7 * DAY_MS
_offsets = itertools.count()


def entry(event_id, at_ms, *facts, person="user:1", topic="T", partition=0, offset=None, broker_ms=None, verdict="ok"):
    return Entry(
        "1/x",
        topic,
        partition,
        next(_offsets) if offset is None else offset,
        at_ms if broker_ms is None else broker_ms,
        verdict,
        person,
        event_id,
        at_ms,
        "web",
        "phone",
        facts,
    )


def each(kind, *times, **columns):
    """One entry for each time, with one fact of the kind."""
    return [entry(f"{kind}{n}", at, FactBody(kind, **columns)) for n, at in enumerate(times)]


def value(name, entries, t=T):
    return oracle.values(entries, t)[name]


EMPTY = {
    "page_views_1h": 0,
    "page_views_1d": 0,
    "page_views_7d": 0,
    "page_views_30d": 0,
    "product_views_30d": 0,
    "distinct_products_viewed_7d": 0,
    "recent_products": [],
    "top_categories_30d": [],
    "cart_adds_7d": 0,
    "last_cart_add_at": None,
    "orders_lifetime": 0,
    "orders_30d": 0,
    "revenue_lifetime": {},
    "refunds_lifetime": {},
    "units_30d": 0,
    "first_order_at": None,
    "last_order_at": None,
    "top_products_lifetime": [],
    "average_order": {},
    "emails_sent_7d": 0,
    "email_opens_30d": 0,
    "email_clicks_30d": 0,
    "last_email_click_at": None,
    "interest": {},
    "active_hours_30d": [],
    "first_name": None,
    "locale": None,
    "country": None,
    "tier": None,
    "consent_marketing": None,
    **{name: told.nothing for family in FAMILIES.values() for name, told in family.told.items()},
}

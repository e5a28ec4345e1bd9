"""A few segments, each said twice: as a rule of the grammar and as plain Python over the values of a record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twofold.catalogue import CATALOGUE
from twofold.rule_grammar import parse_rule
from twofold.rules import features_of
from twofold.segments import Segment, Segments
from twofold.timeline import DAY_MS, HOUR_MS

Holds = Callable[[Mapping[str, Any], int], bool]


def _older(at: int | None, t: int, width_ms: int) -> bool:
    return at is not None and t - at > width_ms


#: name -> (rule, the same in Python)
NAIVE: dict[str, tuple[str, Holds]] = {
    "cart_waits": (
        "abandoned_cart_since is not null and not consent_marketing = 'denied'",
        lambda v, _t: v["abandoned_cart_since"] is not None and v["consent_marketing"] != "denied",
    ),
    "came_back": ("sessions_7d >= 2 and streak_days = 1", lambda v, _t: v["sessions_7d"] >= 2 and v["streak_days"] == 1),
    "lapsed": (
        "orders_lifetime >= 1 and last_order_at older than 7 d",
        lambda v, t: v["orders_lifetime"] >= 1 and _older(v["last_order_at"], t, 7 * DAY_MS),
    ),
    "reader": (
        "email_opens_30d >= 1 and (last_email_click_at within 1 h or ctr_30d > 0.5)",
        lambda v, t: (
            v["email_opens_30d"] >= 1
            and ((v["last_email_click_at"] or -DAY_MS) >= t - HOUR_MS or (v["ctr_30d"] is not None and v["ctr_30d"] > 0.5))
        ),
    ),
    "spender": (
        "revenue_lifetime.USD >= 2 or recent_products contains 'a'",
        lambda v, _t: v["revenue_lifetime"].get("USD", 0) >= 2 or "a" in v["recent_products"],
    ),
}
SEGMENTS = Segments(Segment(name, parse_rule(rule, CATALOGUE)) for name, (rule, _holds) in NAIVE.items())


def wrong_segment(names: tuple[str, ...], right: Mapping[str, Any], fields: Mapping[str, str], t: int) -> str | None:
    """What is wrong with the segments of a record: ``right`` are the values that it should have, ``fields`` their states.

    Where a rule reads a field that is not exact nothing is held.
    """
    if list(names) != sorted(set(names)) or not set(names) <= set(NAIVE):
        return f"segments are {names}"
    for segment in SEGMENTS:
        if all(fields[feature] == "exact" for feature in features_of(segment.rule)):
            holds = NAIVE[segment.name][1](right, t)
            if holds != (segment.name in names):
                return f"{'not in' if holds else 'in'} segment {segment.name}, {NAIVE[segment.name][0]}"
    return None

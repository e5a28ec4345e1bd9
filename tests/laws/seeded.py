"""Facts of one person from a seeded generator: the corners of ``testing.strategies`` at a hundredth of the cost of drawing each."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from twofold.events import EMAIL_KINDS, MAX_FUTURE_MS, Entry, FactBody
from twofold.testing.strategies import CURRENCIES, NAMES, NOW_MS, PURPOSES, TRAIT_KEYS, TRAIT_VALUES, WIDTHS_MS
from twofold.timeline import DAY_MS, EARLIEST_MS, MINUTE_MS

QUANTITIES = (-3, -1, 0, 1, 1, 2, 5, -(10**9), 10**9)
AMOUNTS = (0, 1, -1, 199, 2_000, -300, 10**15, -(10**15))
#: Kinds of a first fact; one email kind stands for all.
KINDS = (
    "page",
    *("view",) * 2,
    "cart_add",
    "cart_remove",
    *("order",) * 2,
    "refund",
    "trait",
    "consent",
    "custom",
    "other",
    "email",
    *("retraction",) * 2,
)


def _or_null(r: random.Random, values: Sequence[Any]) -> Any:
    return None if r.random() < 0.25 else r.choice(values)


def event_time(r: random.Random) -> int:
    """Often on an edge of a window at ``NOW_MS`` or equal to another, sometimes years old, sometimes after it."""
    match r.randrange(8):
        case 0 | 1 | 2:
            return NOW_MS - r.choice(WIDTHS_MS) * r.choice((0, 0, 1, 1, 1, 2, 52)) + r.choice((-1, 0, 1))
        case 3 | 4:
            return NOW_MS - r.choice((5, MINUTE_MS))
        case 5:
            return NOW_MS + r.randrange(-730 * DAY_MS, 5 * DAY_MS)
        case 6:
            return NOW_MS + r.randrange(-90 * DAY_MS, 5 * DAY_MS)
    return r.choice((EARLIEST_MS, NOW_MS))


def bodies(r: random.Random, kind: str | None = None, targets: Sequence[str] = ("nothing",)) -> tuple[FactBody, ...]:
    """The facts of one entry, as admission could yield them; ``kind``: of one of them; a retraction is of one of ``targets``."""
    kind = r.choice(KINDS) if kind is None else "order" if kind == "purchase" else kind
    name, other = _or_null(r, NAMES), _or_null(r, NAMES)
    match kind:
        case "page":
            return (FactBody("page", key=name),)
        case "view":
            return (FactBody("view", product=name, category=other),)
        case "cart_add" | "cart_remove":
            return (FactBody(kind, product=name, category=other, quantity=r.choice(QUANTITIES)),)
        case "refund":
            return (FactBody("refund", key=name, amount_minor=_or_null(r, AMOUNTS), currency=r.choice(CURRENCIES)),)
        case "order":
            currency = r.choice(CURRENCIES)
            bought = (
                FactBody(
                    "purchase",
                    product=_or_null(r, NAMES),
                    category=_or_null(r, NAMES),
                    quantity=r.choice(QUANTITIES),
                    amount_minor=_or_null(r, AMOUNTS),
                    currency=currency,
                )
                for _ in range(r.randrange(5))
            )
            return (FactBody("order", key=name, amount_minor=_or_null(r, AMOUNTS), currency=currency), *bought)
        case "trait":
            keys = sorted(r.sample(TRAIT_KEYS, r.randint(1, 3)))
            return tuple(FactBody("trait", key=key, value=r.choice(("", *TRAIT_VALUES.get(key, NAMES)))) for key in keys)
        case "consent":
            keys = sorted(r.sample(PURPOSES, r.randint(1, 2)))
            return tuple(FactBody("consent", key=key, value=r.choice(("granted", "denied"))) for key in keys)
        case "email":
            return (FactBody(r.choice(list(EMAIL_KINDS.values())), campaign=name, key=other),)
        case "retraction":
            return (FactBody("retraction", key=r.choice(targets)),)
        case _ if kind in EMAIL_KINDS.values():
            return (FactBody(kind, campaign=name, key=other),)
    return (FactBody(kind, key=r.choice(NAMES)),)


def entries(r: random.Random, most: int = 12, least: int = 0) -> list[Entry]:
    """``least`` to ``most`` ok entries of ``user:1`` with distinct event ids, in arrival order."""
    log = []
    ids = [f"{r.choice(('e', 'E', 'é', '😀', chr(0xFFEE)))}{number}" for number in range(r.randint(least, most))]
    for number, event_id in enumerate(ids):
        at = event_time(r)
        place = ("topic-a", r.randrange(3), number)
        channel, device = _or_null(r, ("web", "email")), _or_null(r, ("phone", "tv"))
        log.append(
            Entry(
                "1/test",
                *place,
                at + MAX_FUTURE_MS,
                "ok",
                "user:1",
                event_id,
                at,
                channel,
                device,
                bodies(r, targets=(*ids, "nothing")),
            )
        )
    return log

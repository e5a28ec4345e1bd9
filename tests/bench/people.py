"""One person's entries for the benchmarks: the mix of a busy shop customer, seeded."""

from __future__ import annotations

import random

from twofold.catalogue import VERSION
from twofold.events import Entry, FactBody
from twofold.timeline import DAY_MS

KINDS = ("page",) * 4 + ("view",) * 5 + ("cart_add", "order", "email_sent", "email_opened", "email_clicked", "trait", "consent")


def entries(seed: int, first: int, count: int, newest_ms: int, topic_id: str, partitions: int = 4) -> list[Entry]:
    """Ok entries of ``user:1`` at positions from ``first``, event times over the 35 days before ``newest_ms``."""
    r = random.Random(seed)
    out = []
    for number in range(first, first + count):
        kind = r.choice(KINDS)
        key = {
            "page": f"/p/{r.randrange(100)}",
            "trait": r.choice(("first_name", "locale", "country", "tier")),
            "consent": "marketing",
        }
        body = FactBody(
            kind,
            product=f"p{r.randrange(200)}" if kind in ("view", "cart_add") else None,
            category=f"c{r.randrange(12)}" if kind == "view" else None,
            key=key.get(kind, f"k{number}"),
            value={"consent": "granted", "trait": "x"}.get(kind),
            amount_minor=r.randrange(10_000) if kind == "order" else None,
            currency="USD" if kind == "order" else None,
            quantity=1 if kind == "cart_add" else None,
        )
        facts = [body]
        if kind == "order":
            facts += [
                FactBody("purchase", product=f"p{r.randrange(200)}", quantity=2, amount_minor=500, currency="USD") for _ in range(2)
            ]
        at = newest_ms - r.randrange(35 * DAY_MS)
        event_id = f"{r.getrandbits(64):016x}-{number}"
        position = (topic_id, number % partitions, number)
        out.append(Entry(VERSION, *position, at, "ok", "user:1", event_id, at, "web", "mobile", tuple(facts)))
    return out

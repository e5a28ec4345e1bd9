"""`wide_campaign` against a plain recomputation: thousands of drawn events, and the rule of credit at its edges."""

from __future__ import annotations

import random
from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from twofold.events import EMAIL_KINDS, FACT_KINDS, FACT_RULES, Entry, FactBody
from twofold.spark.campaigns import CAMPAIGN_COLUMNS, CREDIT_MS, campaign_rows
from twofold.spark.state_rows import ENTRY
from twofold.spark.tables import ARCHIVE_COLUMNS
from twofold.testing import oracle
from twofold.testing.strategies import NOW_MS
from twofold.timeline import DAY_MS, HOUR_MS

pytestmark = pytest.mark.spark

BODY = ("kind", "product", "category", "campaign", "amount_minor", "currency", "quantity", "key", "value")
_TYPES = {**{name: type_ for name, type_, _comment in ARCHIVE_COLUMNS}, "topic": "int"}
SCHEMA = ",".join(f"{name} {_TYPES[name]}" for name in ENTRY)
COUNTS = {
    "email_sent": "sent",
    "email_delivered": "delivered",
    "email_opened": "opened",
    "email_clicked": "clicked",
    "email_bounced": "bounced",
    "email_unsubscribed": "unsubscribed",
}


def entry(offset: int, person: str, at_ms: int, *facts: FactBody, event_id=None, broker_ms=None) -> Entry:
    broker_ms = at_ms if broker_ms is None else broker_ms
    return Entry("1/x", "topic-a", 0, offset, broker_ms, "ok", person, event_id or f"e{offset}", at_ms, "web", None, facts)


def drawn(seed: int, persons: int, events: int) -> list[Entry]:
    """Few campaigns, times on the edges of days and of the credit, retractions, copies that differ in kind, time and campaign."""
    draw = random.Random(seed)
    midnight = NOW_MS - NOW_MS % DAY_MS
    bases = [NOW_MS, midnight, midnight - 2 * DAY_MS, NOW_MS - 20 * DAY_MS]
    steps = [0, 0, 1, HOUR_MS, DAY_MS, 3 * DAY_MS, CREDIT_MS - 1, CREDIT_MS, CREDIT_MS + 1, 2 * CREDIT_MS]
    log: list[Entry] = []
    for offset in range(events):
        person, event_id = f"user:{draw.randrange(persons)}", f"e{offset}"
        at_ms = draw.choice(bases) - draw.choice(steps) + draw.choice((0, 0, 0, -1, 1))
        kind = draw.choice((*EMAIL_KINDS.values(), "email_clicked", "email_clicked", "order", "order", "order", "page", "refund"))
        if kind.startswith("email"):
            facts = [FactBody(kind, campaign=draw.choice(("c1", "c2", "ç3", None)))]
        elif kind in ("order", "refund"):
            amount = draw.choice((None, 0, 5, -3, 10**15))
            facts = [FactBody(kind, amount_minor=amount, currency=draw.choice(("USD", "EUR")))]
            facts += [FactBody("purchase", amount_minor=99, currency="USD")] * draw.randrange(3)
        else:
            facts = [FactBody(kind)]
        broker_ms = at_ms + draw.choice((0, 0, HOUR_MS, 40 * DAY_MS))
        if log and draw.randrange(5) == 0:
            of = draw.choice(log)
            person, event_id = of.person, of.event_id
        if log and draw.randrange(9) == 0:
            # Also of what its person does not have, and by a copy that loses.
            target = draw.choice(log)
            person = target.person if draw.random() < 0.8 else person
            facts = [FactBody("retraction", key=target.event_id)]
        log.append(entry(offset, person, at_ms, *facts, event_id=event_id, broker_ms=broker_ms))
    return log


def day_of(at_ms: int):
    return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)).date()


def plain_campaigns(log: list[Entry], as_of_ms: int) -> dict[tuple, dict]:
    """(campaign, day) -> counts and revenue, one loop over each person's events."""
    out: dict[tuple, dict] = {}

    def row(campaign: str, at_ms: int) -> dict:
        return out.setdefault((campaign, day_of(at_ms)), {"counts": Counter(), "revenue": Counter()})

    for _person, entries in oracle.by_person(oracle.winners(log, ("topic-a",))).items():
        facts = [(e.at_ms, e.event_id, fact) for e in entries if e.at_ms < as_of_ms for fact in e.facts]
        clicks = sorted((at, event_id, f.campaign) for at, event_id, f in facts if f.kind == "email_clicked" and f.campaign)
        for at, _event_id, fact in facts:
            if fact.kind in COUNTS and fact.campaign is not None:
                row(fact.campaign, at)["counts"][COUNTS[fact.kind]] += 1
            elif fact.kind == "order":
                before = [click for click in clicks if click[0] <= at]
                if before and at < before[-1][0] + CREDIT_MS:
                    clicked_ms, _id, campaign = before[-1]
                    credited = row(campaign, clicked_ms)
                    credited["counts"]["orders"] += 1
                    if fact.amount_minor is not None:
                        # Not `+=` on a missing key: a sum of 0 is a currency too.
                        credited["revenue"][fact.currency] = credited["revenue"][fact.currency] + fact.amount_minor
    return out


def native_campaigns(spark, log: list[Entry], as_of_ms: int) -> dict[tuple, dict]:
    rows = []
    for e in log:
        columns = {name: getattr(e, name, 0) for name in ENTRY}
        rows.append(tuple({**columns, "facts": [tuple(getattr(f, n) for n in BODY) for f in e.facts]}[name] for name in ENTRY))
    found = campaign_rows(spark.createDataFrame(rows, SCHEMA), as_of_ms, 2).collect()
    assert [(r.campaign.encode(), r.day) for r in found] == sorted((r.campaign.encode(), r.day) for r in found)
    counts = ("sent", "delivered", "opened", "clicked", "bounced", "unsubscribed", "orders")
    return {(r.campaign, r.day): {"counts": Counter({n: r[n] for n in counts if r[n]}), "revenue": {**r.revenue}} for r in found}


def test_drawn_events(spark):
    log = drawn(11, persons=200, events=6_000)
    expected = plain_campaigns(log, NOW_MS - HOUR_MS)
    found = native_campaigns(spark, log, NOW_MS - HOUR_MS)
    assert found == {key: {**row, "revenue": {**row["revenue"]}} for key, row in expected.items()}
    assert sum(row["counts"]["orders"] for row in found.values()) > 300
    assert any(0 in row["revenue"].values() for row in found.values()), "a currency whose sum is 0 stays"


def order(offset: int, person: str, at_ms: int, amount: int | None = 7) -> Entry:
    return entry(offset, person, at_ms, FactBody("order", amount_minor=amount, currency="USD"))


def click(offset: int, person: str, at_ms: int, campaign: str | None = "c", **options) -> Entry:
    return entry(offset, person, at_ms, FactBody("email_clicked", campaign=campaign), **options)


def back(offset: int, person: str, target: str, event_id: str | None = None) -> Entry:
    return entry(offset, person, NOW_MS - DAY_MS, FactBody("retraction", key=target), event_id=event_id, broker_ms=NOW_MS)


def test_the_edges_of_credit(spark):
    """One person a case, one campaign a person, so that one query judges them all."""
    t = NOW_MS - 30 * DAY_MS
    log = [
        *(click(1, "in", t, "in"), order(2, "in", t + CREDIT_MS - 1)),
        *(click(3, "out", t, "out"), order(4, "out", t + CREDIT_MS)),
        *(click(5, "same", t, "same"), order(6, "same", t)),
        *(click(7, "before", t + 1, "before"), order(8, "before", t)),
        *(click(9, "last", t, "first"), click(10, "last", t + 1, "last"), order(11, "last", t + 2)),
        *(click(12, "tie", t, "tie-a", event_id="a"), click(13, "tie", t, "tie-b", event_id="b"), order(14, "tie", t + 1)),
        *(click(15, "none", t, "named"), click(16, "none", t + 1, None), order(17, "none", t + 2)),
        *(click(18, "twice", t, "twice"), order(19, "twice", t + 1), order(20, "twice", t + 2, None)),
        *(click(21, "stranger", t, "stranger"), order(22, "other", t + 1)),
        *(click(23, "later", NOW_MS - 1, "later"), order(24, "later", NOW_MS)),
        # The first copy was no click: the click never was.
        *(click(25, "copy", t, "copy", event_id="x", broker_ms=t + 9), entry(26, "copy", t, FactBody("page"), event_id="x")),
        order(27, "copy", t + 1),
        # A click that was taken back credits nothing, the one before it does; nor does an order that was.
        *(click(28, "gone", t, "stays"), click(29, "gone", t + 1, "gone"), back(30, "gone", "e29"), order(31, "gone", t + 2)),
        *(back(32, "unbought", "e34"), click(33, "unbought", t, "unbought"), order(34, "unbought", t + 1)),
        # By a copy that loses, and by another person, which does nothing.
        *(click(35, "lost", t, "lost"), order(36, "lost", t + 1), order(37, "lost", t + 2)),
        *(back(38, "lost", "e36", event_id="e37"), back(39, "in", "e37")),
    ]
    found = {campaign: row for (campaign, _day), row in native_campaigns(spark, log, NOW_MS).items()}
    orders = {campaign: row["counts"]["orders"] for campaign, row in found.items()}
    assert orders == {
        **{"in": 1, "out": 0, "same": 1, "before": 0, "first": 0, "last": 1, "tie-a": 0, "tie-b": 1},
        **{"named": 1, "twice": 2, "stranger": 0, "later": 0},
        **{"stays": 1, "unbought": 0, "lost": 1},
    }
    assert found["twice"]["revenue"] == {"USD": Decimal(7)} and found["out"]["revenue"] == {}


def test_a_mail_or_an_order_is_its_entry_s_first_fact():
    """The native query reads only that one."""
    items = {rule.item_kind for rule in FACT_RULES}
    assert not items & {"order", *COUNTS} and {"order", *COUNTS} <= set(FACT_KINDS)
    assert all(rule.entries_of is None for rule in FACT_RULES if rule.kind in {"order", *COUNTS})
    assert {name for name, _type, _comment in CAMPAIGN_COLUMNS} >= set(COUNTS.values())

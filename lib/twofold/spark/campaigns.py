"""`wide_campaign`: what became of each campaign's e-mails, day by day, and the orders that followed its clicks.

A row is a campaign and a UTC day. E-mail facts count on the day of their own event time. An order counts for the **last click
of the same person within the 7 days up to it** (``order - 7 d < click <= order``; of clicks at one instant the larger event id)
and on the day of that click, whatever came between: a second order within the 7 days counts for the same click again. Events
without a campaign are of no campaign, so a click without one takes no order away from a click before it. As everywhere, the
first ok copy of an event is the one that counts, of an event that was taken back none, and only facts before ``as_of``.
"""

from __future__ import annotations

from pyspark.sql import Column, DataFrame, Window
from pyspark.sql import functions as F

from twofold.spark.lower import MONEY
from twofold.spark.state_rows import RANK, target_hash, winners
from twofold.timeline import DAY_MS

#: How long after a click an order counts for it.
CREDIT_MS = 7 * DAY_MS
#: column -> the kind of fact that it counts
_COUNTED = {
    "sent": "email_sent",
    "delivered": "email_delivered",
    "opened": "email_opened",
    "clicked": "email_clicked",
    "bounced": "email_bounced",
    "unsubscribed": "email_unsubscribed",
}
CAMPAIGN_COLUMNS = (
    ("campaign", "string", "campaign id"),
    ("day", "date", "UTC day of the e-mail event; of an order: of the click it counts for"),
    ("sent", "bigint", "e-mails sent"),
    ("delivered", "bigint", "e-mails delivered"),
    ("opened", "bigint", "opens, each one counted"),
    ("clicked", "bigint", "link clicks, each one counted"),
    ("bounced", "bigint", "e-mails bounced"),
    ("unsubscribed", "bigint", "unsubscribes from an e-mail of the campaign"),
    ("orders", "bigint", "orders within 7 days of a click, each counted for the person's last click before it"),
    ("revenue", f"map<string,{MONEY}>", "totals of those orders by currency, minor units"),
)


def _day(at_ms: Column) -> Column:
    return F.date_from_unix_date(F.call_function("div", at_ms, F.lit(DAY_MS).cast("bigint")).cast("int"))


def _mail_and_orders(entries: DataFrame) -> DataFrame:
    """Entries as their first fact, which is where an e-mail or an order stands; what is neither keeps only its rank.

    It has to keep that: a copy of another kind may be the one that wins. Of a retraction ``target``: what it takes back.
    """
    fact = F.get("facts", F.lit(0))
    kind, campaign = fact["kind"], fact["campaign"]
    counts = (kind == "order") | (kind.isin(*_COUNTED.values()) & campaign.isNotNull())
    columns = {name: F.when(counts, fact[name]).alias(name) for name in ("kind", "campaign", "amount_minor", "currency")}
    return entries.select("person", "event_id", "at_ms", *RANK, *columns.values(), target_hash().alias("target"))


def campaign_rows(entries: DataFrame, as_of_ms: int, partitions: int) -> DataFrame:
    """Rows of ``CAMPAIGN_COLUMNS`` from ok entries (columns of ``ENTRY``) at ``as_of_ms``, sorted; one shuffle by person."""
    placed = _mail_and_orders(entries).repartition(partitions, "person")
    # Of all copies: one that loses takes its target back all the same.
    won = winners(placed.withColumn("_retracted", F.collect_set("target").over(Window.partitionBy("person"))))
    taken_back = F.array_contains("_retracted", F.xxhash64("event_id"))
    facts = won.where(F.col("kind").isNotNull() & (F.col("at_ms") < as_of_ms) & ~taken_back).drop("target", "_retracted")

    is_order = F.col("kind") == "order"
    click = F.when(F.col("kind") == _COUNTED["clicked"], F.struct("at_ms", "campaign"))
    # A click at the instant of an order comes before it.
    until = Window.partitionBy("person").orderBy("at_ms", is_order, "event_id").rowsBetween(Window.unboundedPreceding, 0)
    placed = facts.withColumn("_click", F.last(click, ignorenulls=True).over(until))
    last = F.col("_click")
    counted = placed.where(~is_order | (last["at_ms"] > F.col("at_ms") - CREDIT_MS)).select(
        F.when(is_order, last["campaign"]).otherwise(F.col("campaign")).alias("campaign"),
        _day(F.when(is_order, last["at_ms"]).otherwise(F.col("at_ms"))).alias("day"),
        "kind",
        F.when(is_order, F.struct("currency", "amount_minor")).alias("paid"),
    )

    # By currency first: then nothing is collected but a sum a currency.
    currency, amount = F.col("paid.currency"), F.col("paid.amount_minor")
    sums = counted.groupBy("campaign", "day", F.when(amount.isNotNull(), currency).alias("currency")).agg(
        *(F.count_if(F.col("kind") == kind).alias(name) for name, kind in _COUNTED.items()),
        F.count_if(F.col("paid").isNotNull()).alias("orders"),
        F.sum(amount.cast(MONEY)).cast(MONEY).alias("paid"),
    )
    carried = F.when(F.col("currency").isNotNull(), F.struct("currency", "paid"))
    rows = sums.groupBy("campaign", "day").agg(
        *(F.sum(name).alias(name) for name in (*_COUNTED, "orders")),
        F.map_from_entries(F.sort_array(F.collect_list(carried))).alias("revenue"),
    )
    typed = (F.col(name).cast(type_).alias(name, metadata={"comment": comment}) for name, type_, comment in CAMPAIGN_COLUMNS)
    return rows.coalesce(1).sortWithinPartitions("campaign", "day").select(*typed)

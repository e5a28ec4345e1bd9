"""An archive of generated events, made by Spark alone: the mix of a shop with e-mail, every column a hash of the event's number."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from twofold.events import ADMISSION_VERSION
from twofold.settings import Settings
from twofold.spark.admission import FACTS_TYPE
from twofold.spark.session import open_session
from twofold.spark.tables import ARCHIVE_COLUMNS, create_archive
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.timeline import DAY_MS, HOUR_MS, Offsets, PartitionKey

TOPIC = "bench"
PARTITIONS = 4
#: The largest broker time of every archive made here.
NEWEST_MS = 1_780_000_000_000
HISTORY_DAYS = 730
#: The rebuild's own split, 35 days before the newest entry: a quarter of the events is older.
RECENT_DAYS = 35
#: kind -> events of a thousand
MIX = {
    **{"page": 340, "view": 250, "cart_add": 60, "cart_remove": 10, "order": 40, "refund": 5, "trait": 40, "consent": 10},
    **{"email_sent": 130, "email_opened": 55, "email_clicked": 25, "email_unsubscribed": 2, "email_complained": 1},
    **{"custom": 22, "other": 10},
}
_BODY = ("kind", "product", "category", "campaign", "amount_minor", "currency", "quantity", "key", "value")
_CARTS = ("view", "cart_add", "cart_remove")


def log_start() -> Offsets:
    return Offsets({PartitionKey(TOPIC, partition): 0 for partition in range(PARTITIONS)})


@contextmanager
def generated_home(driver_memory: str, kept: str | None = None) -> Iterator[tuple[Settings, Any]]:
    """A home of the log of archives made here, which goes at the end unless it is ``kept``, and a Spark session for it."""
    with tempfile.TemporaryDirectory() as home:
        settings = Settings(home=kept or home)
        settings.home_path.mkdir(parents=True, exist_ok=True)
        spark = open_session(settings, "bench", spark__driver__memory=driver_memory)
        try:
            write_home_log(settings.home_path, HomeLog(TOPIC, log_start(), 0))
            yield settings, spark
        finally:
            spark.stop()


def _draw(salt: int, below: int) -> Column:
    """An integer in ``[0, below)`` that depends on the event's number and the salt."""
    return F.pmod(F.xxhash64(F.col("number"), F.lit(salt)), F.lit(below))


def _kind() -> Column:
    kinds = F.array(*(F.lit(kind) for kind, share in MIX.items() for _ in range(share)))
    return F.get(kinds, _draw(1, 1_000).cast("int"))


def _fact(**columns: Column) -> Column:
    return F.struct(*(columns.get(name, F.lit(None)).alias(name) for name in _BODY))


def _facts() -> Column:
    kind = F.col("kind")

    def only(kinds: tuple[str, ...], value: Column) -> Column:
        return F.when(kind.isin(*kinds), value)

    emails = tuple(name for name in MIX if name.startswith("email"))
    currency = F.when(_draw(8, 10) == 0, "EUR").otherwise("USD")
    trait = F.get(F.array(*map(F.lit, ("first_name", "locale", "country", "tier"))), _draw(7, 4).cast("int"))
    key = (
        F.when(kind == "page", F.concat(F.lit("/p/"), _draw(2, 500)))
        .when(kind == "trait", trait)
        .when(kind == "consent", F.lit("marketing"))
        .when(~kind.isin(*_CARTS), F.concat(F.lit("k"), F.col("number")))
    )
    said = F.when(_draw(9, 5) == 0, "denied").otherwise("granted")
    first = _fact(
        kind=kind,
        product=only(_CARTS, F.concat(F.lit("p"), _draw(3, 5_000))),
        category=only(_CARTS, F.concat(F.lit("c"), _draw(4, 12))),
        campaign=only(emails, F.concat(F.lit("m"), _draw(5, 200))),
        amount_minor=only(("order", "refund"), _draw(6, 50_000)),
        currency=only(("order", "refund"), currency),
        quantity=only(("cart_add", "cart_remove"), F.lit(1)),
        key=key,
        value=F.when(kind == "trait", F.concat(F.lit("v"), _draw(9, 50))).when(kind == "consent", said),
    )

    def bought(salt: int) -> Column:
        return _fact(
            kind=F.lit("purchase"),
            product=F.concat(F.lit("p"), _draw(salt, 5_000)),
            category=F.concat(F.lit("c"), _draw(salt, 12)),
            amount_minor=_draw(salt + 1, 9_000),
            currency=currency,
            quantity=_draw(salt + 2, 3) + 1,
        )

    items = F.slice(F.array(*(bought(salt).cast(_ITEM) for salt in (20, 30, 40))), F.lit(1), (_draw(10, 3) + 1).cast("int"))
    one = F.array(first.cast(_ITEM))
    return F.when(kind == "order", F.concat(one, items)).otherwise(one)


_ITEM = FACTS_TYPE.removeprefix("array<").removesuffix(">")


def make_archive(
    spark: Any,
    location: str,
    events: int,
    persons: int,
    tasks: int,
    part: tuple[int, int] | None = None,
    person: str | None = None,
) -> Offsets:
    """Write ``events`` ok entries in log order as one commit of the archive stream; returns its end offsets.

    ``part``: only those from a number up to another, for an archive of several commits; ``person``: all of them this one's.

    A quarter of the events spreads over two years up to the last 35 days, the rest over those; one entry in a hundred is a copy
    of an event up to a thousand places before it; a few persons are busy and many are quiet.
    """
    create_archive(spark, location)
    place = F.col("id")
    old = events // 4
    start_ms, recent_ms = NEWEST_MS - HISTORY_DAYS * DAY_MS, NEWEST_MS - RECENT_DAYS * DAY_MS

    def instant(of: Column) -> Column:
        slow, fast = (recent_ms - start_ms) // old, (NEWEST_MS - recent_ms) // (events - old)
        return F.when(of < old, start_ms + of * slow).otherwise(recent_ms + (of - old) * fast)

    is_copy = F.pmod(F.xxhash64(place, F.lit(99)), F.lit(100)) == 0
    earlier = F.greatest(F.lit(0), place - 1 - F.pmod(F.xxhash64(place, F.lit(98)), F.lit(1_000)))
    first, last = part or (0, events)
    numbered = spark.range(first, last, 1, tasks).select(place, F.when(is_copy, earlier).otherwise(place).alias("number"))
    share = _draw(11, 1_000_003) / 1_000_003
    columns = {
        "topic_id": F.lit(TOPIC),
        "partition": _draw(12, PARTITIONS),
        "offset": place,
        "broker_ms": instant(place),
        "verdict": F.lit("ok"),
        "admission_version": F.lit(ADMISSION_VERSION),
        "person": F.concat(F.lit("user:"), F.floor(share * share * persons)) if person is None else F.lit(person),
        "event_id": F.substring(F.md5(F.col("number").cast("string")), 1, 16),
        "at_ms": instant(F.col("number")) - _draw(13, HOUR_MS),
        "channel": F.when(F.col("kind").startswith("email"), "email").otherwise("web"),
        "device": F.get(F.array(F.lit("phone"), F.lit("desktop"), F.lit(None)), _draw(14, 3).cast("int")),
        "facts": _facts(),
        "key": F.lit(None),
        "value": F.encode(F.concat(F.lit('{"generated":'), place, F.lit("}")), "utf-8"),
        "headers": F.array(),
    }
    start, end = (Offsets(dict.fromkeys(log_start(), at)) for at in (first, last))
    metadata = {"start": start.to_json(), "end": end.to_json(), "app": "archive-bench", "batch": 0}
    rows = numbered.withColumn("kind", _kind())
    rows = rows.select(*(columns[name].cast(type_).alias(name) for name, type_, _comment in ARCHIVE_COLUMNS))
    rows.write.format("delta").mode("append").option("userMetadata", json.dumps(metadata)).save(location)
    return end

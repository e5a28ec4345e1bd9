"""The simulated shop as a feed: who acts when, and everything that goes wrong on the way to the log.

Seeded: the same options give the same bytes. Events come in order of arrival; memory does not grow with their number.
"""

from __future__ import annotations

from bisect import bisect
from collections.abc import Iterator
from heapq import heappop, heappush
from itertools import accumulate
from pathlib import Path
from random import Random
from typing import Any

from twofold.errors import UsageError
from twofold.local.convert.shop_events import PATHS, Shop, timestamp
from twofold.timeline import DAY_MS, HOUR_MS

#: 2025-06-30T00:00:00Z: every event of a default feed lies in the past.
DEFAULT_END_MS = 1_751_241_600_000
#: A copy comes this many events after its original at most.
MAX_COPY_DISTANCE = 20_000

#: Visits by hour of the day, UTC.
_HOURS = list(accumulate((2, 1, 1, 1, 1, 2, 3, 5, 7, 8, 8, 7, 8, 8, 7, 7, 8, 9, 11, 13, 14, 12, 8, 4)))


def _busy(share: float) -> float:
    """Share of the day at which this share of the day's visits have come."""
    visits = share * _HOURS[-1]
    hour = bisect(_HOURS, visits)
    before = _HOURS[hour - 1] if hour else 0
    return (hour + (visits - before) / (_HOURS[hour] - before)) / 24


def _copy(rng: Random, event: dict[str, Any], at_ms: int) -> dict[str, Any]:
    """A second copy under the same id: word for word, with another body, re-stamped, or without its user."""
    dice = rng.random()
    copy = dict(event)
    if dice < 0.6:
        return copy
    if dice < 0.8:
        body = dict(copy.get("properties") or {})
        if copy["type"] in ("page", "screen"):
            body["path"] = PATHS[int(rng.random() * len(PATHS))]
        elif "product_id" in body:
            body["product_id"] = "sku-other"
        elif "total" in body:
            body["total"] = "1.00"
        elif "purposes" in body:
            body["purposes"] = {"marketing": "denied"}
        elif "campaign_id" in body:
            body["campaign_id"] = "another"
        else:
            body["copy"] = 2
        copy["properties"] = body
    elif dice < 0.97 or "user_id" not in copy or "anonymous_id" not in copy:
        copy["occurred_at"] = timestamp(at_ms - int(rng.random() ** 4 * 40 * DAY_MS))
    else:
        del copy["user_id"]
    return copy


def _rejected(rng: Random, event: dict[str, Any]) -> dict[str, Any] | bytes:
    """The event as a careless producer sends it: no identity, no readable time, no JSON."""
    dice = rng.random()
    broken = dict(event)
    if dice < 0.4:
        broken.pop("user_id", None)
        broken.pop("anonymous_id", None)
    elif dice < 0.7:
        broken["occurred_at"] = "yesterday"
    elif dice < 0.85:
        broken["type"] = "tracked"
    else:
        return b'{"event_id":"' + str(event["event_id"]).encode() + b'","type":"page",'
    return broken


def convert_shop(
    file: Path | None = None,
    *,
    seed: int = 1,
    persons: int = 1_000,
    events: int = 50_000,
    start_ms: int | None = None,
    end_ms: int | None = None,
    days: int = 120,
    duplicates: float = 0.05,
    late: float = 0.05,
    late_max_days: int = 60,
    shuffle: int = 50,
    rejects: float = 0.001,
) -> Iterator[dict[str, Any] | bytes]:
    """A feed of exactly ``events`` lines over ``days`` days up to ``end_ms`` (or from ``start_ms``; not both).

    ``duplicates``, ``late``, ``rejects``: shares of the lines; ``late_max_days``: how far back a late event may lie;
    ``shuffle``: lines of a local disorder (0: none). No event time is later than ``end_ms`` (epoch ms), whose default is
    ``DEFAULT_END_MS``. Raises :class:`UsageError` for options that cannot be met.
    """
    if file is not None:
        raise UsageError("convert shop takes no FILE: the shop is simulated")
    if start_ms is not None and end_ms is not None:
        raise UsageError("convert shop: give start_ms or end_ms, not both; the span is `days`")
    if persons < 1 or events < 0 or days < 1 or shuffle < 0 or late_max_days < 1:
        raise UsageError("convert shop: persons, days and late_max_days must be at least 1, events and shuffle at least 0")
    if not (0 <= duplicates < 1 and 0 <= late <= 1 and 0 <= rejects <= 1):
        raise UsageError("convert shop: duplicates, late and rejects are shares between 0 and 1")
    if start_ms is None:
        start_ms = (DEFAULT_END_MS if end_ms is None else end_ms) - days * DAY_MS
    span = (start_ms, start_ms + days * DAY_MS)
    return _shuffled(
        Random(seed ^ 0x5EED),
        _feed(Random(seed), seed, persons, events, span, (duplicates, late, rejects), late_max_days),
        shuffle,
    )


def _shuffled(rng: Random, lines: Iterator[dict[str, Any] | bytes], width: int) -> Iterator[dict[str, Any] | bytes]:
    """The lines, each out of a waiting room of ``width`` others."""
    waiting: list[dict[str, Any] | bytes] = []
    for line in lines:
        waiting.append(line)
        if len(waiting) > width:
            spot = int(rng.random() * len(waiting))
            waiting[spot], waiting[-1] = waiting[-1], waiting[spot]
            yield waiting.pop()
    yield from waiting


def _feed(
    rng: Random,
    seed: int,
    persons: int,
    events: int,
    span: tuple[int, int],
    shares: tuple[float, float, float],
    late_max_days: int,
) -> Iterator[dict[str, Any] | bytes]:
    start, end = span
    duplicates, late, rejects = shares
    shop = Shop(rng, seed, start, end)
    met = bytearray(persons)
    copies: list[tuple[int, int, dict[str, Any]]] = []
    for number in range(events):
        if copies and copies[0][0] <= number:
            yield heappop(copies)[2]
            continue
        share = (number + rng.random()) / events * ((end - start) / DAY_MS)
        day = int(share)
        arrival = start + min(int((day + _busy(share - day)) * DAY_MS), end - start)
        # A few people do most; one visit in four is by anybody.
        who = int(persons * rng.random()) if rng.random() < 0.25 else int(persons ** rng.random()) - 1
        delay = HOUR_MS + rng.random() * (late_max_days * DAY_MS - HOUR_MS) if rng.random() < late else rng.random() ** 4 * 90_000
        at = arrival - int(delay)
        event = shop.next_event(who, not met[who], at)
        met[who] = 1
        if rng.random() * (1 - duplicates) < duplicates:
            again = number + 1 + int(rng.random() ** 3 * min(MAX_COPY_DISTANCE, max(1, events - number - 2)))
            heappush(copies, (again, number, _copy(rng, event, at)))
        yield _rejected(rng, event) if rng.random() < rejects else event

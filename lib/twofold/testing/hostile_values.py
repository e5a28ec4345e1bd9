"""What the hostile corpus is made of: events with one thing set, and values that sit on an edge of the contract."""

from __future__ import annotations

import json
from typing import Any

from twofold import events as E
from twofold.timeline import EARLIEST_MS, LATEST_MS

#: Broker time of the corpus: 2026-06-01T00:00:00Z.
BROKER_MS = 1_780_272_000_000
AT = "2026-05-31T23:59:00Z"


class Raw(str):
    """JSON text that stands for itself."""


def dump(value: Any) -> str:
    """JSON text of plain values and :class:`Raw` ones."""
    if isinstance(value, Raw):
        return str(value)
    if isinstance(value, dict):
        return "{" + ",".join(f"{json.dumps(name, ensure_ascii=False)}:{dump(item)}" for name, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ",".join(dump(item) for item in value) + "]"
    return json.dumps(value, ensure_ascii=False)


#: Stands for "leave this field out".
ABSENT = Raw("")


def event(**fields: Any) -> bytes:
    """A valid page event with ``fields`` set over it; a :class:`Raw` is inserted as JSON text, ``ABSENT`` drops the field."""
    base: dict[str, Any] = {
        "event_id": "e-1",
        "type": "page",
        "source_kind": "web",
        "occurred_at": AT,
        "user_id": "u-1",
        "properties": {"path": "/home"},
        "context": {"device": {"type": "phone"}},
    }
    return dump({name: value for name, value in {**base, **fields}.items() if value is not ABSENT}).encode("utf-8")


def track(name: Any, **properties: Any) -> bytes:
    """A track event of that name with these properties."""
    return event(type="track", name=name, properties={key: value for key, value in properties.items() if value is not ABSENT})


def order(*products: Any, **properties: Any) -> bytes:
    """An `Order Completed` with these products."""
    return track("Order Completed", **{"order_id": "o-1", "total": 10, "products": list(products), **properties})


#: Values of every JSON type, and their edges, for places that take one scalar.
SCALARS: dict[str, Any] = {
    "absent": ABSENT,
    "null": None,
    "empty": "",
    "text": "word",
    "spaces": "  ",
    "unicode": "žluťoučký 😀",
    "nul": Raw(r'"a\u0000b"'),
    "escaped": Raw(r'"\u0041\n\/\\"'),
    "zero": 0,
    "minus-zero": Raw("-0"),
    "minus-zero-point": Raw("-0.0"),
    "integer": 42,
    "negative": -7,
    "max-int64": 2**63 - 1,
    "min-int64": -(2**63),
    "above-int64": 2**63,
    "below-int64": -(2**63) - 1,
    "38-digits": Raw("9" * 38),
    "39-digits": Raw("9" * 39),
    "point-zero": Raw("3.0"),
    "decimal": Raw("1.50"),
    "38-decimal": Raw("0." + "1" * 38),
    "39-decimal": Raw("0." + "1" * 39),
    "mixed-38": Raw("1" * 20 + "." + "2" * 18),
    "mixed-39": Raw("1" * 20 + "." + "2" * 19),
    "many-zeros": Raw("1." + "0" * 37),
    "too-many-zeros": Raw("1." + "0" * 38),
    "zero-zeros-38": Raw("0." + "0" * 38),
    "zero-zeros-39": Raw("0." + "0" * 39),
    "exponent": Raw("1e3"),
    "exponent-upper": Raw("1E3"),
    "exponent-zero": Raw("1e0"),
    "exponent-small": Raw("25e-1"),
    "huge-exponent": Raw("1e400"),
    "tiny": Raw("0.0000001"),
    "hundred": Raw("100.00"),
    "true": True,
    "false": False,
    "object": {},
    "object-full": {"type": "phone", "a": 1},
    "array": [],
    "array-full": ["a"],
    "granted": "granted",
    "digits": "12",
    "true-text": "true",
    "number-text": "1.5",
    "object-text": '{"a":1}',
    "null-text": "null",
}

#: Values for `occurred_at`.
TIMES: dict[str, Any] = {
    "lower-t": "2026-05-31t00:00:00Z",
    "lower-z": "2026-05-31T00:00:00z",
    "space": "2026-05-31 00:00:00Z",
    "no-zone": "2026-05-31T00:00:00",
    "no-seconds": "2026-05-31T00:00Z",
    "date": "2026-05-31",
    "year": "2026",
    "only-time": "T12:00:00Z",
    "week": "2026-W22-1T00:00:00Z",
    "basic": "20260531T000000Z",
    "comma": "2026-05-31T00:00:00,5Z",
    "dot-nothing": "2026-05-31T00:00:00.Z",
    "fraction-1": "2026-05-31T00:00:00.9Z",
    "fraction-3": "2026-05-31T00:00:00.999Z",
    "fraction-4": "2026-05-31T00:00:00.9999Z",
    "fraction-9": "2026-05-31T00:00:00.999999999Z",
    "fraction-10": "2026-05-31T00:00:00.9999999999Z",
    "second-60": "2026-05-31T23:59:60Z",
    "hour-24": "2026-05-31T24:00:00Z",
    "minute-60": "2026-05-31T00:60:00Z",
    "month-13": "2026-13-01T00:00:00Z",
    "month-0": "2026-00-01T00:00:00Z",
    "day-0": "2026-05-00T00:00:00Z",
    "day-31-of-30": "2026-04-31T00:00:00Z",
    "day-32": "2026-05-32T00:00:00Z",
    "29-february": "2026-02-29T00:00:00Z",
    "leap-day": "2024-02-29T00:00:00Z",
    "leap-day-2000": "2000-02-29T00:00:00Z",
    "no-leap-day-2100": "2100-02-29T00:00:00Z",
    "year-0": "0000-01-01T00:00:00Z",
    "year-1": "0001-01-01T00:00:00Z",
    "year-9999": "9999-12-31T23:59:59Z",
    "five-digit-year": "12026-05-31T00:00:00Z",
    "plus-year": "+2026-05-31T00:00:00Z",
    "offset": "2026-05-31T00:00:00+05:30",
    "offset-negative": "2026-05-30T20:00:00-03:45",
    "offset-minus-half": "2026-05-31T00:00:00-00:30",
    "offset-minus-zero": "2026-05-31T00:00:00-00:00",
    "offset-18": "2026-05-31T18:00:00+18:00",
    "offset-minus-18": "2026-05-31T05:59:00-18:00",
    "offset-18-01": "2026-05-31T00:00:00+18:01",
    "offset-19": "2026-05-31T00:00:00+19:00",
    "offset-minutes-60": "2026-05-31T00:00:00+05:60",
    "offset-no-colon": "2026-05-31T00:00:00+0530",
    "offset-short": "2026-05-31T00:00:00+05",
    "zone-name": "2026-05-31T00:00:00 Europe/Paris",
    "spaces": " 2026-05-31T00:00:00Z ",
    "newline": "2026-05-31T00:00:00Z\n",
    "fullwidth": "２０２６-05-31T00:00:00Z",
    "earliest": "1990-01-01T00:00:00Z",
    "before-earliest": "1989-12-31T23:59:59.999999999Z",
    "earliest-by-offset": "1990-01-01T01:00:00+01:00",
    "before-by-offset": "1990-01-01T00:59:59.999+01:00",
    "latest": "2199-12-31T23:59:59.999Z",
    "past-latest": "2200-01-01T00:00:00Z",
    "now": "2026-06-01T00:00:00Z",
    "in-five-minutes": "2026-06-01T00:05:00Z",
    "in-five-minutes-and-less-than-a-ms": "2026-06-01T00:05:00.000999Z",
    "future": "2026-06-01T00:05:00.001Z",
    "ms-earliest": EARLIEST_MS,
    "ms-before-earliest": EARLIEST_MS - 1,
    "ms-latest": LATEST_MS - 1,
    "ms-past-latest": LATEST_MS,
    "ms-five-minutes": BROKER_MS + E.MAX_FUTURE_MS,
    "ms-future": BROKER_MS + E.MAX_FUTURE_MS + 1,
    "ms-text": str(BROKER_MS),
    "ms-point": Raw(f"{BROKER_MS}.0"),
    "ms-exponent": Raw("1.78e12"),
    "seconds": BROKER_MS // 1000,
}

#: Values for an amount of money.
AMOUNTS: dict[str, Any] = {
    "half-up": Raw("1.005"),
    "half-away": Raw("-1.005"),
    "below-half": Raw("1.00499"),
    "float-trap": Raw("0.145"),
    "text": "1.005",
    "text-negative": "-12.34",
    "text-nine": "0.123456789",
    "text-ten": "0.1234567890",
    "number-ten-zero": Raw("0.1234567890"),
    "number-ten": Raw("0.1234567891"),
    "text-15": "9" * 15,
    "text-16": "9" * 16,
    "number-15": Raw("9" * 15),
    "number-16": Raw("9" * 16),
    "number-15-point": Raw("9" * 15 + ".999999999"),
    "bound": Raw("10000000000000"),
    "bound-negative": Raw("-10000000000000"),
    "above-bound": Raw("10000000000000.01"),
    "rounds-to-bound": Raw("10000000000000.004999"),
    "rounds-above-bound": Raw("10000000000000.005"),
    "text-comma": "1,5",
    "text-plus": "+5",
    "text-dot": "1.",
    "text-bare-dot": ".5",
    "text-space": " 5",
    "text-newline": "5\n",
    "text-exponent": "1e3",
    "text-hex": "0x10",
    "text-underscore": "1_000",
    "text-fullwidth": "１２",
    "text-arabic": "١٢",
    "text-leading-zeros": "000000000000012.50",
    "text-nan": "NaN",
    "text-f": "5f",
    "text-minus": "-",
    "text-minus-zero": "-0",
    "text-minus-zero-point": "-0.004",
    "number-zeros": Raw("12.5000000000000000000"),
    "number-40-digits-zeros": Raw("12.50000000000000000000000000000000000000"),
}

#: Values for a quantity.
QUANTITIES: dict[str, Any] = {
    "text": "3",
    "text-negative": "-3",
    "text-zeros": "000000000000000003",
    "text-19-digits": "0000000000000000003",
    "text-minus-zero": "-0",
    "text-plus": "+3",
    "text-space": "3 ",
    "text-newline": "3\n",
    "text-point": "3.0",
    "text-arabic": "٣",
    "bound": 10**9,
    "above": 10**9 + 1,
    "bound-negative": -(10**9),
    "below": -(10**9) - 1,
    "text-bound": "1000000000",
    "text-above": "1000000001",
}

#: Values for a currency.
CURRENCIES: dict[str, Any] = {
    "lower": "eur",
    "mixed": "jPy",
    "two": "eu",
    "four": "euro",
    "digits": "123",
    "space": "eu ",
    "newline": "eur\n",
    "sharp-s": "eß",
    "kelvin": "K\u0001",
    "kelvin-sign": "\u212aRW",
    "dotless": "ıQD",
    "unknown": "zzz",
}

"""CDNOW: every line of the purchase log is one order of CDs."""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

from twofold.errors import UsageError
from twofold.local.convert.source import the_file, wrong_shape

NAME = "cdnow"
USUAL_FILE = "CDNOW_master.txt"
CURRENCY = "USD"
PRODUCT = "cd"

_LINE = re.compile(r"\s*([0-9]+)\s+([0-9]{4})([0-9]{2})([0-9]{2})\s+([0-9]+)\s+([0-9]+)\.([0-9]{2})\s*")


def _money(cents: int) -> Decimal:
    return Decimal(cents).scaleb(-2)


def _products(quantity: int, cents: int) -> list[dict[str, Any]]:
    """Lines whose prices add up to the order exactly: a remainder of cents goes on so many of the pieces."""
    if quantity == 0:
        return []
    price, dearer = divmod(cents, quantity)
    lines = ((quantity - dearer, price), (dearer, price + 1))
    return [{"product_id": PRODUCT, "quantity": pieces, "price": _money(each)} for pieces, each in lines if pieces]


def convert_cdnow(file: Path | None, **options: Any) -> Iterator[dict[str, Any]]:
    """The set's orders by day, then by row; ``file`` is its text file or folder. No options."""
    if options:
        raise UsageError(f"convert {NAME} has no option {next(iter(options))!r}")
    path = the_file(NAME, file, USUAL_FILE)
    rows: list[tuple[str, int, str, int, int]] = []
    with path.open(encoding="ascii", errors="replace") as lines:
        if "customer_id" not in next(lines, ""):
            raise wrong_shape(NAME, path, 0, "the header line is missing")
        for number, line in enumerate(lines, start=1):
            match = _LINE.fullmatch(line)
            if match is None:
                raise wrong_shape(NAME, path, number, f"{line.strip()!r} is not 'customer date number value'")
            customer, year, month, day, quantity, dollars, cents = match.groups()
            rows.append((f"{year}-{month}-{day}T00:00:00Z", number, customer, int(quantity), int(dollars) * 100 + int(cents)))
    rows.sort()
    for at, number, customer, quantity, cents in rows:
        yield {
            "event_id": f"cdnow-{number:05d}",
            "type": "track",
            "name": "Order Completed",
            "source_kind": "web",
            "occurred_at": at,
            "user_id": customer,
            "properties": {
                "order_id": f"cdnow-{number:05d}",
                "total": _money(cents),
                "currency": CURRENCY,
                "products": _products(quantity, cents),
            },
        }

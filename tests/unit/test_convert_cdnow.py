"""CDNOW: exact amounts for every line, repeat lines kept."""

import os
from decimal import Decimal
from pathlib import Path

import pytest

from twofold.errors import UsageError
from twofold.local.convert import CONVERTERS

REAL = Path(os.environ.get("TWOFOLD_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data") / "cdnow"
HEADER = " customer_id  date number_of_cds  dollar_value\r\n"


def _convert(tmp_path, *rows):
    path = tmp_path / "cdnow.txt"
    path.write_bytes((HEADER + "".join(f"{row}\r\n" for row in rows)).encode())
    return list(CONVERTERS["cdnow"](path))


def test_lines_become_orders_by_day_and_repeat_lines_stay_two(tmp_path):
    events = _convert(tmp_path, " 00004 19970118  2   29.33", " 00001 19970101  1   11.77", " 00004 19970118  2   29.33")
    assert [event["event_id"] for event in events] == ["cdnow-00002", "cdnow-00001", "cdnow-00003"]
    assert events[0]["user_id"] == "00001" and events[0]["occurred_at"] == "1997-01-01T00:00:00Z"
    assert events[1]["properties"]["products"] == [
        {"product_id": "cd", "quantity": 1, "price": Decimal("14.66")},
        {"product_id": "cd", "quantity": 1, "price": Decimal("14.67")},
    ]


def test_another_line_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"row 2.*12.5"):
        _convert(tmp_path, " 00001 19970101  1   11.77", " 00001 19970101  1   12.5")


if REAL.is_dir():

    def test_every_real_order_adds_up():
        rows = [line.split() for line in (REAL / "CDNOW_master.txt").read_text().splitlines()[1:]]
        events = sorted(CONVERTERS["cdnow"](REAL), key=lambda event: event["event_id"])
        assert len(events) == 69_659
        for (customer, date, cds, dollars), event in zip(rows, events, strict=True):
            properties = event["properties"]
            assert event["user_id"] == customer and event["occurred_at"][:10].replace("-", "") == date
            assert properties["total"] == Decimal(dollars)
            assert sum(line["quantity"] for line in properties["products"]) == int(cds)
            assert sum(line["quantity"] * line["price"] for line in properties["products"]) == Decimal(dollars)

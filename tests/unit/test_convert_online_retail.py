"""Online Retail: hand-made rows with every oddity, and the real set's totals."""

import os
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from twofold.errors import UsageError
from twofold.events import admit
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.convert.online_retail import COLUMNS
from twofold.timeline import parse_instant

REAL = Path(os.environ.get("TWOFOLD_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data") / "online-retail-2009-2010"

ROWS = [
    ("489434", "85048", "BALL", 12, "2009-12-01 07:46:00", 6.95, 13085.0, "United Kingdom"),
    ("C489449", " 22 ", None, -12, "2009-12-01 10:33:00", 2.95, 16321.0, "Australia"),
    ("489434", "79323P", None, 3, "2009-12-01 07:45:00", 0.001, 13085.0, "United Kingdom"),
    ("489500", "21523", "MAT", 2, "2009-12-01 11:00:00", 0.1, None, "EIRE"),
    ("489501", "21523", "MAT", 3, "2009-12-02 11:00:00", 0.1, 13085.0, "EIRE"),
    ("A506401", "B", "Adjust bad debt", 1, "2010-04-29 13:36:00", -53594.36, None, "United Kingdom"),
]


def _write(path, rows):
    columns = {name: [row[at] for row in rows] for at, name in enumerate(COLUMNS)}
    pq.write_table(pa.table(columns), path)
    return path


@pytest.fixture
def events(tmp_path):
    return list(CONVERTERS["online-retail"](_write(tmp_path / "rows.parquet", ROWS)))


def test_events_in_time_order_with_ids_of_invoice_and_customer(events):
    assert [event["event_id"] for event in events] == [
        "or-country-13085-1", "or-489434-13085", "or-country-16321-1", "or-C489449-16321", "or-489500-nobody",
        "or-country-13085-2", "or-489501-13085", "or-A506401-nobody",
    ]  # fmt: skip


def test_an_invoice_is_one_order_at_its_earliest_row_with_an_exact_total(events):
    order = events[1]
    assert order["occurred_at"] == "2009-12-01T07:45:00Z" and order["user_id"] == "13085"
    assert order["properties"]["total"] == Decimal("83.403")
    assert order["properties"]["products"] == [
        {"product_id": "85048", "name": "BALL", "quantity": 12, "price": Decimal("6.95")},
        {"product_id": "79323P", "quantity": 3, "price": Decimal("0.001")},
    ]
    assert b'"total":0.3,' in encode_event(events[6])  # a float would say 0.30000000000000004


def test_cancellation_is_a_refund_and_bad_debt_a_custom_event(events):
    refund, debt = events[3], events[7]
    assert refund["name"] == "Order Refunded" and refund["properties"]["total"] == Decimal("35.40")
    assert refund["properties"]["products"] == [{"product_id": " 22 ", "quantity": 12, "price": Decimal("2.95")}]
    assert debt["name"] == "Bad Debt Adjusted" and debt["properties"]["amount"] == Decimal("-53594.36")


def test_country_is_told_when_first_seen_and_when_it_changes(events):
    told = [(event["user_id"], event["traits"]["country"]) for event in events if event["type"] == "identify"]
    assert told == [("13085", "United Kingdom"), ("16321", "Australia"), ("13085", "EIRE")]


def test_rows_without_customer_are_shown_by_admission(events):
    verdicts = [admit(encode_event(event), parse_instant("2011-01-01T00:00:00Z")).verdict for event in events]
    assert [verdict for verdict in verdicts if verdict != "ok"] == ["missing_identity", "missing_identity"]


def test_a_time_that_is_none_is_named_with_its_row(tmp_path):
    with pytest.raises(UsageError, match=r"row 1.*2009"):
        list(CONVERTERS["online-retail"](_write(tmp_path / "rows.parquet", [(*ROWS[0][:4], "2009-12", *ROWS[0][5:])])))


if REAL.is_dir():

    @pytest.mark.slow
    def test_the_real_set_adds_up():
        orders, refunds, kinds, verdicts, ids = Decimal(0), Decimal(0), Counter(), Counter(), Counter()
        for event in CONVERTERS["online-retail"](REAL):
            ids[event["event_id"]] += 1
            name = event.get("name", event["type"])
            kinds[name] += 1
            orders += event["properties"]["total"] if name == "Order Completed" else 0
            refunds += event["properties"]["total"] if name == "Order Refunded" else 0
            verdicts[admit(encode_event(event), parse_instant("2011-01-01T00:00:00Z")).verdict] += 1
        assert kinds == {"Order Completed": 24_221, "Order Refunded": 4_592, "Bad Debt Adjusted": 3, "identify": 4_393}
        assert max(ids.values()) == 1 and verdicts == {"ok": 27_980, "missing_identity": 5_229}

        import duckdb

        rows = f"select sum(Quantity * cast(Price as decimal(18, 3))) from '{REAL}/*.parquet' where Invoice"
        (billed,) = duckdb.sql(f"{rows} not like 'C%' and Invoice not like 'A%'").fetchall()[0]
        (cancelled,) = duckdb.sql(f"{rows} like 'C%'").fetchall()[0]
        assert orders == billed
        # C496350 is a charge of 373.57 among the cancellations: its magnitude counts.
        assert refunds == -cancelled + 2 * Decimal("373.57")

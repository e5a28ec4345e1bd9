"""UCI Online Retail II: an invoice is one order, refund or bad-debt adjustment."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

from twofold.errors import UsageError
from twofold.local.convert.source import the_file, utc_text, wrong_shape

NAME = "online-retail"
USUAL_FILE = "online_retail_ii_2009_2010.parquet"
CURRENCY = "GBP"
COLUMNS = ("Invoice", "StockCode", "Description", "Quantity", "InvoiceDate", "Price", "Customer ID", "Country")


class _Row(NamedTuple):
    number: int
    stock_code: str
    description: str | None
    quantity: int
    date: str
    price: Decimal
    country: str


class _Invoice(NamedTuple):
    invoice: str
    customer: str | None
    rows: list[_Row]

    @property
    def first(self) -> _Row:
        return min(self.rows, key=lambda row: (row.date, row.number))


def _price(value: float) -> Decimal:
    # The shortest text that reads back as the same double is what the spreadsheet showed.
    return Decimal(format(Decimal(repr(value)), "f"))


def _invoices(path: Path) -> list[_Invoice]:
    """Invoices in time order. An invoice that carried several customers would be one per customer (none does)."""
    import pyarrow
    import pyarrow.parquet as parquet

    try:
        table = parquet.read_table(path, columns=list(COLUMNS))
    except (pyarrow.ArrowException, KeyError, ValueError) as error:
        raise UsageError(f"convert {NAME}: {path} is not its parquet file: {' '.join(str(error).split())[:200]}") from error
    missing = [column for column in COLUMNS if column not in table.column_names]
    if missing:
        raise UsageError(f"convert {NAME}: {path} lacks the column {missing[0]!r}; is this the {NAME} data set?")
    groups: dict[tuple[str, str | None], _Invoice] = {}
    columns = (table.column(column).to_pylist() for column in COLUMNS)
    for number, row in enumerate(zip(*columns, strict=True), start=1):
        invoice, stock_code, description, quantity, date, price, customer_id, country = row
        if invoice is None or date is None or quantity is None or price is None:
            raise wrong_shape(NAME, path, number, "invoice, date, quantity or price is missing")
        customer = None if customer_id is None else str(int(customer_id))
        group = groups.get((invoice, customer))
        if group is None:
            group = groups[invoice, customer] = _Invoice(invoice, customer, [])
        date = utc_text(NAME, path, number, date)
        group.rows.append(_Row(number, stock_code, description, quantity, date, _price(price), country))
    return sorted(groups.values(), key=lambda group: (group.first.date, group.first.number))


def _product(row: _Row, sign: int) -> dict[str, Any]:
    product: dict[str, Any] = {"product_id": row.stock_code}
    if row.description is not None:
        product["name"] = row.description
    product["quantity"] = sign * row.quantity
    product["price"] = row.price
    return product


def _event(group: _Invoice) -> dict[str, Any]:
    invoice, customer, rows = group
    kind = invoice[:1]
    total = sum((row.quantity * row.price for row in rows), Decimal(0))
    event: dict[str, Any] = {
        "event_id": f"or-{invoice}-{customer or 'nobody'}",
        "type": "track",
        "name": {"C": "Order Refunded", "A": "Bad Debt Adjusted"}.get(kind, "Order Completed"),
        "source_kind": "web",
        "occurred_at": group.first.date,
    }
    if customer is not None:
        event["user_id"] = customer
    if kind == "A":
        event["properties"] = {"invoice": invoice, "amount": total, "currency": CURRENCY}
        return event
    sign = -1 if kind == "C" else 1
    event["properties"] = {
        "order_id": invoice,
        "total": abs(total) if kind == "C" else total,
        "currency": CURRENCY,
        "products": [_product(row, sign) for row in rows],
    }
    return event


def convert_online_retail(file: Path | None, **options: Any) -> Iterator[dict[str, Any]]:
    """The set's events in time order; ``file`` is its parquet file or folder. No options."""
    if options:
        raise UsageError(f"convert {NAME} has no option {next(iter(options))!r}")
    countries: dict[str, str] = {}
    changes: dict[str, int] = {}
    for group in _invoices(the_file(NAME, file, USUAL_FILE)):
        customer, country, at = group.customer, group.first.country, group.first.date
        if customer is not None and countries.get(customer) != country:
            countries[customer] = country
            changes[customer] = changes.get(customer, 0) + 1
            yield {
                "event_id": f"or-country-{customer}-{changes[customer]}",
                "type": "identify",
                "source_kind": "web",
                "occurred_at": at,
                "user_id": customer,
                "traits": {"country": country},
            }
        yield _event(group)

"""Retentioneering's synthetic clickstream of an electronics shop: page views, product events, orders, e-mail visits."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from twofold.errors import UsageError
from twofold.local.convert.source import the_file, utc_text, wrong_shape

NAME = "retentioneering"
USUAL_FILE = "ecom.csv.gz"
COLUMNS = (
    "user_id",
    "session_id",
    "event",
    "timestamp",
    "platform",
    "acquisition_channel",
    "user_cohort",
    "user_lifecycle",
)

#: event of the set -> path of a page view
PAGES = {
    "home": "/",
    "catalog": "/catalog",
    "search": "/search",
    "filter_results": "/catalog/filtered",
    "promo_page": "/promo",
    "cart": "/cart",
    "shipping_details": "/checkout/shipping",
    "payment_details": "/checkout/payment",
    "account_page": "/account",
    "review_page": "/reviews",
    "compare": "/compare",
    "error_page": "/error",
}
#: event of the set -> name of a track event (the set names no products and no amounts, and none are made up)
TRACKS = {
    "product_view": "Product Viewed",
    "add_to_cart": "Product Added",
    "purchase": "Order Completed",
    "wishlist_add": "Product Added to Wishlist",
    "support_chat": "Support Chat Opened",
    "payment_error": "Payment Failed",
    "checkout_bug": "Checkout Bug Met",
}


def _rows(path: Path) -> list[tuple[str, int, dict[str, str]]]:
    rows: list[tuple[str, int, dict[str, str]]] = []
    try:
        with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
            reader = csv.DictReader(lines)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise wrong_shape(NAME, path, 0, "the header is another")
            for number, row in enumerate(reader, start=1):
                if row["event"] not in PAGES and row["event"] not in TRACKS:
                    raise wrong_shape(NAME, path, number, f"unknown event {row['event']!r}")
                rows.append((utc_text(NAME, path, number, row["timestamp"]), number, row))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"convert {NAME}: {path} cannot be read as CSV in gzip: {error}") from error
    rows.sort(key=lambda item: item[:2])
    return rows


def convert_retentioneering(file: Path | None, **options: Any) -> Iterator[dict[str, Any]]:
    """The set's events in time order; ``file`` is its gzip file or folder. No options."""
    if options:
        raise UsageError(f"convert {NAME} has no option {next(iter(options))!r}")
    sessions: set[str] = set()
    known: dict[str, tuple[str, str]] = {}
    for at, number, row in _rows(the_file(NAME, file, USUAL_FILE)):
        user, session, event = row["user_id"], row["session_id"], row["event"]
        context = {"device": {"type": row["platform"]}, "session_id": session}
        head = {"source_kind": row["acquisition_channel"], "occurred_at": at, "user_id": user}
        traits = (row["user_cohort"], row["user_lifecycle"])
        if known.get(user) != traits:
            known[user] = traits
            yield {
                "event_id": f"ret-{number:05d}-traits",
                "type": "identify",
                **head,
                "traits": {"cohort": traits[0], "tier": traits[1]},
            }
        if session not in sessions:
            sessions.add(session)
            if row["acquisition_channel"] == "email":
                click = {"event_id": f"ret-{number:05d}-email", "type": "email", "name": "Email Link Clicked"}
                yield {**click, **head, "properties": {"message_id": session}, "context": context}
        if event in PAGES:
            body = {"event_id": f"ret-{number:05d}", "type": "page", "name": event}
            properties = {"path": PAGES[event]}
        else:
            body = {"event_id": f"ret-{number:05d}", "type": "track", "name": TRACKS[event]}
            properties = {"order_id": f"ret-{number:05d}"} if event == "purchase" else {}
        yield {**body, **head, "properties": properties, "context": context}

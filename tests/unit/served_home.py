"""A home that logs what it serves, and whose audit a test runs."""

from __future__ import annotations

import json
from pathlib import Path

from tests.unit.layered_home import LayeredHome, drawn_log
from tests.unit.manifests import TOPIC
from twofold.catalogue import VERSION
from twofold.events import Entry, make_entry
from twofold.local.served_audit import Audited, ServedAudit
from twofold.stores.served_log import served_files
from twofold.testing.script import PERSONS, START_MS
from twofold.timeline import HOUR_MS, Position

EVERYONE = {"sample_share": 1}
HOUR = [START_MS + n * HOUR_MS for n in range(24)]


class Home(LayeredHome):
    def serve(self, persons=PERSONS, at: int | None = None, **options) -> None:
        with self.reader(**options) as reader:
            list(reader.records(persons, at))

    def audit(self, **options) -> Audited:
        return ServedAudit(self.settings, self.now, **options).run()

    def lines(self) -> list[dict]:
        return [json.loads(line) for file in served_files(self.settings.served_path) for line in file.path.open("rb")]

    def alter(self, number: int, change) -> None:
        """Rewrite one line of the log's only file."""
        (file,) = served_files(self.settings.served_path)
        lines = file.path.read_bytes().splitlines(keepends=True)
        line = json.loads(lines[number])
        change(line)
        lines[number] = json.dumps(line).encode() + b"\n"
        file.path.write_bytes(b"".join(lines))


def drawn(folder: Path, seed: int, **audit) -> Home:
    return Home(folder, *drawn_log(seed), audit={**EVERYONE, **audit})


def sent(number: int, at_ms: int, broker_ms: int, what: dict, user: str = "1") -> tuple[Entry, bytes]:
    event = {"event_id": f"e{number}", "user_id": user, "occurred_at": at_ms, "source_kind": "web", **what}
    value = json.dumps(event).encode()
    return make_entry(VERSION, Position(TOPIC, 0, number), broker_ms, value), value


def order(total: str, currency: str) -> dict:
    return {"type": "track", "name": "Order Completed", "properties": {"order_id": "o", "total": total, "currency": currency}}


def view(product: str, category: str) -> dict:
    return {"type": "track", "name": "Product Viewed", "properties": {"product_id": product, "category": category}}


def small(folder: Path, **audit) -> Home:
    """An order below the cut; a view in the hot store; an order and a view only in the log; later a late order, and a page."""
    pairs = [
        sent(0, HOUR[1], HOUR[1], order("5.00", "EUR")),
        sent(1, HOUR[2], HOUR[2], view("p1", "c1")),
        sent(2, HOUR[3], HOUR[3], order("7.50", "EUR")),
        sent(3, HOUR[4], HOUR[4], view("p2", "c1")),
        sent(4, HOUR[4], HOUR[7], order("1.00", "USD")),
        sent(5, HOUR[8], HOUR[8], {"type": "page", "properties": {"path": "/"}}),
    ]
    log = [entry for entry, _value in pairs]
    home = Home(folder, log, {entry.position: value for entry, value in pairs}, audit={**EVERYONE, **audit})
    home.archive(1)
    home.night(1)
    home.follow(2)
    home.now = HOUR[5]
    return home

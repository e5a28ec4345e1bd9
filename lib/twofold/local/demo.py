"""The main job on real input: start everything, feed, rebuild in the middle, feed on, change a record live, compare, stop."""

from __future__ import annotations

import json
import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rich.text import Text

from twofold import show
from twofold.errors import PartError, UsageError
from twofold.events import admit
from twofold.kafka.produce import make_producer, read_lines, send
from twofold.local.convert import CONVERTERS, write_jsonl
from twofold.local.night import run_batch
from twofold.local.parts import Supervisor
from twofold.local.project import SHORT_LIVED
from twofold.local.survey import wait_for_log_end
from twofold.reader import Reader
from twofold.record import Record
from twofold.settings import Settings
from twofold.testing.comparison import compare
from twofold.testing.oracle import recompute_lines
from twofold.timeline import LATEST_MS, show_time

#: What the shop's feed is in the demo: small enough for a laptop, rich enough to show every feature.
SHOP = {"seed": 7, "persons": 2_000, "events": 30_000}
DATA = ("shop", "online-retail", "cdnow")


class Demo:
    """One run of the demo on one home."""

    def __init__(self, settings: Settings, data: str, source: Path | None, as_json: bool) -> None:
        if data not in DATA:
            raise UsageError(f"there is no demo of {data!r}: {', '.join(DATA)}")
        self._settings, self._data, self._source, self._json = settings, data, source, as_json
        self._began = time.monotonic()
        self._feed = settings.home_path / "demo" / f"{data}.jsonl"

    def _say(self, what: str, **details: Any) -> None:
        after = time.monotonic() - self._began
        if self._json:
            show.json_line({"event": what, "after_s": round(after, 1), **details})
        else:
            told = "  ".join(f"{key.replace('_', ' ')} {value}" for key, value in details.items())
            show.console.print(Text.assemble((f"{after:6.1f} s  ", "dim"), (f"{what:<10}", "bold"), f" {told}"))

    def _part(self, event: str, details: dict[str, Any]) -> None:
        told = {key: value for key, value in details.items() if key in ("part", "pid", "error", "last_line")}
        self._say(event, **told)

    # --- steps ------------------------------------------------------------------------------------------------------------------
    def run(self) -> int:
        """Run every step; returns the number of differing records. Whatever happens, everything is stopped."""
        events = self._convert()
        supervisor = Supervisor(self._settings, self._part)
        try:
            supervisor.start()
            lines = self._feed_lines()
            half = events // 2
            self._send("feed", lines[:half])
            wait_for_log_end(self._settings, 180)
            self._batch(lines[:half])
            self._send("feed on", lines[half:])
            wait_for_log_end(self._settings, 180)
            live = self._live(lines)
            return self._compare([*lines, *live])
        finally:
            supervisor.stop()
            self._say("done", home=self._settings.home)

    def _convert(self) -> int:
        options: dict[str, Any] = {}
        if self._data == "shop":
            # The feed ends now, so that windows of an hour and a day hold something.
            options = {**SHOP, "end_ms": time.time_ns() // 1_000_000 - 1_000}
        if (self._settings.home_path / "kafka").exists():
            raise UsageError(f"the home {self._settings.home_path} has been used: remove it, or choose another with --home")
        count = write_jsonl(CONVERTERS[self._data](self._source, **options), self._feed)
        self._say("convert", data=self._data, events=count)
        return count

    def _feed_lines(self) -> list[bytes]:
        with self._feed.open("rb") as file:
            return list(read_lines(file))

    def _send(self, step: str, lines: list[bytes]) -> None:
        began = time.monotonic()
        report = send(self._settings, lines)
        if report.failed:
            raise PartError(f"{report.failed} lines were refused by the broker, first line {report.failed_lines[0]}")
        self._say(step, acknowledged=report.acked, per_second=int(report.acked / (time.monotonic() - began)))

    @staticmethod
    def _newest_time(lines: list[bytes]) -> int:
        return max(at for line in lines if (at := admit(line, LATEST_MS).at_ms) is not None)

    def _batch(self, lines: list[bytes]) -> None:
        # History lies inside its own years: its horizon is of then, not of the broker's clock.
        as_of = None if self._data == "shop" else self._newest_time(lines)
        night = run_batch(self._settings, as_of, None, lambda step: self._say("batch", step=step))
        if night.exit_code:
            raise PartError(night.error)
        row = night.row
        counts = row.get("counts", {})
        self._say(
            "published",
            snapshot=row["snapshot"],
            as_of=show_time(row["as_of_ms"]),
            persons=counts.get("persons"),
            ok=counts.get("ok"),
        )

    def _live(self, lines: list[bytes]) -> list[bytes]:
        """Three people's records before and after one live event each; returns the events' lines."""
        busiest = Counter(a.person for line in lines if (a := admit(line, LATEST_MS)).person is not None)
        people = [str(person) for person, _count in busiest.most_common(40)[::15]][:3]
        producer = make_producer(self._settings, linger_ms=0)
        sent: list[bytes] = []
        try:
            with Reader(self._settings) as reader:
                for number, person in enumerate(people):
                    line = _live_event(person, number)
                    before = reader.record(person)
                    sent_at = producer.send(self._settings.kafka.events_topic, value=line, key=person.encode()).get(timeout=30)
                    acknowledged = time.monotonic()
                    after = self._holding(reader, person, sent_at.partition, sent_at.offset)
                    took_ms = (time.monotonic() - acknowledged) * 1000
                    sent.append(line)
                    self._tell_change(before, after, took_ms, json.loads(line)["name"])
        finally:
            producer.close()
        wait_for_log_end(self._settings, 60)
        return sent

    @staticmethod
    def _holding(reader: Reader, person: str, partition: int, offset: int) -> Record:
        """The first record whose ``high`` has passed the live event's position."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            now = reader.record(person)
            if any(ends.get(str(partition), 0) > offset for ends in now.freshness.high.values()):
                return now
        raise PartError(f"the live event of {person} did not reach the record within 60 s: see the logs of speed and follower")

    def _tell_change(self, before: Record, after: Record, took_ms: float, event: str) -> None:
        if self._json:
            show.json_line(
                {"step": "live", "person": after.person, "event": event, "ms": round(took_ms, 1), "before": before, "after": after}
            )
            return
        self._say("live", person=after.person, event=event, acknowledged_to_changed=f"{took_ms:.0f} ms")
        rows = []
        for name, value in after.values.items():
            was = before.values[name]
            if was != value:
                rows.append([Text(name, "cyan"), show.shown(name, was), Text(show.shown(name, value), "bold green")])
            elif value not in (None, 0, [], {}):
                rows.append([Text(name, "dim"), show.shown(name, was), ""])
        show.show_rows("", ["feature", "before", "after, where changed"], rows)
        ok, reasons = after.sendable.ok, ", ".join(after.sendable.reasons)
        show.console.print(f"may be written to: {'yes' if ok else 'no: ' + reasons} · state {after.freshness.state}\n")

    def _compare(self, lines: list[bytes]) -> int:
        t = time.time_ns() // 1_000_000
        with Reader(self._settings) as reader:
            found = compare(self._records(reader, t), recompute_lines(lines, None, t))
        self._say("compared", records=found.compared, differing=len(found.differing), at=show_time(t))
        if found.differing:
            self._say("differ", persons=", ".join(found.differing[:10]))
        return len(found.differing)

    def _records(self, reader: Reader, t: int) -> Iterator[Record]:
        with show.progress_bar() as bar:
            task = bar.add_task("comparing", total=None)
            for count, record in enumerate(reader.records(None, t), start=1):
                if count % 500 == 0:
                    bar.update(task, completed=count)
                yield record


def _live_event(person: str, number: int) -> bytes:
    """One event of a person, now: a product view, an order, a page."""
    now_ms = time.time_ns() // 1_000_000
    kind, key = person.split(":", 1)
    name, properties = (
        ("Product Viewed", {"product_id": "lamp-1", "category": "lamps"}),
        (
            "Order Completed",
            {
                "order_id": f"live-{now_ms}",
                "total": "49.90",
                "products": [{"product_id": "lamp-1", "price": "24.95", "quantity": 2}],
            },
        ),
        ("Product Added", {"product_id": "lamp-1", "category": "lamps"}),
    )[number % 3]
    event = {
        "event_id": f"live-{number}-{now_ms}",
        "type": "track",
        "name": name,
        "source_kind": "web",
        "occurred_at": now_ms,
        "user_id" if kind == "user" else "anonymous_id": key,
        "properties": properties,
    }
    return json.dumps(event, separators=(",", ":")).encode()


def run_demo(settings: Settings, data: str, source: Path | None, as_json: bool) -> int:
    """Run the demo; returns how many records differed from the recomputation."""
    # Its JVMs live for minutes.
    os.environ.setdefault("JDK_JAVA_OPTIONS", SHORT_LIVED)
    return Demo(settings, data, source, as_json).run()

"""The local system as a user starts it: real broker, speed in real-time mode, archive, follower, batch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaConsumer, TopicPartition

from twofold.catalogue import VERSION
from twofold.events import Entry, decode_entry, make_entry
from twofold.kafka.address import broker_address
from twofold.kafka.produce import SendReport, send
from twofold.kafka.topics import events_topic, log_offsets
from twofold.local.broker import Broker
from twofold.local.parts import status_parts
from twofold.local.project import SHORT_LIVED
from twofold.local.survey import wait_for_log_end
from twofold.settings import Settings, load_settings
from twofold.timeline import Offsets, Position

ROOT = Path(__file__).resolve().parents[2]
#: Real data sets, where they are present.
DATA = Path(os.environ.get("TWOFOLD_DATA", ROOT.parent / "shared" / "data"))
# Every JVM here lives for a minute or two. Figures are `make bench`'s.
os.environ.setdefault("JDK_JAVA_OPTIONS", SHORT_LIVED)


def wait_for(condition: Callable[[], bool], timeout_s: float = 120, what: str = "condition") -> None:
    """Poll a condition; fails with its name."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come within {timeout_s:g} s"
        time.sleep(0.1)


class System:
    """One home and its running parts."""

    def __init__(self, home: Path, config: Path | None = None) -> None:
        """``config``: a file of settings for every part and command."""
        self.home, self.config = home, config
        self.settings: Settings = load_settings(config, environ={}, home=str(home))

    def twofold(self, *arguments: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "twofold.cli", *arguments, "--home", str(self.home)]
        if self.config is not None:
            command += ["--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=500)
        assert not check or done.returncode == 0, f"{' '.join(arguments)}: exit {done.returncode}: {done.stderr[-2000:]}"
        return done

    def up(self, *without: str, personalize: bool = False) -> None:
        """``personalize``: the table too; most tests leave its cost out."""
        without = without if personalize else (*without, "personalize")
        self.twofold("up", "--detach", *(word for name in without for word in ("--without", name)))

    def down(self) -> None:
        self.twofold("down")

    def send(self, lines: Iterable[bytes], rate: float | None = None) -> SendReport:
        report = send(self.settings, lines, rate)
        assert report.failed == 0, report.failed_lines[:3]
        return report

    def wait(self, timeout_s: float = 240) -> None:
        wait_for_log_end(self.settings, timeout_s)

    def batch(self, as_of_ms: int | None = None, *options: str) -> dict[str, Any]:
        more = ["--as-of", str(as_of_ms)] if as_of_ms is not None else []
        return json.loads(self.twofold("batch", "--json", *more, *options).stdout.strip().splitlines()[-1])

    def kill(self, part: str) -> None:
        """kill -9 of a part's whole process group, and the wait until `up` has it running again."""
        before = status_parts(self.settings)[part]["pid"]
        os.killpg(before, signal.SIGKILL)
        wait_for(lambda: self._restarted(part, before), 180, f"restart of {part}")

    def _restarted(self, part: str, before: int) -> bool:
        now = status_parts(self.settings).get(part)
        if now is None or now["pid"] == before or not now["alive"]:
            return False
        return Broker(self.settings).answers() if part == "broker" else (self.home / "run" / f"{part}.json").exists()

    def log(self) -> list[Entry]:
        """Every entry of `events`, admitted by plain Python at its real position and broker time."""
        topic = events_topic(self.settings)
        return [
            make_entry(VERSION, Position(topic.topic_id, r.partition, r.offset), r.timestamp, r.value)
            for r in self._read(self.settings.kafka.events_topic)
        ]

    def facts(self) -> list[Entry]:
        """Every message of `facts`."""
        return [decode_entry(r.value) for r in self._read(self.settings.kafka.facts_topic)]

    def _read(self, topic: str) -> list[Any]:
        consumer = KafkaConsumer(
            bootstrap_servers=broker_address(self.settings), isolation_level="read_committed", enable_auto_commit=False
        )
        try:
            places = [TopicPartition(topic, p) for p in sorted(consumer.partitions_for_topic(topic))]
            consumer.assign(places)
            consumer.seek_to_beginning(*places)
            ends = consumer.end_offsets(places)
            found: list[Any] = []
            while any(consumer.position(place) < ends[place] for place in places):
                for records in consumer.poll(timeout_ms=500, max_records=20_000).values():
                    found.extend(record for record in records if record.offset < ends[TopicPartition(topic, record.partition)])
            return found
        finally:
            consumer.close()

    def log_end(self) -> Offsets:
        return log_offsets(self.settings)[1]


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """A running system for the tests of one module."""
    running = System(tmp_path_factory.mktemp("home"))
    running.up()
    try:
        yield running
    finally:
        running.down()

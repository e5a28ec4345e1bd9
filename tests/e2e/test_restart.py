"""kill -9 of every part, of the batch at each step, a hole in `facts`, two rebuilds at once: equality holds."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import System, wait_for
from tests.e2e.equality import Truth, conserved, differences, topics
from twofold.catalogue import VERSION
from twofold.events import encode_entry, make_entry
from twofold.kafka.produce import make_producer
from twofold.kafka.topics import events_topic
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.reader import Reader
from twofold.stores.manifest import rows
from twofold.timeline import Position

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

STEPS = ("pin", "state", "wide", "snapshot", "manifest")


def _shop(seed: int, events: int) -> list[bytes]:
    return [encode_event(event) for event in CONVERTERS["shop"](None, seed=seed, persons=300, events=events)]


def _batch_until(system: System, step: str) -> subprocess.Popen[str]:
    """A batch that has just begun a step; it goes on."""
    process = subprocess.Popen(
        spark_submit("batch", "--home", str(system.home)),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=child_environment(),
        start_new_session=True,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.strip() == f"step {step}":
            return process
    raise AssertionError(f"the batch ended before step {step}: exit {process.wait()}")


def _equal(system: System, seed_instant: int | None = None) -> None:
    truth = Truth(system.log(), topics(system))
    newest = max(e.at_ms or 0 for entries in truth.people.values() for e in entries)
    assert differences(system.settings, truth, newest + 1 if seed_instant is None else seed_instant) == []


def test_kill_9_of_every_part_while_events_flow(system: System) -> None:
    lines = _shop(21, 9_000)
    system.send(lines[:2_000])
    system.wait()
    feeding = threading.Thread(target=system.send, args=(lines[2_000:],), kwargs={"rate": 250})
    feeding.start()
    for part in ("follower", "archive", "speed", "broker"):
        system.kill(part)
    feeding.join()
    system.wait()
    conserved(system, system.log())
    _equal(system)


def test_kill_9_of_the_batch_at_each_step_publishes_nothing(system: System) -> None:
    manifest = system.settings.table("manifest")
    system.send(_shop(22, 500))
    system.wait()
    for step in STEPS:
        process = _batch_until(system, step)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert rows(manifest) == []
        _equal(system)
    row = system.batch()
    assert row["seq"] == 1
    assert [published.seq for published in rows(manifest)] == [1]
    assert not list(system.settings.snapshots_path.glob("*.partial"))
    _equal(system)


def test_a_second_batch_at_once_is_refused(system: System) -> None:
    system.send(_shop(23, 500))
    system.wait()
    published_before = [row.seq for row in rows(system.settings.table("manifest"))]
    process = _batch_until(system, "state")
    os.killpg(process.pid, signal.SIGSTOP)
    try:
        refused = system.twofold("batch", check=False)
    finally:
        os.killpg(process.pid, signal.SIGCONT)
    assert refused.returncode == 3
    assert "another rebuild is running" in refused.stderr
    process.communicate(timeout=300)
    assert process.returncode == 0
    assert [row.seq for row in rows(system.settings.table("manifest"))] == [*published_before, len(published_before) + 1]
    _equal(system)


@pytest.fixture
def without_speed(tmp_path: Path) -> Iterator[System]:
    running = System(tmp_path / "home")
    running.up("speed", "archive")
    try:
        yield running
    finally:
        running.down()


def test_a_hole_in_facts_is_stale_then_healed_from_events(without_speed: System) -> None:
    system = without_speed
    line = b'{"event_id":"e%d","type":"page","name":"p","user_id":"one","occurred_at":"2026-06-01T00:00:0%dZ"}'
    lines = [line % (number, number) for number in range(3)]
    system.send(lines)
    log = system.log()
    assert len({entry.partition for entry in log}) == 1
    topic = events_topic(system.settings)
    # Both in one record batch: the follower meets the jump in the very fetch that brings the first of them.
    producer = make_producer(system.settings, linger_ms=2_000)
    for number in (0, 2):
        entry = make_entry(VERSION, Position(topic.topic_id, log[0].partition, number), log[number].broker_ms, lines[number])
        producer.send(system.settings.kafka.facts_topic, value=encode_entry(entry), partition=log[0].partition)
    producer.flush()
    producer.close()
    t = (log[2].at_ms or 0) + 1

    seen: list[tuple[str, int]] = []
    with Reader(system.settings) as reader:

        def healed() -> bool:
            record = reader.record("user:one", t)
            seen.append((record.freshness.state, record.values["page_views_1h"]))
            return record.values["page_views_1h"] == 3

        wait_for(healed, 60, "healing")
        wait_for(lambda: reader.record("user:one", t).freshness.state == "fresh", 30, "freshness")
    # Never the third event without the second, and never fresh while one was missing.
    assert {count for _state, count in seen} <= {0, 1, 3}
    assert all(state == "stale" for state, count in seen if count == 1)
    assert ("stale", 1) in seen

"""Equality and conservation on the whole system, over the simulated shop and over real data."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest

from tests.e2e.conftest import DATA, System
from tests.e2e.equality import Truth, conserved, differences, topics
from tests.golden.duck import duck_values
from twofold.local.convert import CONVERTERS, encode_event
from twofold.reader import Reader
from twofold.record import Record
from twofold.stores.manifest import current
from twofold.testing.hostile import corpus
from twofold.timeline import DAY_MS, HOUR_MS

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def _instants(as_of: int, edge: int) -> list[int]:
    """Before, at and after as_of, and on the edges of windows of one event: its own instant, and where it leaves them."""
    return [
        as_of - 5 * DAY_MS,
        as_of - 1,
        as_of,
        as_of + 1,
        edge,
        edge + 1,
        edge + DAY_MS,
        edge + 7 * DAY_MS - 1,
        edge + 7 * DAY_MS,
        edge + 7 * DAY_MS + 1,
        as_of + 3 * DAY_MS + HOUR_MS,
    ]


def _two_nights(
    system: System, lines: list[bytes], as_of_at: int | None, sample: int, *second_night: str, taken_back: bool = False
) -> None:
    """Feed, rebuild in the middle, feed on; rebuild again while events flow: no difference at any instant, from any snapshot.

    ``second_night``: options of the second rebuild; ``taken_back``: whether events of the first night are retracted after it.
    """
    half, more = len(lines) // 2, len(lines) * 3 // 4
    system.send(lines[:half])
    system.wait()
    truth = Truth(system.log(), topics(system))
    as_of = max(e.at_ms or 0 for entries in truth.people.values() for e in entries) if as_of_at is None else as_of_at
    first = system.batch(as_of)
    assert first["seq"] == 1
    system.send(lines[half:more])
    system.wait()

    log = system.log()
    truth = Truth(log, topics(system))
    edge = sorted(e.at_ms or 0 for entries in truth.people.values() for e in entries if (e.at_ms or 0) > as_of - 4 * DAY_MS)[0]
    instants = _instants(as_of, edge)
    for t in instants:
        assert differences(system.settings, truth, t) == []

    feeding = threading.Thread(target=system.send, args=(lines[more:],))
    feeding.start()
    second = system.batch(as_of + DAY_MS, *second_night)
    feeding.join()
    assert second["seq"] == 2
    # The batch said so of itself, too, over everyone: its two ways to the second snapshot agree.
    assert second["audit"]["drift"]["verdict"] == "equal" and second["audit"]["drift"]["persons"] == second["counts"]["persons"]
    system.wait()
    truth = Truth(system.log(), topics(system))
    # as_of has moved: what is more than five days before it is the archive's.
    for t in (instants[3], instants[5], instants[9], instants[10]):
        assert differences(system.settings, truth, t) == []
    people = sorted(truth.people)[:: max(1, len(truth.people) // sample)]
    # The same (t, O) from both snapshots and from the empty one: identical, and equal to the truth.
    for t in instants[-3:]:
        found = []
        for seq in (0, 1, 2):
            with Reader(system.settings, seq=seq) as reader:
                records = {(r.person, name): value for r in reader.records(people, t) for name, value in exact(r)}
            found.append(records)
        # What is read from a night lacks at most what it folded and somebody took back since.
        for seq in (1, 2):
            assert found[seq].items() <= found[0].items()
            waiting = {person for person, _name in found[0].keys() - found[seq].keys()}
            with Reader(system.settings, seq=seq) as reader:
                assert waiting <= truth.waiting(reader.snapshot)
            assert seq == 2 or bool(waiting) == taken_back
    assert differences(system.settings, truth, as_of - 30 * DAY_MS, persons=people[:20]) == []


def exact(record: Record) -> Iterator[tuple[str, Any]]:
    return ((name, value) for name, value in record.values.items() if record.fields[name] == "exact")


def with_retractions(events: list[dict[str, Any] | bytes], seed: int) -> list[bytes]:
    """The lines of events, and a retraction of each twentieth one somewhere among them, before or after it; some of them twice."""
    rng, placed = Random(seed), [encode_event(event) for event in events]
    # What is no event but bytes cannot be named.
    for event in [event for event in events if isinstance(event, dict)][::20]:
        of = {name: event[name] for name in ("user_id", "anonymous_id", "occurred_at") if name in event}
        back = {**of, "event_id": f"back-{event['event_id']}", "type": "retraction"}
        back["properties"] = {"target_event_id": event["event_id"]}
        for _ in range(rng.choice((1, 1, 2))):
            placed.insert(rng.randrange(len(placed)), encode_event(back))
    return placed


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[System]:
    """A system for one test: two at once would share the cores."""
    running = System(tmp_path / "home")
    running.up()
    try:
        yield running
    finally:
        running.down()


def test_the_shop_and_a_hostile_corpus(fresh: System) -> None:
    lines = with_retractions(list(CONVERTERS["shop"](None, seed=11, persons=500, events=12_000, shuffle=200)), 11)
    hostile = [value for _name, value in corpus() if value and b"\n" not in value and len(value) < 1_900_000]
    middle = len(lines) // 3
    _two_nights(fresh, lines[:middle] + hostile + lines[middle:], None, 100, "--incremental", taken_back=True)
    log, row = fresh.log(), current(fresh.settings.table("manifest"))
    # The cut fell somewhere in what was fed beside the night.
    below = [entry for entry in log if entry.verdict == "ok" and row.cut.holds(entry.position)]
    targets = {(entry.person, entry.target) for entry in below if entry.target is not None}
    came = targets & {(entry.person, entry.event_id) for entry in below}
    assert row.counts["rows_recomputed"] > 0 and 0 < len(came) < len(targets)
    assert (row.counts["retracted"], row.counts["retractions_of_nothing"]) == (len(came), len(targets - came))
    conserved(fresh, log)
    # Lines end at LF only: a rejected entry may hold any other separator.
    rejected = fresh.twofold("quarantine", "--json").stdout.rstrip("\n").split("\n")
    assert len(rejected) == sum(1 for entry in log if entry.verdict != "ok")


def test_online_retail(fresh: System, tmp_path: Path) -> None:
    folder = DATA / "online-retail-2009-2010"
    if not folder.exists():
        pytest.skip(f"the real data set is not at {folder}")
    events = CONVERTERS["online-retail"](folder)
    lines = [encode_event(event) for event in events]
    assert len(lines) > 28_000
    noon = 1_275_393_600_000  # 2010-06-01T12:00:00Z, inside the set
    _two_nights(fresh, lines, noon, 50)
    t = noon + 120 * DAY_MS
    file = tmp_path / "lines.jsonl"
    file.write_bytes(b"\n".join(lines) + b"\n")
    golden = duck_values(file, t)
    with Reader(fresh.settings) as reader:
        compared = 0
        for record in reader.records(None, t):
            for name, value in golden[record.person].items():
                assert record.values[name] == value, (record.person, name)
                compared += 1
    assert compared >= 8 * 4_000

"""The table `personalization` on the whole system: every row is the plain recomputation at its own (t, O), through a kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import System
from tests.e2e.equality import Truth, topics
from twofold.local.convert import CONVERTERS, encode_event
from twofold.stores.personalization import current_rows
from twofold.timeline import Offsets

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[System]:
    running = System(tmp_path / "home")
    running.up(personalize=True)
    try:
        yield running
    finally:
        running.down()


def test_every_row_through_a_snapshot_and_a_crash(fresh: System) -> None:
    lines = [encode_event(event) for event in CONVERTERS["shop"](None, seed=5, persons=150, events=3_000, shuffle=100)]
    fresh.send(lines[:1_000])
    fresh.wait()
    fresh.batch()
    fresh.send(lines[1_000:2_000])
    fresh.kill("archive")
    fresh.send(lines[2_000:])
    fresh.wait()

    log = fresh.log()
    truths: dict[str, Truth] = {}
    rows = current_rows(fresh.settings.table("personalization"), 0).to_pylist()
    end = fresh.log_end()
    newest = Truth(log, topics(fresh))
    assert {row["person"] for row in rows} == set(newest.people)
    for row in rows:
        if row["o"] not in truths:
            o = Offsets.from_json(json.loads(row["o"]))
            truths[row["o"]] = Truth([entry for entry in log if o.holds(entry.position)], topics(fresh))
        want = truths[row["o"]].values(row["person"], row["t"])
        record = json.loads(row["record"])
        assert record["values"] == want["values"], f"{row['person']} at {row['t']}"
        assert set(record["fields"].values()) == {"exact"}
        # Nothing of this person's lies above the row's O: whoever was touched has a row since.
        assert truths[row["o"]].people[row["person"]] == newest.people[row["person"]]
        if record["sendable"]["ok"]:
            assert want["sendable"]["ok"] and record["freshness"]["state"] in ("fresh", "stale")
    assert any(Offsets.from_json(json.loads(row["o"])) == end for row in rows)
    shown = json.loads(fresh.twofold("personalization", rows[0]["person"], "--json").stdout)
    assert shown["record"]["person"] == rows[0]["person"]

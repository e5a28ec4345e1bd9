"""The table `personalization` on the whole system: every row is the plain recomputation at its own (t, O), through a kill -9."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import System
from tests.e2e.equality import assert_rows_hold
from twofold.local.convert import CONVERTERS, encode_event

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

    rows = assert_rows_hold(fresh)
    shown = json.loads(fresh.twofold("personalization", rows[0]["person"], "--json").stdout)
    assert shown["record"]["person"] == rows[0]["person"]

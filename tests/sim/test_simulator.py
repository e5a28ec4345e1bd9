"""Histories through the real core: every read equals the oracle at its own (t, O), or carries the verdict that is right for it."""

from __future__ import annotations

import json
from random import Random

import pytest

from twofold.testing.script import START_MS, Script, Step, draw_script
from twofold.testing.searching import Found, check, shrink, simulate
from twofold.testing.simulator import Simulation, Tally, Wrong
from twofold.timeline import DAY_MS

QUICK_READS = 3_000
SLOW_READS = 60_000
STATES = {"fresh", "stale", "batch_only", "gap", "definition", "archive", "default"}


def run(reads: int, seed: int) -> Tally:
    print(f"seed {seed}")
    tally, found = simulate(reads, seed)
    assert found is None, shrink(found).show() if found else ""
    return tally


def test_no_read_is_wrong():
    tally = run(QUICK_READS, seed=1)
    assert set(tally.states) == STATES, "a state was never reached"
    assert tally.pairs > 200
    assert min(tally.pinned["hot"], tally.pinned["archive"]) >= 5
    assert tally.members > 200


@pytest.mark.slow
def test_no_read_is_wrong_in_many_histories():
    tally = run(SLOW_READS, seed=1_000_000)
    assert min(tally.states[state] for state in STATES) > 300
    assert tally.conflicts > 100
    assert tally.pending > 100
    assert tally.pairs > 3_000
    assert min(tally.pinned["hot"], tally.pinned["archive"]) > 100


def test_a_seed_is_one_history():
    assert draw_script(7) == draw_script(7)
    assert draw_script(7) != draw_script(8)
    first, second = Simulation(draw_script(7)), Simulation(draw_script(7))
    assert first.run() == second.run()


def page(event_id: str, at_ms: int, person: int = 0) -> tuple[int, bytes]:
    event = {"type": "page", "event_id": event_id, "user_id": "1", "occurred_at": at_ms, "properties": {"path": "a"}}
    return person, json.dumps(event).encode()


def test_a_wrong_read_is_shrunk_to_the_steps_that_it_needs(monkeypatch):
    def sees_night(self: Simulation, *_args, **_kwargs):
        if len(self.world.rows) > 1:
            raise Wrong("as told")
        return Tally()

    monkeypatch.setattr(Simulation, "_read_once", sees_night)
    monkeypatch.setattr(Simulation, "read_all", lambda *_args: None)
    seed = next(seed for seed in range(50) if check(draw_script(seed))[1] is not None)
    short = shrink(Found(draw_script(seed), "as told"))
    assert [step.op for step in short.script.steps] == ["send", "night"]
    assert f"seed {seed}" in short.show()


def test_a_crashed_publish_shows_nothing():
    steps = (Step("send", 1, 0, (page("a", START_MS - DAY_MS),)), Step("flow", 2, 0))
    outcomes = set()
    for seed in range(60):
        simulation = Simulation(Script(1, 1, (0,), steps))
        simulation.run()
        world = simulation.world
        before = len(world.snapshots), len(world.rows)
        world.night(Random(seed))
        outcomes.add((len(world.snapshots) - before[0], len(world.rows) - before[1]))
        assert all(row.snapshot in world.snapshots for row in world.rows)
        simulation.read_all(Random(seed), "after the crash")
    assert outcomes == {(0, 0), (1, 0), (1, 1)}


def test_a_crash_of_the_core_is_a_wrong_read(monkeypatch):
    def crashes(*_args: object) -> None:
        raise KeyError("broken")

    monkeypatch.setattr("twofold.testing.simulator.merge", crashes)
    tally, found = simulate(1, seed=3)
    assert found is not None
    assert found.wrong == "KeyError: 'broken'"
    assert tally.reads == 0

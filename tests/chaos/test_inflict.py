"""The runner of faults, with a clock that a test moves and actions that only take notes."""

from __future__ import annotations

import pytest

from tests.chaos.inflict import PATIENCE_S, Missed, inflict
from tests.chaos.plan import Fault, draw_plan


class Clock:
    """Waiting moves it; at ``stop_s`` somebody asks to stop."""

    def __init__(self, stop_s: float = 1e9) -> None:
        self.now, self._stop_s = 0.0, stop_s

    def __call__(self) -> float:
        return self.now

    def wait(self, seconds: float) -> bool:
        self.now = min(self.now + seconds, self._stop_s)
        return self.now >= self._stop_s


class Notes:
    def __init__(self, clock: Clock, nobody: str = "") -> None:
        self.seen: list[tuple[float, str, str]] = []
        self._clock, self.nobody = clock, nobody

    def begin(self, fault: Fault) -> str:
        if fault.victim == self.nobody:
            raise Missed("it does not run")
        self.seen.append((round(self._clock.now, 1), "begin", fault.victim))
        return "done"

    def end(self, fault: Fault) -> str:
        self.seen.append((round(self._clock.now, 1), "end", fault.victim))
        return "undone"


FAULTS = (
    Fault(1, "pause", "speed", 5),
    Fault(2, "kill", "broker"),
    Fault(3, "refuse", "network", 1),
    Fault(9, "pause", "archive", 2),
)


def untold(what: str, how: str) -> None:
    """Nobody listens."""


def test_faults_begin_and_end_at_their_seconds_and_overlap() -> None:
    clock = Clock()
    notes, told = Notes(clock), []
    done = inflict(FAULTS, notes, clock, clock.wait, lambda what, _how: told.append(what))
    assert notes.seen == [
        (1, "begin", "speed"),
        (2, "begin", "broker"),
        (3, "begin", "network"),
        (4, "end", "network"),
        (6, "end", "speed"),
        (9, "begin", "archive"),
        (11, "end", "archive"),
    ]
    assert done == {"pause": 2, "kill": 1, "refuse": 1}
    assert told == ["fault", "fault", "fault", "over", "over", "fault", "over"]


def test_on_a_slow_machine_faults_lie_further_apart_and_last_as_long() -> None:
    clock = Clock()
    notes = Notes(clock)
    inflict(FAULTS[:2], notes, clock, clock.wait, untold, pace=3)
    assert notes.seen == [(3, "begin", "speed"), (6, "begin", "broker"), (8, "end", "speed")]


def test_whoever_stops_it_leaves_nothing_open() -> None:
    clock = Clock(stop_s=3.5)
    notes = Notes(clock)
    inflict(FAULTS, notes, clock, clock.wait, untold)
    assert [(what, victim) for _at, what, victim in notes.seen[-2:]] == [("end", "network"), ("end", "speed")]


def test_an_action_that_fails_leaves_nothing_open() -> None:
    clock = Clock()
    notes = Notes(clock)

    def tell(what: str, how: str) -> None:
        if "kill" in how:
            raise RuntimeError("told too much")

    with pytest.raises(RuntimeError):
        inflict(FAULTS, notes, clock, clock.wait, tell)
    assert notes.seen[-1][1:] == ("end", "speed")


def test_a_fault_that_met_nobody_is_told_and_not_counted() -> None:
    clock = Clock()
    notes, told = Notes(clock, nobody="broker"), []
    done = inflict(FAULTS, notes, clock, clock.wait, lambda what, how: told.append((what, how)))
    assert told[-1] == ("missed", "kill broker: it does not run")
    assert clock.now == FAULTS[1].at_s + PATIENCE_S
    assert "kill" not in done and {victim for _at, _what, victim in notes.seen} == {"speed", "network", "archive"}


def test_a_fault_waits_for_a_victim_that_comes_back() -> None:
    clock = Clock()
    notes = Notes(clock, nobody="broker")

    def tell(what: str, how: str) -> None:
        if how.startswith("pause archive"):
            notes.nobody = ""

    done = inflict(FAULTS, notes, clock, clock.wait, tell)
    assert done["kill"] == 1
    assert (10, "begin", "broker") in notes.seen


def test_every_plan_is_carried_out_whole() -> None:
    for seed in range(1, 30):
        clock = Clock()
        notes = Notes(clock)
        plan = draw_plan(seed)
        done = inflict(plan.faults, notes, clock, clock.wait, untold)
        assert sum(done.values()) == len(plan.faults)
        assert [what for _at, what, _victim in notes.seen].count("end") == sum(fault.for_s > 0 for fault in plan.faults)

"""`make chaos`: a whole system under random faults, a seed after another; 0 differences at the end of each, or exit 1.

``python -m tests.chaos.run --seeds 3`` runs seeds 1 to 3; ``--first 7 --seeds 1`` repeats seed 7. A run that found something says
its seed and its plan, and leaves its logs in ``build/chaos``.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.chaos.faults import SystemFaults
from tests.chaos.feed import draw_history
from tests.chaos.inflict import inflict
from tests.chaos.plan import Plan, draw_plan
from tests.chaos.reads import Readers
from tests.chaos.system import ChaosSystem
from tests.chaos.upkeep import UpkeepLane
from tests.chaos.verdict import Verdict, judge, judge_before_the_night
from tests.e2e.conftest import wait_for
from twofold.events import read_person_key
from twofold.local.parts import status_parts
from twofold.local.project import ROOT
from twofold.show import console, json_line
from twofold.stores.archive_log import archive_end
from twofold.stores.personalization import newest_commit

_RATE = 50.0
_SECONDS = 110.0
#: How long `up` may take before faults are spread further apart, and how much further at most.
_START_S, _SLOWEST = 60.0, 4.0
_TOLD_EVERY_S = 15
_CATCH_UP_S = 300


@dataclass
class Outcome:
    """What became of one seed."""

    seed: int
    seconds: float = 0
    faults: dict[str, int] = field(default_factory=dict)
    upkeep: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    states: dict[str, int] = field(default_factory=dict)
    differences: int = 0
    named: list[str] = field(default_factory=list)
    logs: str = ""


class Run:
    """One seed: a system of its own in a folder of its own."""

    def __init__(self, plan: Plan, folder: Path, as_json: bool) -> None:
        self._plan, self._folder, self._json = plan, folder, as_json
        self._began = time.monotonic()
        self._verdict = Verdict()
        #: Whether the disk is full now, and when that last began or ended.
        self._full, self._full_until = False, 0.0
        #: How many times as long everything may take as on a machine with nothing else to do.
        self._pace = 1.0

    def tell(self, what: str, how: str) -> None:
        after_s = time.monotonic() - self._began
        if self._json:
            json_line({"seed": self._plan.seed, "after_s": round(after_s, 1), "what": what, "how": how})
        else:
            head = ((f"{self._plan.seed:>4} {after_s:6.1f} s  ", "dim"), (f"{what:<9}", "bold red" if what == "fault" else "bold"))
            console.print(Text.assemble(*head, " ", how), soft_wrap=True)

    def go(self) -> Outcome:
        """Run it; everything is stopped and given back at the end, whatever happens."""
        plan = self._plan
        # The feed ends about when the faults do: its last lines are of now.
        end_ms = time.time_ns() // 1_000_000 + int((plan.seconds + _START_S) * 1000)
        lines = draw_history(plan.seed, int(_RATE * plan.seconds), end_ms, _RATE)
        system = ChaosSystem(self._folder, lines, _RATE)
        if system.disk.why_not:
            self.tell("disk", f"no small disk can be mounted ({system.disk.why_not}): RLIMIT_FSIZE stands in for a full one")
        try:
            return self._with(system, lines)
        finally:
            system.disk.unmount()

    def _with(self, system: ChaosSystem, lines: list[bytes]) -> Outcome:
        outcome = Outcome(self._plan.seed)
        people = sorted({person for line in lines if (person := read_person_key(line)) is not None})
        stop = threading.Event()
        keepers = system.keepers(stop, self.tell)
        readers = Readers(system.settings, people, self._plan.seed)
        lane = UpkeepLane(system, self._was_full, self.tell)
        try:
            with system.proxy:
                try:
                    system.twofold("up", "--detach")
                    self.tell("up", "all parts are ready")
                    for thread in (*keepers, readers):
                        thread.start()
                    outcome.faults = dict(self._storm(system, lane, readers))
                    self._catch_up(system)
                    readers.stop()
                    self._judge(system, lines, readers, lane)
                finally:
                    stop.set()
                    readers.stop()
                    system.stop(keepers)
        except Exception as error:
            self._verdict.add("the run", [f"{type(error).__name__}: {error}"[:1000]])
            (self._folder / "error.txt").write_text(traceback.format_exc(), encoding="utf-8")
        outcome.upkeep, outcome.states = dict(lane.done), dict(readers.states)
        outcome.seconds, outcome.counts = round(time.monotonic() - self._began, 1), self._verdict.counts
        outcome.differences, outcome.named = self._verdict.total, self._verdict.show()
        if outcome.differences:
            outcome.logs = self._keep_logs()
        return outcome

    # --- the storm ------------------------------------------------------------------------------------------------------------
    def _storm(self, system: ChaosSystem, lane: UpkeepLane, readers: Readers) -> Counter[str]:
        """Faults and upkeep side by side; returns when both are through."""
        plan = self._plan
        self._pace = min(_SLOWEST, max(1.0, (time.monotonic() - self._began) / _START_S))
        # A night over nothing is refused, which is no fault.
        entered = system.settings.table("archive")
        wait_for(lambda: any(archive_end(entered).values()), _CATCH_UP_S * self._pace, "the first entries in the archive")
        zero, over = time.monotonic(), threading.Event()

        def upkeep() -> None:
            for piece in plan.upkeep:
                try:
                    lane.carry_out(piece)
                except Exception as error:
                    lane.unexplained.append(f"{piece.show()}: {type(error).__name__}: {error}"[:500])

        def state() -> None:
            while not over.wait(_TOLD_EVERY_S):
                self.tell("state", self._state(system, readers))

        def told(what: str, how: str) -> None:
            if how.startswith("full") and what in ("fault", "over"):
                self._full, self._full_until = what == "fault", time.monotonic()
            self.tell(what, how)

        others = [threading.Thread(target=work, daemon=True) for work in (upkeep, state)]
        for other in others:
            other.start()
        waiting = threading.Event()
        if self._pace > 1.1:
            self.tell("pace", f"a slow machine: a second between two faults takes {self._pace:.1f} s")
        done = inflict(plan.faults, SystemFaults(system), lambda: time.monotonic() - zero, waiting.wait, told, self._pace)
        self.tell("faults", "all are over")
        others[0].join(_CATCH_UP_S * len(plan.upkeep) * self._pace)
        over.set()
        if others[0].is_alive():
            raise TimeoutError("upkeep does not come to its end: see nights.log")
        return done

    def _was_full(self, since: float) -> bool:
        """Whether the disk was full after ``since``, or is."""
        return self._full or self._full_until > since

    def _state(self, system: ChaosSystem, readers: Readers) -> str:
        parts = status_parts(system.settings)
        running = [name if part["alive"] else f"({name})" for name, part in parts.items()]
        last = readers.reads[-1].served if readers.reads else None
        read = "-" if last is None else f"{last.state} {_entries(last.cut, last.high)} entries snapshot {last.seq}"
        sent = f"{system.feed.acknowledged} lines acknowledged"
        return f"{' '.join(running) or 'nothing runs'}; {sent}; {len(readers.reads)} reads, last {read}"

    # --- the end --------------------------------------------------------------------------------------------------------------
    def _catch_up(self, system: ChaosSystem) -> None:
        """Wait until everything runs, every line is sent, and every layer has passed the log's end."""
        self.tell("end", "waiting until every part runs and every layer has passed the log's end")
        patience_s = _CATCH_UP_S * self._pace
        deadline = time.monotonic() + patience_s
        while not (system.feed.done and system.supervisor() is not None and self._all_alive(system)):
            if time.monotonic() > deadline:
                raise TimeoutError(f"not everything came back within {patience_s:.0f} s: {status_parts(system.settings)}")
            time.sleep(0.2)
        system.wait(max(10.0, deadline - time.monotonic()))
        self.tell("end", "caught up")

    @staticmethod
    def _all_alive(system: ChaosSystem) -> bool:
        parts = status_parts(system.settings)
        return len(parts) == 4 and all(part["alive"] for part in parts.values())

    def _judge(self, system: ChaosSystem, lines: list[bytes], readers: Readers, lane: UpkeepLane) -> None:
        verdict = self._verdict
        verdict.add("readers", readers.errors)
        verdict.add("upkeep", lane.unexplained)
        judge_before_the_night(system, verdict)
        self.tell("end", f"{verdict.total} differences before the last night")
        row = json.loads(system.twofold("batch", "--json").stdout.strip().splitlines()[-1])
        # Until then a row may be of the snapshot before, in which a copy of an old event may be in doubt.
        location = system.settings.table("personalization")
        wait_for(lambda: newest_commit(location).refreshed == row["seq"], _CATCH_UP_S * self._pace, "a row of everyone")
        judge(system, lines, readers.reads, row["counts"], verdict)
        audited = system.twofold("audit", "--json", check=False)
        if audited.returncode:
            verdict.add("audit", [f"exit {audited.returncode}: {(audited.stderr or audited.stdout)[-300:]}"])
        self.tell("end", f"{verdict.total} differences")

    def _keep_logs(self) -> str:
        """What is needed to look into it: everything but the broker's log and the snapshots."""
        kept = ROOT / "build" / "chaos" / f"seed-{self._plan.seed}-{time.strftime('%Y%m%dT%H%M%S')}"
        # A file may vanish under a copy: the rest is there all the same.
        with contextlib.suppress(shutil.Error):
            shutil.copytree(self._folder, kept, ignore=shutil.ignore_patterns("ballast", "*.lock"))
        (kept / "plan.txt").write_text(self._plan.show() + "\n", encoding="utf-8")
        (kept / "differences.txt").write_text(
            "".join(f"{what}: {line}\n" for what, found in self._verdict.differences.items() for line in found), encoding="utf-8"
        )
        return str(kept)


def _entries(*vectors: dict[str, dict[str, int]]) -> int:
    """Entries below the join of offsets vectors."""
    highest: dict[tuple[str, str], int] = {}
    for vector in vectors:
        for topic, ends in vector.items():
            for partition, end in ends.items():
                highest[topic, partition] = max(highest.get((topic, partition), 0), end)
    return sum(highest.values())


def show_outcomes(outcomes: list[Outcome]) -> None:
    """The table at the end."""
    table = Table("seed", "faults", "upkeep", "entries", "ok", "rejected", "reads", "compared", "differences", "seconds", box=None)
    for one in outcomes:
        faults, upkeep = (", ".join(f"{name} {count}" for name, count in of.items()) for of in (one.faults, one.upkeep))
        counts = [str(one.counts.get(name, "-")) for name in ("entries", "ok", "rejected", "reads", "compared")]
        table.add_row(str(one.seed), faults, upkeep, *counts, str(one.differences), f"{one.seconds:.0f}")
    # In a file as on a terminal: whole.
    (console if console.is_terminal else Console(width=200, highlight=False)).print(table)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    parser.add_argument("--seeds", type=int, default=3, help="how many seeds")
    parser.add_argument("--first", type=int, default=1, help="the first of them")
    parser.add_argument("--seconds", type=float, default=_SECONDS, help="length of the plan of faults; the whole run takes longer")
    parser.add_argument("--json", action="store_true", help="one JSON value a line")
    options: Any = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda _number, _frame: sys.exit(1))
    outcomes = []
    for seed in range(options.first, options.first + options.seeds):
        plan = draw_plan(seed, options.seconds)
        if options.json:
            json_line({"seed": seed, "plan": plan})
        else:
            console.print(plan.show())
        with tempfile.TemporaryDirectory(prefix="twofold-chaos-", ignore_cleanup_errors=True) as folder:
            outcome = Run(plan, Path(folder), options.json).go()
        outcomes.append(outcome)
        if options.json:
            json_line(asdict(outcome))
            continue
        for line in outcome.named:
            console.print(Text(line, "red"), soft_wrap=True)
        if outcome.differences:
            console.print(f"seed {seed}: {outcome.differences} differences; logs: {outcome.logs}", soft_wrap=True)
            console.print(plan.show())
    if not options.json:
        show_outcomes(outcomes)
    return 1 if any(outcome.differences for outcome in outcomes) else 0


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    sys.exit(main())

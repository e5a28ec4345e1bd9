"""What goes wrong in a run, and when: a pure function of the seed.

A plan has two lanes that run side by side: faults at their seconds, and upkeep (nights, rollbacks, vacuums, compaction), one after
the other. Each plan has every kind of fault; which part it meets, in which order and how badly is drawn.
"""

from __future__ import annotations

from random import Random
from typing import NamedTuple

PARTS = ("broker", "speed", "archive", "follower")
#: The steps of a rebuild at which one is killed, paused, or finds the disk full.
STEPS = ("pin", "state", "wide", "gate", "snapshot", "manifest")


class Kind(NamedTuple):
    """A kind of fault: whom it may meet, how often a plan has it, how long it lasts (s), and its amount (unit: see ``what``)."""

    what: str
    victims: tuple[str, ...]
    times: int
    for_s: tuple[float, float] = (0, 0)
    amounts: tuple[int, ...] = (0,)


KINDS: dict[str, Kind] = {
    "kill": Kind("kill -9 of a part's processes, of `up` alone, or of the producer", (*PARTS, "up", "producer"), 4),
    "pause": Kind("SIGSTOP, later SIGCONT", PARTS, 2, (3, 12)),
    "slow": Kind("the way to the broker passes so many bytes a second", ("network",), 1, (8, 15), (2_000, 20_000, 60_000)),
    "cut": Kind("each connection to the broker is cut after so many bytes", ("network",), 1, (6, 12), (300, 5_000, 40_000)),
    "hold": Kind("connections to the broker stay and pass nothing", ("network",), 1, (4, 10)),
    "refuse": Kind("connections to the broker are cut and refused", ("network",), 1, (4, 10)),
    "limit": Kind("RLIMIT_FSIZE of a part: no file grows beyond so many bytes", PARTS, 2, (5, 12), (0, 700, 20_000)),
    "full": Kind("the disk of the whole home is full", ("disk",), 1, (4, 10)),
}


class Fault(NamedTuple):
    """One fault: ``at_s`` seconds after the beginning, for ``for_s`` seconds (0: at once over)."""

    at_s: float
    kind: str
    victim: str
    for_s: float = 0
    amount: int = 0

    def show(self) -> str:
        lasts = f" for {self.for_s:g} s" if self.for_s else ""
        return f"{self.kind} {self.victim}" + (f" {self.amount} B" if KINDS[self.kind].amounts != (0,) else "") + lasts


class Upkeep(NamedTuple):
    """One piece of upkeep: ``night``, ``incremental``, ``rollback``, ``vacuum``, ``compact``; a night may meet a fault."""

    what: str
    fault: str = ""
    step: str = ""

    def show(self) -> str:
        return f"{self.what}, {self.fault} at {self.step}" if self.fault else self.what


class Plan(NamedTuple):
    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    upkeep: tuple[Upkeep, ...]

    def show(self) -> str:
        lines = [f"plan of seed {self.seed}: {self.seconds:g} s"]
        lines += [f"  {fault.at_s:6.1f} s  {fault.show()}" for fault in self.faults]
        lines += [f"  upkeep {number}: {piece.show()}" for number, piece in enumerate(self.upkeep, start=1)]
        return "\n".join(lines)


def draw_plan(seed: int, seconds: float = 120) -> Plan:
    """The plan of a seed. Faults lie in the first nine tenths of ``seconds``, one in each of as many equal pieces of it."""
    rng = Random(seed)
    kinds = [name for name, kind in KINDS.items() for _ in range(kind.times)]
    rng.shuffle(kinds)
    piece_s = seconds * 0.9 / len(kinds)
    faults: list[Fault] = []
    for number, name in enumerate(kinds):
        kind = KINDS[name]
        # Of one kind each victim once, before any comes again: `up` gives up on a part that dies too often.
        met = [fault.victim for fault in faults if fault.kind == name]
        victims = [victim for victim in kind.victims if victim not in met] or list(kind.victims)
        at_s = round((number + rng.uniform(0.1, 0.9)) * piece_s, 1)
        # Of what is short, a plan of few seconds has less.
        for_s = round(min(rng.uniform(*kind.for_s), seconds / 6), 1)
        faults.append(Fault(at_s, name, rng.choice(victims), for_s, rng.choice(kind.amounts)))
    return Plan(seed, seconds, tuple(faults), _draw_upkeep(rng))


def _draw_upkeep(rng: Random) -> tuple[Upkeep, ...]:
    """A night first, since the rest lives on what it published; another one that meets a fault, and what is left in any order."""
    doomed = Upkeep(rng.choice(("night", "incremental")), rng.choice(("kill", "pause", "limit")), rng.choice(STEPS))
    rest = [Upkeep("rollback"), Upkeep("vacuum"), Upkeep("compact"), doomed]
    rng.shuffle(rest)
    # A rollback needs two snapshots to choose from.
    return (Upkeep("night"), Upkeep("incremental"), *rest, Upkeep("vacuum"))

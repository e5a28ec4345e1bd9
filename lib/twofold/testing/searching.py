"""Many histories: until enough reads were held or one was wrong, and the shortest history that is still wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twofold.testing.script import Script, draw_script
from twofold.testing.simulator import Simulation, Tally, Wrong
from twofold.testing.world import Parts


def check(script: Script, parts: Parts | None = None) -> tuple[Tally, str | None]:
    """(what was read, what was wrong or ``None``) of one script."""
    simulation = Simulation(script, parts)
    try:
        simulation.run()
    except Wrong as wrong:
        return simulation.tally, str(wrong)
    except Exception as error:
        # An answer that never came is wrong too, and is found and shrunk by its seed like any other.
        return simulation.tally, f"{type(error).__name__}: {error}"
    return simulation.tally, None


@dataclass(frozen=True)
class Found:
    """A wrong read: the seed of its history, the script (shrunk when asked), and what was wrong."""

    script: Script
    wrong: str

    def show(self) -> str:
        lines = [
            f"wrong read, seed {self.script.seed}: {self.wrong}",
            f"  partitions {self.script.partitions}, from {self.script.starts}",
        ]
        return "\n".join([*lines, *(f"  {number}: {step.show()}" for number, step in enumerate(self.script.steps))])


def simulate(
    reads: int, seed: int, parts: Parts | None = None, progress: Callable[[Tally], None] = lambda _tally: None, stride: int = 1
) -> tuple[Tally, Found | None]:
    """Histories of the seeds ``seed``, ``seed + stride``, … until ``reads`` reads were held or one was wrong.

    ``progress`` gets the running total after each history.
    """
    total = Tally()
    while total.reads < reads:
        script = draw_script(seed)
        tally, wrong = check(script, parts)
        total.add(tally)
        if wrong is not None:
            return total, Found(script, wrong)
        progress(total)
        seed += stride
    return total, None


def shrink(found: Found, parts: Parts | None = None, tries: int = 400) -> Found:
    """The same failure (or another) with steps and events left out, as long as something is wrong."""
    best, size = found, max(1, len(found.script.steps) // 2)
    while size and tries:
        at = 0
        while at < len(best.script.steps) and tries:
            tries -= 1
            steps = best.script.steps
            shorter = best.script._replace(steps=steps[:at] + steps[at + size :])
            _tally, wrong = check(shorter, parts)
            if wrong is not None:
                best = Found(shorter, wrong)
            else:
                at += size
        size //= 2
    for at, step in enumerate(best.script.steps):
        for gone in range(len(step.values) - 1, -1, -1):
            steps = best.script.steps
            values = steps[at].values[:gone] + steps[at].values[gone + 1 :]
            shorter = best.script._replace(steps=(*steps[:at], steps[at]._replace(values=values), *steps[at + 1 :]))
            _tally, wrong = check(shorter, parts)
            if wrong is not None:
                best = Found(shorter, wrong)
    return best

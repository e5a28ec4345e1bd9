"""The runner of a plan's faults: begins each at its second, ends it when it has lasted, and leaves nothing open behind it."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Protocol

from tests.chaos.plan import Fault

#: How long a fault waits for a victim that does not run.
PATIENCE_S = 30

#: Gets what happened and to what.
Tell = Callable[[str, str], None]


class Missed(Exception):
    """The fault met nobody: the line says why."""


class Actions(Protocol):
    """How faults are done to a system."""

    def begin(self, fault: Fault) -> str:
        """Do it; returns what there is to tell. Raises :class:`Missed`."""

    def end(self, fault: Fault) -> str:
        """Undo it: the disk has room, the network is whole, the process goes on."""


def inflict(
    faults: Iterable[Fault],
    actions: Actions,
    clock: Callable[[], float],
    wait: Callable[[float], bool],
    tell: Tell,
    pace: float = 1,
) -> Counter[str]:
    """Carry the faults out; returns how many of each kind met somebody. One whose victim does not run waits for it for a while.

    ``clock()``: seconds since the beginning of the run; ``wait(s)`` waits and returns whether to stop. ``pace``: seconds that one
    second between two faults takes: more on a slow machine, where parts take longer to come back. Faults last no longer there.
    """
    begins = [(fault.at_s * pace, number, fault) for number, fault in enumerate(faults)]
    heapq.heapify(begins)
    ends: list[tuple[float, int, Fault]] = []
    done: Counter[str] = Counter()
    try:
        while begins or ends:
            due = min(queue[0][0] for queue in (begins, ends) if queue)
            while (left := due - clock()) > 0:
                if wait(left):
                    return done
            if ends and ends[0][0] <= due:
                fault = heapq.heappop(ends)[2]
                tell("over", f"{fault.kind} {fault.victim}: {actions.end(fault)}")
                continue
            due_s, number, fault = heapq.heappop(begins)
            try:
                told = actions.begin(fault)
            except Missed as missed:
                if due_s < (fault.at_s + PATIENCE_S) * pace:
                    # Down by an earlier fault, perhaps: it will come back.
                    heapq.heappush(begins, (due_s + 1, number, fault))
                else:
                    tell("missed", f"{fault.show()}: {missed}")
                continue
            done[fault.kind] += 1
            tell("fault", f"{fault.show()}: {told}")
            if fault.for_s:
                heapq.heappush(ends, (clock() + fault.for_s, number, fault))
    finally:
        for _due, _number, fault in ends:
            tell("over", f"{fault.kind} {fault.victim}: {actions.end(fault)}")
    return done

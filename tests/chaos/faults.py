"""How each kind of fault is done to a running system, and undone."""

from __future__ import annotations

import contextlib
import os
import resource
import signal

import psutil

from tests.chaos.inflict import Missed
from tests.chaos.plan import PARTS, Fault
from tests.chaos.system import ChaosSystem, group
from twofold.local.parts import status_parts


def limit_files(leader: int, size_bytes: int | None) -> int:
    """Set (``None``: lift) RLIMIT_FSIZE of a process group; returns of how many processes. Children inherit it."""
    count = 0
    for process in group(leader):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            soft = resource.RLIM_INFINITY if size_bytes is None else size_bytes
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (soft, resource.RLIM_INFINITY))
            count += 1
    return count


class SystemFaults:
    """The actions of :func:`tests.chaos.inflict.inflict` on a system."""

    def __init__(self, system: ChaosSystem) -> None:
        self._system = system
        #: Leaders of the groups that a fault holds.
        self._held: dict[Fault, list[int]] = {}
        #: The network has one fault at a time: a later one takes its place.
        self._network: Fault | None = None

    def begin(self, fault: Fault) -> str:
        return str(getattr(self, f"_{fault.kind}")(fault))

    def end(self, fault: Fault) -> str:
        if fault.kind == "pause":
            for leader in self._held.pop(fault):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(leader, signal.SIGCONT)
            return "goes on"
        if fault.victim == "network":
            if self._network is not fault:
                return "another fault has taken its place"
            self._network = None
            self._system.proxy.heal()
            return f"whole again; {self._system.proxy.seen.cut} connections cut so far"
        for leader in self._held.pop(fault):
            limit_files(leader, None)
        if fault.kind == "full":
            self._system.disk.empty()
        return "there is room again"

    # --- processes ------------------------------------------------------------------------------------------------------------
    def _leader(self, part: str) -> int:
        known = status_parts(self._system.settings).get(part)
        if known is None or not known["alive"]:
            raise Missed("it does not run")
        return int(known["pid"])

    def _kill(self, fault: Fault) -> str:
        if fault.victim == "producer":
            if not self._system.feed.kill():
                raise Missed("it does not run")
            return f"after {self._system.feed.acknowledged} lines"
        if fault.victim == "up":
            supervisor = self._system.supervisor()
            if supervisor is None:
                raise Missed("it does not run")
            with contextlib.suppress(psutil.NoSuchProcess):
                supervisor.kill()
            return f"pid {supervisor.pid}"
        return self._signal(fault, signal.SIGKILL)

    def _pause(self, fault: Fault) -> str:
        return self._signal(fault, signal.SIGSTOP)

    def _signal(self, fault: Fault, number: signal.Signals) -> str:
        leader = self._leader(fault.victim)
        try:
            os.killpg(leader, number)
        except ProcessLookupError as error:
            raise Missed("it does not run") from error
        self._held[fault] = [leader]
        return f"pid {leader}"

    # --- the way to the broker --------------------------------------------------------------------------------------------------
    def _slow(self, fault: Fault) -> str:
        return self._of_the_network(fault, lambda: self._system.proxy.limit(fault.amount))

    def _cut(self, fault: Fault) -> str:
        return self._of_the_network(fault, lambda: self._system.proxy.cut_after(fault.amount))

    def _hold(self, fault: Fault) -> str:
        return self._of_the_network(fault, self._system.proxy.hold)

    def _refuse(self, fault: Fault) -> str:
        return self._of_the_network(fault, self._system.proxy.refuse)

    def _of_the_network(self, fault: Fault, do: object) -> str:
        # From whole to broken: what an earlier fault had set does not stay behind this one.
        self._system.proxy.heal()
        assert callable(do)
        do()
        self._network = fault
        return f"{self._system.proxy.seen.connections} connections so far"

    # --- the disk -------------------------------------------------------------------------------------------------------------
    def _limit(self, fault: Fault) -> str:
        leader = self._leader(fault.victim)
        self._held[fault] = [leader]
        return f"{limit_files(leader, fault.amount)} processes"

    def _full(self, fault: Fault) -> str:
        if not self._system.disk.why_not:
            self._held[fault] = []
            return f"{self._system.disk.fill() / 1e6:.0f} MB were free"
        # No file system of its own: every part at once may write no byte.
        leaders = [part["pid"] for name, part in status_parts(self._system.settings).items() if name in PARTS and part["alive"]]
        self._held[fault] = leaders
        return f"RLIMIT_FSIZE of {sum(limit_files(leader, 0) for leader in leaders)} processes in its place"

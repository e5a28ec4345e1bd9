"""The lane of upkeep: nights, rollbacks, vacuums and compaction as an operator runs them, some of them met by a fault."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable

from tests.chaos.faults import limit_files
from tests.chaos.inflict import Tell
from tests.chaos.plan import Upkeep
from tests.chaos.system import ChaosSystem
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.stores.listing import listing
from twofold.stores.manifest import rows

_PAUSE_S = 4
_REFUSED = 3
#: How often compaction is asked for, and how long after a failure.
_ASKED, _ASK_AGAIN_S = 4, 10


class UpkeepLane:
    """Carries out pieces of upkeep. ``disturbed(began_s)``: whether a disk was full since then, so that a failure is no wonder."""

    def __init__(
        self,
        system: ChaosSystem,
        disturbed: Callable[[float], bool],
        tell: Tell,
        wait: Callable[[float], None] = time.sleep,
    ) -> None:
        self._system, self._disturbed, self._tell, self._wait = system, disturbed, tell, wait
        #: Pieces by what came of them: "night done", "rollback refused" …
        self.done: Counter[str] = Counter()
        #: Failures that no fault explains.
        self.unexplained: list[str] = []

    def carry_out(self, piece: Upkeep) -> None:
        self._tell("upkeep", piece.show())
        began = time.monotonic()
        code, said = getattr(self, f"_{piece.what}")(piece)
        outcome = "done" if code == 0 else "killed" if code < 0 else "refused" if code == _REFUSED else "failed"
        self.done[f"{piece.what} {outcome}"] += 1
        self._tell("upkeep", f"{piece.show()}: {outcome} after {time.monotonic() - began:.0f} s{': ' if said else ''}{said}")
        # A night that was paused goes on; one that was killed, or found the disk full, may fail.
        if code and piece.fault in ("", "pause") and not self._disturbed(began):
            self.unexplained.append(f"{piece.show()}: exit {code}: {said}")

    # --- nights ---------------------------------------------------------------------------------------------------------------
    def _night(self, piece: Upkeep) -> tuple[int, str]:
        return self._rebuild(piece)

    def _incremental(self, piece: Upkeep) -> tuple[int, str]:
        if not rows(self._system.settings.table("manifest")):
            # An operator's first night is a full one.
            return self._rebuild(piece)
        return self._rebuild(piece, "--incremental")

    def _rebuild(self, piece: Upkeep, *options: str) -> tuple[int, str]:
        system = self._system
        arguments = ["--home", str(system.home), "--config", str(system.config), *options]
        with (system.folder / "nights.log").open("a", encoding="utf-8") as log:
            process = subprocess.Popen(
                spark_submit("batch", *arguments),
                stdout=subprocess.PIPE,
                stderr=log,
                stdin=subprocess.DEVNULL,
                cwd=ROOT,
                env=child_environment(),
                start_new_session=True,
                text=True,
            )
            assert process.stdout is not None
            said = ""
            for line in process.stdout:
                log.write(line)
                if line.startswith("batch: "):
                    said = line[len("batch: ") :].strip()[:300]
                if piece.fault and line.strip() == f"step {piece.step}":
                    self._meet(process.pid, piece.fault)
            return process.wait(), said

    @staticmethod
    def _meet(leader: int, fault: str) -> None:
        if fault == "kill":
            os.killpg(leader, signal.SIGKILL)
        elif fault == "limit":
            # Until its end: whatever it writes from here on is torn or missing.
            limit_files(leader, 700)
        else:
            os.killpg(leader, signal.SIGSTOP)
            threading.Timer(_PAUSE_S, os.killpg, (leader, signal.SIGCONT)).start()

    # --- the rest -------------------------------------------------------------------------------------------------------------
    def _rollback(self, _piece: Upkeep) -> tuple[int, str]:
        found = listing(self._system.settings)
        other = [one.row.seq for one in found if one.readable and one.row.snapshot != found[0].row.snapshot]
        return self._command("rollback", str(other[0])) if other else (0, "there is nothing to go back to")

    def _vacuum(self, _piece: Upkeep) -> tuple[int, str]:
        return self._command("vacuum")

    def _compact(self, _piece: Upkeep) -> tuple[int, str]:
        # The archive's writer does it; one that dies meanwhile is asked again when it has come back.
        for _ in range(_ASKED):
            code, said = self._command("compact", "archive", "--timeout", "120")
            if code == 0:
                break
            self._wait(_ASK_AGAIN_S)
        return code, said

    def _command(self, *arguments: str) -> tuple[int, str]:
        done = self._system.twofold(*arguments, check=False)
        return done.returncode, " ".join(done.stderr.split())[-300:] if done.returncode else ""

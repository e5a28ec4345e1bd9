"""``python -m twofold.testing.simulate --reads N --seed S --processes 2``: the simulator's long form.

Prints the seed and the reads per second; exit code 1 with the seed and a shrunk history when any read was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from multiprocessing import get_context
from queue import Empty
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from twofold.errors import PartError
from twofold.testing.searching import Found, shrink, simulate
from twofold.testing.simulator import Tally

#: How many reads a process holds before it says how far it is.
REPORT_READS = 2_000


def _work(reads: int, seed: int, stride: int, results: Any) -> None:
    said = 0

    def progress(tally: Tally) -> None:
        nonlocal said
        if tally.reads - said >= REPORT_READS:
            results.put(tally.reads - said)
            said = tally.reads

    results.put(simulate(reads, seed, progress=progress, stride=stride))


def _gather(reads: int, seed: int, processes: int) -> Iterator[int | tuple[Tally, Found | None]]:
    """Reads as they are held, then what each process found; the first wrong read ends them all."""
    context = get_context("spawn")
    results: Any = context.Queue()
    share = -(-reads // processes)
    workers = [context.Process(target=_work, args=(share, seed + n, processes, results), daemon=True) for n in range(processes)]
    for worker in workers:
        worker.start()
    done = 0
    try:
        while done < processes:
            try:
                message = results.get(timeout=1)
            except Empty:
                died = [worker.exitcode for worker in workers if worker.exitcode]
                if died:
                    raise PartError(
                        f"a process of the simulator died with exit code {died[0]}: run it again with --processes 1"
                    ) from None
                continue
            yield message
            if not isinstance(message, int):
                done += 1
                if message[1] is not None:
                    return
    finally:
        for worker in workers:
            worker.terminate()
            worker.join()


def main(arguments: list[str] | None = None) -> int:
    """Run and print; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m twofold.testing.simulate", description=__doc__.splitlines()[0])
    parser.add_argument("--reads", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    chosen = parser.parse_args(arguments)
    console = Console(highlight=False)
    console.print(f"simulator: seed {chosen.seed}, {chosen.reads:,} reads, {chosen.processes} processes")
    total, found, begun = Tally(), None, time.perf_counter()
    columns = (TextColumn("reads"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("reads", total=chosen.reads)
        for message in _gather(chosen.reads, chosen.seed, chosen.processes):
            if isinstance(message, int):
                bar.advance(task, message)
            else:
                total.add(message[0])
                found = found or message[1]
    took_s = time.perf_counter() - begun
    states = ", ".join(f"{state} {count:,}" for state, count in total.states.most_common())
    console.print(
        f"reads held to the oracle: {total.reads:,} in {took_s:.1f} s, {total.reads / took_s:,.0f} reads/s", soft_wrap=True
    )
    console.print(
        f"states: {states}; conflicts {total.conflicts:,}; pending retractions {total.pending:,}; "
        f"same (t, O) from two snapshots {total.pairs:,}; under a pin {total.pinned.total():,} "
        f"({total.pinned['archive']:,} of them from the archive); in a segment {total.members:,}",
        soft_wrap=True,
    )
    if found is not None:
        console.print(shrink(found).show(), markup=False)
        return 1
    console.print("wrong: 0")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""`make bench`: every figure of docs/results.md, one JSON line each, each in a process of its own. About two hours.

``python -m tests.bench.run merge backlog`` runs only those named.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON = sys.executable


def _run(*arguments: str) -> None:
    print("$ python " + " ".join(arguments[1:]), flush=True)
    subprocess.run(arguments, check=True)


def _on_a_system(bench: str, rate: int, *without: str, more: tuple[str, ...] = (), **settings: str) -> None:
    """``more``: further arguments of the bench; ``settings``: of the system, as environment variables."""
    with tempfile.TemporaryDirectory() as folder:
        home = str(Path(folder) / "home")
        leave_out = [word for name in without for word in ("--without", name)]
        subprocess.run(
            [PYTHON, "-m", "twofold.cli", "up", "--detach", "--home", home, *leave_out], check=True, env={**os.environ, **settings}
        )
        try:
            _run(PYTHON, "-m", f"tests.bench.{bench}", "--home", home, "--rate", str(rate), *more)
        finally:
            subprocess.run([PYTHON, "-m", "twofold.cli", "down", "--home", home], check=True)


BENCHES = {
    "merge": lambda: _run(PYTHON, "-m", "tests.bench.merge_speed"),
    "explain": lambda: _run(PYTHON, "-m", "tests.bench.explain"),
    "heavy": lambda: _run(PYTHON, "-m", "tests.bench.heavy"),
    "pins": lambda: _run(PYTHON, "-m", "tests.bench.pins"),
    "audit": lambda: _run(PYTHON, "-m", "tests.bench.audit"),
    "backlog": lambda: _run(PYTHON, "-m", "tests.bench.backlog"),
    "speed-restart": lambda: _run(PYTHON, "-m", "tests.bench.speed_restart"),
    "batch": lambda: _run(PYTHON, "-m", "tests.bench.bench_batch", "--events", "5000000"),
    "wide": lambda: _run(PYTHON, "-m", "tests.bench.wide_night", "--events", "5000000"),
    "big-night": lambda: _run(PYTHON, "-m", "tests.bench.big_night", "--events", "20000000"),
    "refresh": lambda: _run(PYTHON, "-m", "tests.bench.refresh", "--events", "20000000"),
    "incremental": lambda: _run(PYTHON, "-m", "tests.bench.incremental"),
    "latency-500": lambda: _on_a_system("latency", 500, "personalize"),
    "latency-2000": lambda: _on_a_system("latency", 2_000, "personalize"),
    # What a batch boundary of speed costs, which the sixty minutes of a default batch leave out: two fall into five minutes.
    "latency-boundaries": lambda: _on_a_system(
        "latency", 500, "personalize", more=("--seconds", "300"), TWOFOLD_SPEED__BATCH_DURATION="2 minutes"
    ),
    "personalize-500": lambda: _on_a_system("personalize", 500),
    "personalize-2000": lambda: _on_a_system("personalize", 2_000),
    # What the parts cost without the table: the difference is its price.
    "without-personalize-500": lambda: _on_a_system("personalize", 500, "personalize"),
    "personalization-writes": lambda: _run(PYTHON, "-m", "tests.bench.personalization_writes"),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHES:
        BENCHES[name]()

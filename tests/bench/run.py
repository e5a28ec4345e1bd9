"""`make bench`: every figure of docs/results.md, one JSON line each, each in a process of its own. About three quarters of an hour.

``python -m tests.bench.run merge backlog`` runs only those named.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

PYTHON = sys.executable


def _run(*arguments: str) -> None:
    print("$ python " + " ".join(arguments[1:]), flush=True)
    subprocess.run(arguments, check=True)


def _latency(rate: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = str(Path(folder) / "home")
        subprocess.run([PYTHON, "-m", "twofold.cli", "up", "--detach", "--home", home], check=True)
        try:
            _run(PYTHON, "-m", "tests.bench.latency", "--home", home, "--rate", str(rate))
        finally:
            subprocess.run([PYTHON, "-m", "twofold.cli", "down", "--home", home], check=True)


BENCHES = {
    "merge": lambda: _run(PYTHON, "-m", "tests.bench.merge_speed"),
    "backlog": lambda: _run(PYTHON, "-m", "tests.bench.backlog"),
    "speed-restart": lambda: _run(PYTHON, "-m", "tests.bench.speed_restart"),
    "batch": lambda: _run(PYTHON, "-m", "tests.bench.bench_batch", "--events", "5000000"),
    "wide": lambda: _run(PYTHON, "-m", "tests.bench.wide_night", "--events", "5000000"),
    "latency-500": lambda: _latency(500),
    "latency-2000": lambda: _latency(2_000),
}

if __name__ == "__main__":
    for name in sys.argv[1:] or BENCHES:
        BENCHES[name]()

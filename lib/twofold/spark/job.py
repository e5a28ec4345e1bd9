"""What every job of this room does around its one function: arguments, settings, session, readiness, exit code."""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twofold.errors import TwofoldError
from twofold.settings import Settings, load_settings
from twofold.spark.session import open_session


def arguments(job: str, more: Callable[[argparse.ArgumentParser], None] = lambda _parser: None) -> argparse.Namespace:
    """The arguments that every job takes: ``--home``, ``--config``; ``more`` adds a job's own."""
    parser = argparse.ArgumentParser(prog=f"jobs/{job}.py")
    parser.add_argument("--home", help="folder of everything a local run writes")
    parser.add_argument("--config", help="settings file (YAML)")
    more(parser)
    return parser.parse_args()


def _write_ready(home: Path, job: str) -> None:
    folder = home / "run"
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{job}.partial"
    partial.write_text(json.dumps({"pid": os.getpid(), "state": "ready", "at_ms": time.time_ns() // 1_000_000}), encoding="utf-8")
    partial.replace(folder / f"{job}.json")


def exit_code(job: str, work: Callable[[], int]) -> int:
    """Run ``work``; a named error is one line on standard error and its exit code."""
    try:
        return work()
    except TwofoldError as error:
        print(f"{job}: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def is_running(query: Any) -> bool:
    """True once a stream has planned its source: it then reads whatever comes."""
    return bool(query.isActive) and not query.status["message"].startswith("Initializing")


def run_stream(job: str, start: Callable[[Any, Settings], Any], slots: Callable[[Settings], int] = lambda _settings: 0) -> int:
    """Run a stream until SIGTERM or SIGINT (exit 0) or its failure (exit 1, one line)."""
    options = arguments(job)
    stopped = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True

    def work() -> int:
        settings = load_settings(options.config, home=options.home)
        spark = open_session(settings, job, slots(settings))
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        query = start(spark, settings)
        announced = False
        while not stopped:
            if query.awaitTermination(0.2):
                break
            if not announced and is_running(query):
                _write_ready(settings.home_path, job)
                announced = True
        failure = query.exception()
        if failure is not None:
            print(f"{job}: the stream stopped: {first_line(str(failure))}", file=sys.stderr, flush=True)
            return 1
        query.stop()
        return 0

    return exit_code(job, work)


def first_line(text: str, limit: int = 500) -> str:
    """The first line of a long JVM message."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:limit]

"""One nightly rebuild as the scheduled job runs it: the README's spark-submit line in a child process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold.local.broker import last_line
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.settings import Settings


@dataclass(frozen=True)
class Night:
    """How a rebuild ended: the job's exit code, the manifest row it printed, and its one-line error."""

    exit_code: int
    row: dict[str, Any]
    error: str = ""


def run_batch(settings: Settings, as_of_ms: int | None, config: str | None, report: Callable[[str], None]) -> Night:
    """Run one rebuild to its end; ``report`` gets the name of each step as it begins."""
    arguments = ["--home", str(settings.home_path)]
    if as_of_ms is not None:
        arguments += ["--as-of", str(as_of_ms)]
    if config:
        arguments += ["--config", config]
    log = settings.home_path / "logs" / "batch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {}
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as errors:
        process = subprocess.Popen(
            spark_submit("batch", *arguments),
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=child_environment(),
            text=True,
        )
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("step "):
                report(line[5:].strip())
            elif line.startswith("{"):
                row = json.loads(line)
        code = process.wait()
    return Night(code, row, f"{_error_line(log, start)} (log: {log})" if code else "")


def _error_line(log: Path, start: int) -> str:
    """The job's own line of this run; Spark writes on the same stream, before and after it."""
    with log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode("utf-8", "replace").splitlines()
    own = [line for line in lines if line.startswith("batch: ")]
    return own[-1] if own else last_line(log)

"""Spark jobs as the scheduler runs them: the README's spark-submit line in a child process, one nightly rebuild above all."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twofold.local.broker import last_line
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.settings import Settings


@dataclass(frozen=True)
class Night:
    """How a job ended: its exit code, the one JSON value it printed (a rebuild: its manifest row), and its one-line error."""

    exit_code: int
    row: dict[str, Any]
    error: str = ""


def run_batch(
    settings: Settings, as_of_ms: int | None, config: str | None, report: Callable[[str], None], mode: str = "full"
) -> Night:
    """Run one rebuild (``full``, ``incremental`` or ``compare``) to its end; ``report`` gets each step's name as it begins."""
    more = [] if as_of_ms is None else ["--as-of", str(as_of_ms)]
    return run_job(settings, "batch", [*more, *([] if mode == "full" else [f"--{mode}"])], config, report)


def run_job(settings: Settings, job: str, more: list[str], config: str | None, report: Callable[[str], None]) -> Night:
    """Run ``jobs/JOB.py`` on this home to its end, with ``more`` arguments of its own."""
    arguments = [*more, "--home", str(settings.home_path)]
    if config:
        arguments += ["--config", config]
    log = settings.home_path / "logs" / f"{job}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {}
    error = ""
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            spark_submit(job, *arguments, properties=settings.spark.properties),
            stdout=subprocess.PIPE,
            stderr=errors,
            stdin=subprocess.DEVNULL,
            cwd=ROOT,
            env=child_environment(),
            text=True,
        )
        assert process.stdout is not None
        # spark-submit joins Python's two streams in its standard output: the job's error line is there too.
        for line in process.stdout:
            if line.startswith("step "):
                report(line[5:].strip())
            elif line.startswith("{"):
                row = json.loads(line)
            else:
                errors.write(line)
                if line.startswith(f"{job}: "):
                    error = line[len(job) + 2 :].strip()
        code = process.wait()
    return Night(code, row, f"{error or last_line(log)} (log: {log})" if code else "")

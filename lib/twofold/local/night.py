"""One nightly rebuild as the scheduled job runs it: the README's spark-submit line in a child process."""

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
    error = ""
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            spark_submit("batch", *arguments, properties=settings.spark.properties),
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
                if line.startswith("batch: "):
                    error = line[7:].strip()
        code = process.wait()
    return Night(code, row, f"{error or last_line(log)} (log: {log})" if code else "")

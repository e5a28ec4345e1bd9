"""One nightly rebuild as the scheduled job runs it: the README's spark-submit line in a child process."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from twofold.local.broker import last_line
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.settings import Settings


def run_batch(
    settings: Settings, as_of_ms: int | None, config: str | None, report: Callable[[str], None]
) -> tuple[int, dict[str, Any]]:
    """(exit code, manifest row). ``report`` gets each step as it begins; the job's own error line is reported last."""
    arguments = ["--home", str(settings.home_path)]
    if as_of_ms is not None:
        arguments += ["--as-of", str(as_of_ms)]
    if config:
        arguments += ["--config", config]
    log = settings.home_path / "logs" / "batch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {}
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
    if code:
        report(f"{last_line(log)} (log: {log})")
    return code, row

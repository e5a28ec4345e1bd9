"""`pytest --side-by-side`: the tests of the whole system run in a second process beside all others, in one run with one summary.

The second process is a pytest of its own, with its own fixtures; its reports are told here as they come. Much of what it does is
waiting for other processes, so two cores are done sooner with both than with one after the other.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

#: Names the file into which the second process writes its reports, a line each. (Not TWOFOLD_…: that would be a setting.)
REPORTS = "PYTEST_REPORTS_BESIDE"
_MARK = "e2e"


class Told:
    """In the second process: writes every report."""

    def __init__(self, config: pytest.Config, file: str) -> None:
        self._config = config
        self._out = Path(file).open("a", encoding="utf-8")  # noqa: SIM115  (open as long as the session)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        data = self._config.hook.pytest_report_to_serializable(config=self._config, report=report)
        self._out.write(json.dumps(data) + "\n")
        self._out.flush()


class SideBySide:
    """In the first process: leaves the marked tests to a second one, and tells its reports."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._apart = 0

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        here = [item for item in items if item.get_closest_marker(_MARK) is None]
        self._apart = len(items) - len(here)
        items[:] = here

    @pytest.hookimpl(wrapper=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Generator[None, object, object]:
        if not self._apart or self._config.option.collectonly:
            return (yield)
        # Of so many the dots are a share.
        session.testscollected += self._apart
        with tempfile.TemporaryDirectory() as folder:
            reports, log = Path(folder, "reports"), Path(folder, "log")
            reports.touch()
            command = [sys.executable, "-m", "pytest", "-m", _MARK, *self._config.option.file_or_dir]
            with log.open("wb") as out:
                beside = subprocess.Popen(
                    command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env={**os.environ, REPORTS: str(reports)}
                )
            try:
                done = yield
                told = sum(self._tell(data) for data in self._reports(reports, beside))
            finally:
                if beside.poll() is None:
                    # As Ctrl-C: what its fixtures started is stopped.
                    beside.send_signal(signal.SIGINT)
                beside.wait()
            if told != self._apart or beside.returncode not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED):
                text = log.read_text(encoding="utf-8", errors="replace")[-4_000:]
                raise pytest.UsageError(f"{told} of {self._apart} tests beside were told, exit {beside.returncode}:\n{text}")
        return done

    def _reports(self, file: Path, beside: subprocess.Popen[bytes]) -> Iterator[dict[str, Any]]:
        with file.open(encoding="utf-8") as lines:
            rest = ""
            while True:
                ended = beside.poll() is not None
                rest += lines.read()
                *whole, rest = rest.split("\n")
                yield from map(json.loads, whole)
                if ended:
                    return
                time.sleep(0.2)

    def _tell(self, data: dict[str, Any]) -> bool:
        """Tell a report; whether it was the last one of a test."""
        report = self._config.hook.pytest_report_from_serializable(config=self._config, data=data)
        self._config.hook.pytest_runtest_logreport(report=report)
        return bool(report.when == "teardown")

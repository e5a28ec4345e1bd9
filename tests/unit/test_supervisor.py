"""The supervisor where the disk is full and where its predecessor was killed: no part is ever left that nobody knows of."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from twofold.errors import BrokerError, PartError
from twofold.local import broker as broker_module
from twofold.local import parts
from twofold.local.broker import Broker
from twofold.local.parts import Supervisor
from twofold.settings import Settings, load_settings

FULL = OSError(28, "No space left on device")


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    jars = tmp_path / "jars"
    jars.mkdir()
    (jars / "kafka_2.13-0.jar").touch()
    return load_settings(environ={}, home=str(tmp_path / "home"), spark={"broker_jars": str(jars)})


#: Processes of this run that are no test's here: a Spark session of other tests.
_others: set[int] = set()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    _others.update(child.pid for child in psutil.Process().children())
    yield
    for child in psutil.Process().children():
        if child.pid not in _others:
            child.kill()
    _others.clear()


def untold(event: str, details: dict[str, Any]) -> None:
    """Nobody listens."""


def running() -> list[int]:
    found = (child for child in psutil.Process().children() if child.pid not in _others)
    return [child.pid for child in found if child.status() != psutil.STATUS_ZOMBIE]


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", "import time; time.sleep(60)"], start_new_session=True, env={**os.environ, **environment}
    )


def test_a_broker_that_cannot_be_recorded_does_not_run_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "java"
    java.write_text("#!/bin/sh\nexec sleep 60\n")
    java.chmod(0o755)
    (settings.home_path / "kafka" / "data").mkdir(parents=True)
    (settings.home_path / "kafka" / "data" / "meta.properties").touch()

    def full(file: Path, data: Any) -> None:
        raise FULL

    monkeypatch.setattr(broker_module, "_java", lambda: str(java))
    monkeypatch.setattr(broker_module, "write_json", full)
    with pytest.raises(OSError, match="No space"):
        Broker(settings).start()
    assert running() == []


class Scripted(Supervisor):
    """Its one part cannot be started as often as said, then runs."""

    def __init__(self, settings: Settings, failures: list[Exception], report: Callable[[str, dict[str, Any]], None]) -> None:
        super().__init__(settings, report)
        self._failures = failures
        self.waited: list[float] = []

    def _launch(self, name: str) -> Callable[[], bool]:
        if self._failures:
            raise self._failures.pop(0)
        process = sleeper()
        self._children[name] = parts._Child(name, process, self._settings.home_path / "logs" / f"{name}.log", 0)
        return lambda: True

    def _await(self, _name: str, ready: Callable[[], bool]) -> None:
        assert ready()

    def _pause(self, seconds: float) -> None:
        self.waited.append(seconds)

    def begin(self) -> subprocess.Popen[bytes]:
        self._settings.home_path.mkdir(parents=True)
        self._launch("speed")
        return self._children["speed"].process


def died(process: subprocess.Popen[bytes]) -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@pytest.mark.parametrize(
    "failure", [FULL, BrokerError("the broker at x cannot be reached"), PartError("speed died while starting")]
)
def test_a_part_that_cannot_be_started_now_is_started_later(settings: Settings, failure: Exception) -> None:
    told: list[str] = []
    supervisor = Scripted(settings, [], lambda event, _details: told.append(event))
    first = supervisor.begin()
    supervisor._failures = [failure, failure]
    died(first)
    supervisor.watch(lambda: supervisor._children["speed"].process is not first)
    assert told == ["died", "not_ready", "died", "not_ready", "died"]
    assert supervisor.waited == sorted(supervisor.waited) and len(set(supervisor.waited)) == 3, "longer each time"
    assert running() == [supervisor._children["speed"].process.pid]


def test_a_part_that_never_starts_again_is_given_up(settings: Settings) -> None:
    supervisor = Scripted(settings, [], untold)
    first = supervisor.begin()
    supervisor._failures = [FULL] * 100
    died(first)
    with pytest.raises(PartError, match="speed died"):
        supervisor.watch(lambda: False)


def test_what_cannot_be_told_stops_nothing(settings: Settings) -> None:
    def full(event: str, details: dict[str, Any]) -> None:
        raise FULL

    supervisor = Scripted(settings, [], full)
    first = supervisor.begin()
    died(first)
    supervisor.watch(lambda: supervisor._children["speed"].process is not first)
    assert len(running()) == 1


def test_parts_that_no_record_names_are_found_and_stopped(settings: Settings, tmp_path: Path) -> None:
    """Their supervisor was killed between the start of a part and its record: `up.json` does not name it."""
    ours, others = (sleeper(**{parts.HOME_MARK: str(home)}) for home in (settings.home_path, tmp_path / "another"))
    deadline = time.monotonic() + 10
    while parts.HOME_MARK not in psutil.Process(ours.pid).environ():
        assert time.monotonic() < deadline
    told = []
    assert parts.down(settings, lambda event, details: told.append((event, details["pid"])))
    assert ours.wait(10) == -signal.SIGTERM and told == [("stopped", ours.pid)]
    assert others.poll() is None
    assert not parts.down(settings, untold)

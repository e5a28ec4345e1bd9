"""The local system: broker, topics, speed, archive with personalize, follower as child processes of one supervisor.

Each part is ready by a condition (an answer, a file it writes once its work runs), never after a pause. A home has one
supervisor: a file lock that dies with its process. What runs is recorded in the home's ``up.json``.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from filelock import FileLock, Timeout

from twofold.errors import BrokerError, HomeError, PartError, TwofoldError
from twofold.kafka.home import ensure_home
from twofold.kafka.topics import create_topics
from twofold.local.broker import Broker, last_line, wait_until
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.settings import Settings
from twofold.stores.json_file import write_json
from twofold.stores.personalization import forget_told
from twofold.stores.ready import read_ready, ready_file

#: In the order in which they start; they stop in the reverse order.
PARTS = ("broker", "speed", "archive", "follower")
_SPARK_JOBS = ("speed", "archive")
#: Streams that run in the Spark application of another part, which saves a JVM: guest -> host.
GUESTS = {"personalize": "archive"}
_STOP_TIMEOUT_S = 30
#: Deaths of one part within this time after which `up` gives up on it.
_RESTARTS, _RESTARTS_WITHIN_S = 5, 300
#: How long the first death of a part is waited out before it is started again, twice as long at each further one: what a part dies
#: of (a full disk, a network) may take a while to pass.
_BACK_OFF_S = 0.5
#: Variable of a part's processes that names their home: they are found where no record names them. (Not TWOFOLD_…, a setting.)
HOME_MARK = "PART_OF_HOME"

Report = Callable[[str, dict[str, Any]], None]


@dataclass
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path
    started_ms: int


def _up_file(settings: Settings) -> Path:
    return settings.home_path / "up.json"


def read_up(settings: Settings) -> dict[str, Any] | None:
    """What ``up`` recorded, or ``None`` when nothing runs on this home."""
    try:
        return dict(json.loads(_up_file(settings).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None


def _alive(pid: int, created: float | None) -> bool:
    """The very process: a pid that another process took over is dead."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and (created is None or abs(process.create_time() - created) < 1)
    except psutil.NoSuchProcess:
        return False


def status_parts(settings: Settings) -> dict[str, dict[str, Any]]:
    """``{part: {"alive", "pid", "log", "started_ms"}}`` of what ``up`` started on this home."""
    up = read_up(settings) or {"parts": {}}
    return {name: {"alive": _alive(part["pid"], part.get("created")), **part} for name, part in up["parts"].items()}


def _signal_group(pid: int, number: signal.Signals) -> None:
    # A part is a whole group: spark-submit starts a JVM, which starts Python.
    try:
        os.killpg(pid, number)
    except ProcessLookupError:
        return


def _group_alive(pid: int) -> bool:
    for process in psutil.process_iter(["pid", "status"]):
        try:
            if os.getpgid(process.pid) == pid and process.info["status"] != psutil.STATUS_ZOMBIE:
                return True
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return False


def _groups_of(home: Path) -> set[int]:
    """The process groups of a home's parts, by the mark that they carry."""
    found = set()
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.environ().get(HOME_MARK) == str(home):
                found.add(os.getpgid(process.pid))
    return found - {os.getpgrp()}


def kill_part(settings: Settings, name: str, number: signal.Signals = signal.SIGKILL) -> int:
    """Send a signal to a running part's whole process group; returns its pid. Raises :class:`PartError` when it does not run."""
    part = status_parts(settings).get(name)
    if part is None or not part["alive"]:
        raise PartError(f"{name} does not run on {settings.home_path}: `twofold status` shows what does")
    _signal_group(part["pid"], number)
    return int(part["pid"])


class Supervisor:
    """Starts, watches, restarts and stops the parts of one home."""

    def __init__(self, settings: Settings, report: Report, without: Sequence[str] = (), arguments: Sequence[str] = ()) -> None:
        optional = (*PARTS[1:], *GUESTS)
        unknown = [name for name in without if name not in optional]
        if unknown:
            raise PartError(f"there is no part {unknown[0]!r} to leave out: {', '.join(optional)}")
        self._settings, self._tell, self._without, self._arguments = settings, report, without, list(arguments)
        self._children: dict[str, _Child] = {}
        self._deaths: dict[str, list[float]] = {}
        self._lock = FileLock(settings.home_path / "up.lock")
        self._state = "starting"
        self._stopping = False

    def _report(self, event: str, details: dict[str, Any]) -> None:
        # Where it cannot be told (the disk of the log is full, nobody reads) there is all the more to do.
        with contextlib.suppress(OSError):
            self._tell(event, details)

    # --- one part ---------------------------------------------------------------------------------------------------------------
    def _start(self, name: str) -> None:
        self._await(name, self._launch(name))

    def _launch(self, name: str) -> Callable[[], bool]:
        """Start a part's process; returns its condition of readiness."""
        settings = self._settings
        log = settings.home_path / "logs" / f"{name}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        ready_file(settings.home_path, name).unlink(missing_ok=True)
        if name == GUESTS["personalize"]:
            forget_told(settings.home_path)
        started_ms = time.time_ns() // 1_000_000
        environment = {**child_environment(), HOME_MARK: str(settings.home_path)}
        if name == "broker":
            broker = Broker(settings)
            process = broker.start(environment)
            ready: Callable[[], bool] = lambda: broker.answers() and self._has_topics()  # noqa: E731
        else:
            home = ["--home", str(settings.home_path), *self._arguments]
            guests = [
                word for guest, host in GUESTS.items() if host == name and guest not in self._without for word in ("--with", guest)
            ]
            command = (
                spark_submit(name, *home, *guests, properties=settings.spark.properties)
                if name in _SPARK_JOBS
                else [sys.executable, "-m", "twofold.cli", "follow", *home]
            )
            with log.open("ab") as out:
                process = subprocess.Popen(
                    command,
                    stdout=out,
                    stderr=out,
                    stdin=subprocess.DEVNULL,
                    cwd=ROOT,
                    env=environment,
                    start_new_session=True,
                )
            ready = lambda: read_ready(settings.home_path, name) is not None  # noqa: E731
        self._children[name] = _Child(name, process, log, started_ms)
        self._record()
        return ready

    def _await(self, name: str, ready: Callable[[], bool]) -> None:
        settings, child = self._settings, self._children[name]
        process, log, started_ms = child.process, child.log, child.started_ms
        alive = lambda: process.poll() is None and not self._stopping  # noqa: E731
        wait_until(ready, alive, settings.local.ready_timeout_s, name, log)
        self._report(
            "ready", {"part": name, "pid": process.pid, "log": str(log), "after_ms": time.time_ns() // 1_000_000 - started_ms}
        )

    def _has_topics(self) -> bool:
        """Whether the topics are there, which are created where they are not; asked again where the connection breaks."""
        try:
            create_topics(self._settings)
            ensure_home(self._settings)
        except BrokerError:
            return False
        return True

    def _record(self) -> None:
        parts = {
            name: {
                "pid": child.process.pid,
                "created": self._created(child.process.pid),
                "log": str(child.log),
                "started_ms": child.started_ms,
            }
            for name, child in self._children.items()
        }
        data = {"supervisor": os.getpid(), "created": self._created(os.getpid()), "state": self._state, "parts": parts}
        write_json(_up_file(self._settings), data)

    @staticmethod
    def _created(pid: int) -> float | None:
        try:
            return float(psutil.Process(pid).create_time())
        except psutil.NoSuchProcess:
            return None

    # --- the whole --------------------------------------------------------------------------------------------------------------
    def start(self) -> None:
        """Start the broker, then the other parts; returns once all are ready.

        Raises :class:`HomeError`, :class:`PartError`; then nothing runs.
        """
        self._settings.home_path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(blocking=False)
        except Timeout as error:
            raise HomeError(
                f"`up` already runs on {self._settings.home_path}: stop it with `twofold down`, or use another home"
            ) from error
        try:
            # Parts of a supervisor that was killed still run: they would be second writers.
            stop_orphans(self._settings, self._report, "leftover")
            self._start(PARTS[0])
            # The rest only need the topics: they start side by side.
            starting = [(name, self._launch(name)) for name in PARTS[1:] if name not in self._without]
            for name, ready in starting:
                self._await(name, ready)
            self._state = "ready"
            self._record()
        except BaseException:
            self.stop()
            raise

    def watch(self, stopped: Callable[[], bool]) -> None:
        """Restart what dies (or raise :class:`PartError`, by the setting ``local.restart``) until ``stopped()``."""
        while not stopped():
            for name, child in list(self._children.items()):
                code = child.process.poll()
                if code is None or stopped():
                    continue
                details = {"part": name, "exit_code": code, "log": str(child.log), "last_line": last_line(child.log)}
                self._report("died", details)
                # Its group may have survivors (a JVM without its Python).
                _stop_group(child.process.pid, _STOP_TIMEOUT_S)
                now = time.monotonic()
                deaths = [at for at in self._deaths.get(name, ()) if now - at < _RESTARTS_WITHIN_S] + [now]
                self._deaths[name] = deaths
                if self._settings.local.restart == "exit" or len(deaths) > _RESTARTS:
                    raise PartError(f"{name} died (exit {code}): {details['last_line']} (log: {child.log})")
                self._pause(_BACK_OFF_S * 2 ** (len(deaths) - 1))
                self._restart(name)
            time.sleep(0.2)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._stopping and time.monotonic() < until:
            time.sleep(0.05)

    def _restart(self, name: str) -> None:
        if self._stopping:
            return
        try:
            self._start(name)
        except (TwofoldError, OSError) as error:
            # Counted as a death at the next look: the part's process is down or is stopped here.
            self._report("not_ready", {"part": name, "error": str(error)})
            child = self._children.get(name)
            if child is not None:
                _stop_group(child.process.pid, _STOP_TIMEOUT_S)

    def ask_stop(self) -> None:
        """Let a wait for readiness end."""
        self._stopping = True

    def stop(self) -> None:
        """Stop every part in reverse order."""
        self._stopping, self._state = True, "stopping"
        for name in reversed(PARTS):
            child = self._children.pop(name, None)
            if child is not None:
                _stop_group(child.process.pid, _STOP_TIMEOUT_S)
                child.process.wait()
                self._report("stopped", {"part": name})
        _up_file(self._settings).unlink(missing_ok=True)
        self._lock.release()


def _stop_group(pid: int, timeout_s: float) -> None:
    """SIGTERM to a process group, SIGKILL to what is left of it after ``timeout_s``."""
    _signal_group(pid, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while _group_alive(pid):
        if time.monotonic() > deadline:
            _signal_group(pid, signal.SIGKILL)
            return
        time.sleep(0.05)


def stop_orphans(settings: Settings, report: Report, event: str) -> None:
    """Stop every part of a home that has no supervisor, and report each as ``event``."""
    for name, part in reversed(status_parts(settings).items()):
        if part["alive"]:
            report(event, {"part": name, "pid": part["pid"]})
            _stop_group(part["pid"], _STOP_TIMEOUT_S)
    for pid in sorted(_groups_of(settings.home_path)):
        # The supervisor was killed, or its disk was full, before it had recorded what it had started.
        report(event, {"part": "unrecorded", "pid": pid})
        _stop_group(pid, _STOP_TIMEOUT_S)


def up(settings: Settings, report: Report, without: Sequence[str] = (), arguments: Sequence[str] = ()) -> None:
    """Run the local system in this process until SIGINT or SIGTERM. ``arguments`` are passed on to every part."""
    supervisor = Supervisor(settings, report, without, arguments)
    stopping = False

    def on_signal(_number: int, _frame: Any) -> None:
        nonlocal stopping
        stopping = True
        supervisor.ask_stop()

    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        try:
            supervisor.start()
        except PartError:
            if stopping:
                return
            raise
        report("up", {"home": str(settings.home_path)})
        try:
            supervisor.watch(lambda: stopping)
        finally:
            supervisor.stop()
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def up_detached(settings: Settings, report: Report, without: Sequence[str] = (), arguments: Sequence[str] = ()) -> int:
    """Start the supervisor as a process of its own and return its pid once every part is ready. Raises :class:`PartError`."""
    settings.home_path.mkdir(parents=True, exist_ok=True)
    running = read_up(settings)
    if running is not None and _alive(running["supervisor"], running.get("created")):
        raise HomeError(f"`up` already runs on {settings.home_path}: stop it with `twofold down`, or use another home")
    log = settings.home_path / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "twofold.cli", "up", "--home", str(settings.home_path), "--json", *arguments]
    for name in without:
        command += ["--without", name]
    start = log.stat().st_size if log.exists() else 0
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, stdout=out, stderr=out, stdin=subprocess.DEVNULL, env=child_environment(), start_new_session=True
        )
    told = 0

    def tell() -> bool:
        nonlocal told
        with log.open("rb") as lines:
            lines.seek(start)
            seen = lines.read().split(b"\n")[:-1]
        for line in seen[told:]:
            if line.startswith(b"{"):
                event = json.loads(line)
                report(str(event.pop("event", "")), event)
        told = len(seen)
        now = read_up(settings)
        return now is not None and now["supervisor"] == process.pid and now["state"] == "ready"

    wait_until(tell, lambda: process.poll() is None, settings.local.ready_timeout_s * len(PARTS), "up", log)
    tell()
    return process.pid


def down(settings: Settings, report: Report) -> bool:
    """Stop what runs on this home; ``False`` when nothing did."""
    running = read_up(settings)
    if running is None and not _groups_of(settings.home_path):
        return False
    if running is not None and _alive(supervisor := running["supervisor"], running.get("created")):
        os.kill(supervisor, signal.SIGTERM)
        deadline = time.monotonic() + _STOP_TIMEOUT_S * len(PARTS)
        while _alive(supervisor, running.get("created")):
            if time.monotonic() > deadline:
                raise PartError(f"the supervisor {supervisor} does not stop: look at {settings.home_path / 'logs' / 'up.log'}")
            time.sleep(0.1)
        report("stopped", {"part": "supervisor", "pid": supervisor})
        return True
    # The supervisor was killed: its parts are stopped here.
    stop_orphans(settings, report, "stopped")
    _up_file(settings).unlink(missing_ok=True)
    return True

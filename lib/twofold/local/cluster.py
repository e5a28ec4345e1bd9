"""A Spark standalone cluster of this machine: a master and workers as child processes, loopback only.

A worker's slots are a number, not cores: speed holds one a partition for as long as it runs, whatever else the worker does.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from twofold.errors import PartError
from twofold.local.broker import free_port, last_line
from twofold.local.project import child_environment, spark_class

_DAEMON_MEMORY = "256m"
_READY_TIMEOUT_S = 120


class Cluster:
    """A master and its workers, with their work and logs in a folder. Stop it, or use it as a context."""

    def __init__(self, folder: Path, slots: int = 12, memory: str = "8g", port: int | None = None) -> None:
        """``slots`` and ``memory`` are one worker's; ``port`` (default: a free one) is the master's."""
        self._folder, self._slots, self._memory = folder, slots, memory
        self._port = free_port(port)
        if port is not None and self._port != port:
            raise PartError(f"port {port} is taken: stop the cluster that has it, or choose another with --port")
        self._ui_port = free_port(but=self._port)
        self._master: subprocess.Popen[bytes] | None = None
        self._workers: dict[int, subprocess.Popen[bytes]] = {}

    @property
    def master(self) -> str:
        """What ``spark.master`` is set to."""
        return f"spark://127.0.0.1:{self._port}"

    def start(self, workers: int = 2) -> None:
        """Start everything; returns once every worker has registered. Raises :class:`PartError`."""
        try:
            self._master = self._launch(
                "master",
                "org.apache.spark.deploy.master.Master",
                *("--host", "127.0.0.1", "--port", str(self._port), "--webui-port", str(self._ui_port)),
            )
            self._await(0)
            for number in range(workers):
                self._start_worker(number)
            self._await(workers)
        except BaseException:
            self.stop()
            raise

    def start_worker(self, number: int) -> None:
        """Start one worker, anew after it was killed; returns once it has registered."""
        self._start_worker(number)
        # The master goes on counting a worker that died without a word, for a while.
        self._await(len([w for w in self._workers.values() if w.poll() is None]))

    def _start_worker(self, number: int) -> None:
        self._workers[number] = self._launch(
            f"worker-{number}",
            "org.apache.spark.deploy.worker.Worker",
            *("--host", "127.0.0.1", "--webui-port", str(free_port()), "--work-dir", str(self._folder / f"worker-{number}")),
            *("--cores", str(self._slots), "--memory", self._memory, self.master),
        )

    def kill_worker(self, number: int) -> None:
        """kill -9 of a worker and of every executor that it runs."""
        process = self._workers.pop(number)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def alive_workers(self) -> int:
        """Workers that the master counts now; -1 when it does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self._ui_port}/json/", timeout=2) as answer:
                return int(json.load(answer)["aliveworkers"])
        except (URLError, OSError, ValueError):
            return -1

    def dead(self) -> list[str]:
        """Names of the parts that have ended by themselves."""
        parts = {"master": self._master, **{f"worker-{number}": process for number, process in self._workers.items()}}
        return [name for name, process in parts.items() if process is not None and process.poll() is not None]

    def stop(self) -> None:
        for process in (*self._workers.values(), *([self._master] if self._master is not None else [])):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)
        for process in (*self._workers.values(), *([self._master] if self._master is not None else [])):
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        self._workers, self._master = {}, None

    def __enter__(self) -> Cluster:
        self.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.stop()

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _launch(self, name: str, main: str, *arguments: str) -> subprocess.Popen[bytes]:
        self._folder.mkdir(parents=True, exist_ok=True)
        environment = {**child_environment(), "SPARK_DAEMON_MEMORY": _DAEMON_MEMORY, "SPARK_MASTER_HOST": "127.0.0.1"}
        with self._log(name).open("ab") as log:
            return subprocess.Popen(
                [spark_class(), main, *arguments],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )

    def _await(self, workers: int) -> None:
        deadline = time.monotonic() + _READY_TIMEOUT_S
        while self.alive_workers() < workers:
            dead = self.dead()
            if dead:
                raise PartError(f"{dead[0]} died while starting: {last_line(self._log(dead[0]))} (log: {self._log(dead[0])})")
            if time.monotonic() > deadline:
                raise PartError(f"the cluster was not ready after {_READY_TIMEOUT_S} s (logs: {self._folder})")
            time.sleep(0.1)

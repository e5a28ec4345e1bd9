"""One home under chaos: the system as `up` starts it, a proxy before its broker, its disk, and the producer."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event, Thread

import psutil
import yaml

from tests.chaos.disk import Disk
from tests.chaos.feed import Feed
from tests.chaos.inflict import Tell
from tests.chaos.proxy import Address, TcpProxy
from tests.e2e.conftest import System
from twofold.local.broker import free_port
from twofold.local.parts import read_up

_DISK_MB = 400


class ChaosSystem(System):
    """Everything a run needs, in one folder. Clients reach the broker through ``proxy`` alone: that is the address it tells."""

    def __init__(self, folder: Path, lines: list[bytes], rate: float) -> None:
        self.folder = folder
        self.disk = Disk(folder / "home", _DISK_MB)
        port = free_port()
        settings = {
            # On a machine that does much else a JVM may take minutes, which is no fault of the system's.
            "local": {"advertised": f"127.0.0.1:{port}", "ready_timeout_s": 900},
            "audit": {"sample_share": 1.0},
            # What a gate holds a night to is no matter of faults, and is a third of a small night.
            "gate": {"mode": "off"},
        }
        config = folder / "settings.yaml"
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        super().__init__(folder / "home", config)
        self.proxy = TcpProxy(lambda: broker_port(self.home), port)
        self.feed = Feed(folder, self.home, config, lines, rate)

    def raw_log(self) -> list[bytes]:
        """The bytes of every entry of `events`."""
        return [record.value for record in self._read(self.settings.kafka.events_topic)]

    def supervisor(self) -> psutil.Process | None:
        """The process of `up`, or ``None`` when it does not run."""
        up = read_up(self.settings)
        with contextlib.suppress(psutil.NoSuchProcess):
            if up is not None:
                process = psutil.Process(up["supervisor"])
                if abs(process.create_time() - up["created"]) < 1 and process.status() != psutil.STATUS_ZOMBIE:
                    return process
        return None

    def up_again(self) -> str:
        """Start `up` where it does not run; what came of it, or "" where there was nothing to do."""
        if self.supervisor() is not None:
            return ""
        command = [sys.executable, "-m", "twofold.cli", "up", "--detach", "--home", str(self.home), "--config", str(self.config)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=self.folder)
        return "started" if done.returncode == 0 else f"exit {done.returncode}: {done.stderr.strip()[-300:]}"

    def keepers(self, stop: Event, tell: Tell) -> list[Thread]:
        """Threads that, until ``stop``, start `up` and the producer again wherever they are down, as an operator would."""

        def keep_feed() -> None:
            while not stop.wait(0.5):
                if self.feed.keep_up():
                    tell("producer", f"from line {self.feed.acknowledged + 1}")

        def keep_up() -> None:
            while not stop.wait(0.5):
                if came := self.up_again():
                    tell("up", came)

        # Not one thread: `up` takes its time, and the producer is on another machine.
        return [Thread(target=work, name=work.__name__, daemon=True) for work in (keep_feed, keep_up)]

    def stop(self, keepers: Sequence[Thread]) -> None:
        """Stop everything, whatever state it is in; ``keepers`` are the threads of :meth:`keepers`, which were told to end."""
        self.disk.empty()
        while True:
            ended = not any(keeper.is_alive() for keeper in keepers)
            self.feed.kill()
            # An `up` that the keeper is just starting goes down with its parts.
            self.twofold("down", check=False)
            if ended:
                return
            for keeper in keepers:
                if keeper.is_alive():
                    keeper.join(0.5)


def broker_port(home: Path) -> Address:
    """Where a home's broker itself listens, whatever address it tells its clients. Raises ``OSError`` before its first start."""
    return "127.0.0.1", json.loads((home / "broker.json").read_text(encoding="utf-8"))["port"]


def group(leader: int) -> list[psutil.Process]:
    """The processes of a part: its leader's group."""
    out = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getpgid(process.pid) == leader:
                out.append(process)
    return out

"""The real broker on this machine: KRaft, one process, loopback only, its log in the home."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from pathlib import Path

from kafka import KafkaAdminClient
from kafka.errors import KafkaError

from twofold.errors import PartError
from twofold.local.project import ROOT
from twofold.settings import Settings
from twofold.stores.json_file import write_json

_HEAP = "512m"
_LOG4J = """<Configuration status="WARN">
<Appenders><Console name="c"><PatternLayout pattern="%d %p %c{1} %m%n"/></Console></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="c"/></Root></Loggers></Configuration>
"""


#: Below the range from which systems give out client ports: a client that keeps connecting to a port of that range while its
#: server is down can be given the very same port as its own, connect to itself, and so keep the server from coming back.
_PORTS = range(15_000, 32_000)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def free_port(wanted: int | None = None, but: int | None = None) -> int:
    """A free loopback port; ``wanted`` when it is still free; never ``but``, which is about to be taken."""
    if wanted is not None and wanted != but and _is_free(wanted):
        return wanted
    for port in random.SystemRandom().sample(_PORTS, 200):
        if port != but and _is_free(port):
            return port
    raise PartError("no free port on the loopback interface")


def _properties(folder: Path, port: int, controller_port: int, advertised: str) -> str:
    settings = {
        "process.roles": "broker,controller",
        "node.id": 1,
        "controller.quorum.bootstrap.servers": f"127.0.0.1:{controller_port}",
        "listeners": f"PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}",
        "advertised.listeners": f"PLAINTEXT://{advertised}",
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "log.dirs": folder / "data",
        "auto.create.topics.enable": "false",
        "offsets.topic.replication.factor": 1,
        "transaction.state.log.replication.factor": 1,
        "transaction.state.log.min.isr": 1,
        "share.coordinator.state.topic.replication.factor": 1,
        "share.coordinator.state.topic.min.isr": 1,
        "group.initial.rebalance.delay.ms": 0,
        "message.max.bytes": 8 * 1024 * 1024,
        "replica.fetch.max.bytes": 8 * 1024 * 1024,
        "log.segment.bytes": 256 * 1024 * 1024,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


def cluster_id() -> str:
    """A new id of 22 characters, as Kafka makes them: never with a leading dash, which would read as an option."""
    while (text := urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")).startswith("-"):
        continue
    return text


def _java() -> str:
    home = os.environ.get("JAVA_HOME")
    java = shutil.which(str(Path(home) / "bin" / "java") if home else "java")
    if java is None:
        where = f" in JAVA_HOME {home}" if home else ""
        raise PartError(f"java is missing{where}: install Java 17 (Debian: openjdk-17-jre-headless)")
    return java


class Broker:
    """The broker of one home. ``start`` returns its process; the home's ``broker.json`` records its address."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.folder = settings.home_path / "kafka"
        self.log_file = settings.home_path / "logs" / "broker.log"
        self.record = settings.home_path / "broker.json"

    def _class_path(self) -> str:
        jars = ROOT / self._settings.spark.broker_jars
        if not any(jars.glob("kafka_*.jar")):
            raise PartError(f"the broker's jars are not in {self._settings.spark.broker_jars}: run `make setup`")
        return f"{jars}/*"

    def start(self, environment: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """Start the process (format its storage the first time), with ``environment`` (default: this process's).

        Raises :class:`PartError`; ``OSError`` where the home cannot be written. Then nothing runs.
        """
        class_path = self._class_path()
        self.folder.mkdir(parents=True, exist_ok=True)
        self.log_file.parent.mkdir(parents=True, exist_ok=True)
        known = json.loads(self.record.read_text(encoding="utf-8")) if self.record.exists() else {}
        port = free_port(known.get("port"))
        controller = free_port(known.get("controller_port"), but=port)
        properties, log4j = self.folder / "server.properties", self.folder / "log4j2.xml"
        reached = self._settings.local.advertised or f"127.0.0.1:{port}"
        properties.write_text(_properties(self.folder, port, controller, reached), encoding="utf-8")
        log4j.write_text(_LOG4J, encoding="utf-8")
        java = [_java(), f"-Xmx{_HEAP}", f"-Dlog4j2.configurationFile={log4j}", "-cp", class_path]
        if not (self.folder / "data" / "meta.properties").exists():
            command = [*java, "kafka.tools.StorageTool", "format", "--standalone", "-t", cluster_id(), "-c", str(properties)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise PartError(
                    f"the broker's storage cannot be formatted: {(done.stderr or done.stdout).strip().splitlines()[-1]}"
                )
        with self.log_file.open("ab") as log:
            process = subprocess.Popen(
                [*java, "kafka.Kafka", str(properties)],
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                env=environment,
                start_new_session=True,
            )
        address = {"bootstrap_servers": reached, "port": port, "controller_port": controller}
        try:
            write_json(self.record, {**address, "pid": process.pid})
        except BaseException:
            # On a full disk, say: a broker that nobody knows of would keep every later one from its log.
            process.kill()
            process.wait()
            raise
        return process

    def answers(self) -> bool:
        """True when an admin call succeeds."""
        servers = json.loads(self.record.read_text(encoding="utf-8"))["bootstrap_servers"]
        try:
            client = KafkaAdminClient(bootstrap_servers=servers, bootstrap_timeout_ms=1_500, request_timeout_ms=3_000)
        except (KafkaError, OSError):
            return False
        try:
            client.list_topics()
        except (KafkaError, OSError):
            return False
        finally:
            client.close()
        return True

    def wait_ready(self, process: subprocess.Popen[bytes], timeout_s: float) -> None:
        """Wait until the broker answers. Raises :class:`PartError` with the log's last line when it dies or takes too long."""
        wait_until(self.answers, lambda: process.poll() is None, timeout_s, "broker", self.log_file)

    @staticmethod
    def stop(process: subprocess.Popen[bytes], timeout_s: float = 20) -> None:
        """Stop the process: SIGTERM, then SIGKILL."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def last_line(log_file: Path) -> str:
    """The last non-empty line of a log, for an error message."""
    try:
        lines = [line for line in log_file.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return ""
    return lines[-1][:300] if lines else ""


def wait_until(ready: Callable[[], bool], alive: Callable[[], bool], timeout_s: float, part: str, log_file: Path) -> None:
    """Poll a condition while a process lives. Raises :class:`PartError` naming the part and its log."""
    deadline = time.monotonic() + timeout_s
    while not ready():
        if not alive():
            raise PartError(f"{part} died while starting: {last_line(log_file)} (log: {log_file})")
        if time.monotonic() > deadline:
            raise PartError(f"{part} was not ready after {timeout_s:g} s: {last_line(log_file)} (log: {log_file})")
        time.sleep(0.1)

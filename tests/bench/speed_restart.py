"""Speed killed in the middle of a real-time batch: what its next start repeats, from the tail of `facts` and from a checkpoint."""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.bench.backlog import _written
from twofold.kafka.address import broker_address
from twofold.kafka.facts_tail import facts_tail
from twofold.kafka.produce import send
from twofold.kafka.topics import events_topic, log_offsets
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.parts import Supervisor
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.settings import Settings, load_settings


class _Speed:
    """The job as a process that is killed with its whole group."""

    def __init__(self, settings: Settings, start_from: str) -> None:
        self.process = subprocess.Popen(
            spark_submit("speed", "--home", str(settings.home_path)),
            cwd=ROOT,
            env={**child_environment(), "TWOFOLD_SPEED__START_FROM": start_from},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def measure(settings: Settings, entries: int, start_from: str) -> dict[str, Any]:
    """Entries that the second start wrote again, and seconds until it had passed the log end."""
    from kafka import KafkaConsumer, TopicPartition

    supervisor = Supervisor(settings, lambda _event, _details: None, without=("speed", "archive", "follower"))
    supervisor.start()
    try:
        lines = [encode_event(event) for event in CONVERTERS["shop"](None, seed=5, persons=5_000, events=entries + 100)]
        consumer = KafkaConsumer(bootstrap_servers=broker_address(settings))
        places = [TopicPartition(settings.kafka.facts_topic, p) for p in range(settings.kafka.partitions)]
        topic = events_topic(settings)

        def passed() -> bool:
            return facts_tail(settings, topic, 50).covers(log_offsets(settings, topic)[1])

        send(settings, lines[:entries])
        speed = _Speed(settings, start_from)
        while not passed():
            time.sleep(0.5)
        speed.kill()
        send(settings, lines[entries:])
        began = time.perf_counter()
        speed = _Speed(settings, start_from)
        while not passed():
            time.sleep(0.1)
        took_s = time.perf_counter() - began
        # What it repeats comes before what is new, except across partitions: let it finish.
        repeated, before = -1, -2
        while repeated != before:
            before = repeated
            time.sleep(2)
            repeated = _written(consumer, places) - entries - 100
        speed.kill()
        consumer.close()
    finally:
        supervisor.stop()
    return {"start_from": start_from, "entries": entries, "repeated": repeated, "passed_log_end_s": round(took_s, 1)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=50_000)
    options = parser.parse_args()
    for source in ("facts", "checkpoint"):
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(measure(load_settings(home=str(Path(folder) / "home")), options.entries, source)), flush=True)

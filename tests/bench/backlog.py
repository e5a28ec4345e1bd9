"""Speed from a backlog, nothing else running but the broker: entries a second with full admission, in real-time mode.

The rate is taken between 20 % and 100 % of the backlog, so that the JVM's warm-up shows apart from it (``first_s``).
"""

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

from kafka import KafkaConsumer, TopicPartition

from twofold.kafka.address import broker_address
from twofold.kafka.produce import send
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.parts import Supervisor
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.settings import Settings, load_settings


def _written(consumer: KafkaConsumer, places: list[TopicPartition]) -> int:
    return sum(consumer.end_offsets(places).values())


def measure(settings: Settings, entries: int) -> dict[str, Any]:
    """Fill `events`, start speed, and time `facts`."""
    supervisor = Supervisor(settings, lambda _event, _details: None, without=("speed", "archive", "follower"))
    supervisor.start()
    try:
        send(settings, (encode_event(event) for event in CONVERTERS["shop"](None, seed=3, persons=20_000, events=entries)))
        consumer = KafkaConsumer(bootstrap_servers=broker_address(settings))
        places = [TopicPartition(settings.kafka.facts_topic, p) for p in range(settings.kafka.partitions)]
        process = subprocess.Popen(
            spark_submit("speed", "--home", str(settings.home_path)),
            cwd=ROOT,
            env=child_environment(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        began = time.perf_counter()
        marks: list[tuple[float, int]] = []
        try:
            while not marks or marks[-1][1] < entries:
                assert process.poll() is None, "speed ended"
                marks.append((time.perf_counter() - began, _written(consumer, places)))
                time.sleep(0.1)
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            consumer.close()
    finally:
        supervisor.stop()
    first = next(at for at, count in marks if count)
    from_at, from_count = next((at, count) for at, count in marks if count >= entries / 5)
    rate = (marks[-1][1] - from_count) / (marks[-1][0] - from_at)
    return {"entries": entries, "first_s": round(first, 1), "all_s": round(marks[-1][0], 1), "entries_per_s": round(rate)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--entries", type=int, default=400_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(load_settings(home=str(Path(folder) / "home")), options.entries)))

"""Acknowledged event -> row of `personalization` readable by delta-rs, on a running `up`, under a constant load.

Every ``--every``-th event is watched: from its acknowledgement until a row of its person whose O has passed it has been read. Also
what the parts cost, in cores: with `up --without personalize` the difference is the price of the table.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import threading
import time
from collections import Counter
from typing import Any

import numpy as np
import psutil
import pyarrow.dataset as ds

from tests.bench.latency import _line
from twofold.kafka.produce import make_producer
from twofold.local.parts import status_parts
from twofold.settings import Settings, load_settings
from twofold.stores.places import open_table, table_exists

#: How long the producer gathers events before it sends them; nothing to seconds.
_LINGER_MS = 50


class Watch:
    """Watched events between their acknowledgement and their row."""

    def __init__(self, location: str) -> None:
        self._location = location
        self._lock = threading.Lock()
        self._waiting: dict[str, list[tuple[float, int, int]]] = {}
        self._batch = -1
        self.took_ms: list[float] = []
        self.rows: Counter[int] = Counter()
        self.measuring = self.done = False

    def acked(self, person: str, metadata: Any) -> None:
        with self._lock:
            self._waiting.setdefault(person, []).append((time.perf_counter(), metadata.partition, metadata.offset))

    def run(self, until_s: float) -> None:
        deadline = None
        while not self.done or self._waiting:
            if self.done:
                deadline = deadline or time.perf_counter() + until_s
                if time.perf_counter() > deadline:
                    return
            # Looking costs the cores that are measured.
            time.sleep(1)
            if table_exists(self._location):
                self._look()

    def _look(self) -> None:
        newer = ds.field("batch") > self._batch
        found = open_table(self._location).to_pyarrow_dataset().to_table(columns=["person", "batch", "o"], filter=newer)
        now = time.perf_counter()
        if not len(found):
            return
        batches = found["batch"].to_pylist()
        self._batch = max(batches)
        self.rows.update(batches)
        ends: dict[str, dict[int, int]] = {}
        with self._lock:
            for person, text in zip(found["person"].to_pylist(), found["o"].to_pylist(), strict=True):
                if person not in self._waiting:
                    continue
                if text not in ends:
                    ends[text] = {int(p): end for vector in json.loads(text).values() for p, end in vector.items()}
                left = [seen for seen in self._waiting[person] if ends[text][seen[1]] <= seen[2]]
                if self.measuring:
                    self.took_ms += [(now - seen[0]) * 1000 for seen in self._waiting[person] if seen not in left]
                if left:
                    self._waiting[person] = left
                else:
                    del self._waiting[person]


def cpu_s(settings: Settings) -> dict[str, float]:
    """Seconds of processor time that each part's group has used."""
    groups = {part["pid"]: name for name, part in status_parts(settings).items()}
    used: Counter[str] = Counter()
    for process in psutil.process_iter():
        try:
            name = groups.get(os.getpgid(process.pid))
            if name is not None:
                times = process.cpu_times()
                used[name] += times.user + times.system
        except (psutil.NoSuchProcess, ProcessLookupError):
            continue
    return dict(used)


def measure(settings: Settings, rate: int, seconds: int, every: int, warmup_s: int) -> dict[str, Any]:
    """Send ``rate`` events a second; watch every ``every``-th, and count those after the warm-up, for ``seconds``."""
    r = random.Random(rate)
    # A request for each event would cost the parts that are measured more than their work does.
    producer = make_producer(settings, linger_ms=_LINGER_MS)
    watch = Watch(settings.table("personalization"))
    watcher = threading.Thread(target=watch.run, args=(120.0,))
    watcher.start()
    run, number, began, before = time.time_ns(), 0, time.perf_counter(), cpu_s(settings)
    while (elapsed := time.perf_counter() - began) < warmup_s + seconds:
        if elapsed >= warmup_s and not watch.measuring:
            watch.measuring, before, measured_from = True, cpu_s(settings), elapsed
        target = int(elapsed * rate)
        while number < target:
            person, line = _line(r, number, run)
            future = producer.send(settings.kafka.events_topic, value=line, key=person.encode())
            if number % every == 0:
                future.add_callback(lambda metadata, person=person: watch.acked(person, metadata))
            number += 1
        time.sleep(0.002)
    after = cpu_s(settings)
    producer.flush()
    producer.close()
    watch.done = True
    watcher.join()
    if not watch.took_ms:
        return {"rate_per_s": rate, "cores": _cores(before, after, elapsed - measured_from)}
    p50, p99, largest = np.percentile(np.array(watch.took_ms), (50, 99, 100))
    return {
        "rate_per_s": rate,
        "sent_per_s": round(number / elapsed),
        "measured_s": seconds,
        "watched": len(watch.took_ms),
        "never_seen": sum(map(len, watch._waiting.values())),
        "p50_s": round(float(p50) / 1000, 1),
        "p99_s": round(float(p99) / 1000, 1),
        "max_s": round(float(largest) / 1000, 1),
        "batches": len(watch.rows),
        "rows": sum(watch.rows.values()),
        "cores": _cores(before, after, elapsed - measured_from),
    }


def _cores(before: dict[str, float], after: dict[str, float], seconds: float) -> dict[str, float]:
    return {name: round((after[name] - before.get(name, 0.0)) / seconds, 2) for name in after}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", required=True)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=300)
    parser.add_argument("--every", type=int, default=5)
    parser.add_argument("--warmup", type=int, default=240, help="the JVMs compile what they run for minutes")
    options = parser.parse_args()
    print(json.dumps(measure(load_settings(home=options.home), options.rate, options.seconds, options.every, options.warmup)))

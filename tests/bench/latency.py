"""Acknowledged event -> readable merged record, on a running `up`, under a constant load. Prints percentiles in milliseconds.

The load generator and the reader run in this process, on the same cores as everything of `up`. Every ``--every``-th event is
watched: from its acknowledgement to the end of the first read of its person's record whose ``high`` has passed it.
"""

from __future__ import annotations

import argparse
import json
import random
import threading
import time
from collections import Counter
from typing import Any

import numpy as np

from twofold.kafka.produce import make_producer
from twofold.reader import Reader
from twofold.settings import Settings, load_settings

PERSONS = 50_000


def _line(r: random.Random, number: int, run: int) -> tuple[str, bytes]:
    person = f"u{r.randrange(PERSONS)}"
    now_ms = time.time_ns() // 1_000_000
    kind = r.randrange(10)
    head = f'{{"event_id":"b{run}-{number}","user_id":"{person}","occurred_at":{now_ms},"source_kind":"web",'
    context = '"context":{"device":{"type":"mobile"}},'
    if kind < 4:
        body = f'{context}"type":"page","name":"Home","properties":{{"path":"/p/{r.randrange(1000)}"}}}}'
    elif kind < 8:
        body = (
            f'{context}"type":"track","name":"Product Viewed",'
            f'"properties":{{"product_id":"p{r.randrange(5000)}","category":"c{r.randrange(40)}"}}}}'
        )
    elif kind < 9:
        body = f'"type":"email","name":"Email Opened","properties":{{"campaign_id":"c{r.randrange(9)}","message_id":"m{number}"}}}}'
    else:
        body = (
            f'"type":"track","name":"Order Completed","properties":{{"order_id":"o{number}","total":"{r.randrange(9000)}.50",'
            f'"products":[{{"product_id":"p{r.randrange(5000)}","price":"9.95","quantity":2}}]}}}}'
        )
    return f"user:{person}", (head + body).encode()


class Watch:
    """Watched events between their acknowledgement and their record."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._acked: list[tuple[float, str, int, int]] = []
        self._lock = threading.Lock()
        self.took_ms: list[float] = []
        self.states: Counter[str] = Counter()
        self.measuring = False
        self.done = False

    def acked(self, person: str, metadata: Any) -> None:
        at = time.perf_counter()
        with self._lock:
            self._acked.append((at, person, metadata.partition, metadata.offset))

    def run(self) -> None:
        with Reader(self._settings) as reader:
            while not self.done or self._acked:
                with self._lock:
                    waiting, self._acked = self._acked, []
                if not waiting:
                    time.sleep(0.001)
                    continue
                left = []
                high = {key.partition: end for key, end in reader.vectors().high.items()}
                for at, person, partition, offset in waiting:
                    if high.get(partition, 0) > offset:
                        record = reader.record(person)
                        if self.measuring:
                            self.took_ms.append((time.perf_counter() - at) * 1000)
                            self.states[record.freshness.state] += 1
                    else:
                        left.append((at, person, partition, offset))
                with self._lock:
                    self._acked.extend(left)
                if left:
                    time.sleep(0.001)


def measure(settings: Settings, rate: int, seconds: int, every: int, warmup_s: int) -> dict[str, Any]:
    """Send ``rate`` events a second; watch every ``every``-th, and count those after the warm-up, for ``seconds``."""
    r = random.Random(rate)
    producer = make_producer(settings, linger_ms=2)
    watch = Watch(settings)
    watcher = threading.Thread(target=watch.run)
    watcher.start()
    run, number, began = time.time_ns(), 0, time.perf_counter()
    while (elapsed := time.perf_counter() - began) < warmup_s + seconds:
        watch.measuring = elapsed >= warmup_s
        target = int(elapsed * rate)
        while number < target:
            person, line = _line(r, number, run)
            future = producer.send(settings.kafka.events_topic, value=line, key=person.encode())
            if number % every == 0:
                future.add_callback(lambda metadata, person=person: watch.acked(person, metadata))
            number += 1
        time.sleep(0.002)
    producer.flush()
    producer.close()
    watch.done = True
    watcher.join()
    p50, p99, p999, largest = np.percentile(np.array(watch.took_ms), (50, 99, 99.9, 100))
    return {
        "rate_per_s": rate,
        "sent": number,
        "sent_per_s": round(number / elapsed),
        "warmup_s": warmup_s,
        "measured_s": seconds,
        "watched": len(watch.took_ms),
        "states": dict(watch.states),
        "p50_ms": round(float(p50), 1),
        "p99_ms": round(float(p99), 1),
        "p999_ms": round(float(p999), 1),
        "max_ms": round(float(largest), 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--home", required=True)
    parser.add_argument("--rate", type=int, default=500)
    parser.add_argument("--seconds", type=int, default=720)
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--warmup", type=int, default=60)
    options = parser.parse_args()
    print(json.dumps(measure(load_settings(home=options.home), options.rate, options.seconds, options.every, options.warmup)))

"""An explanation of one field, record included, from the real LMDB stores: every feature in turn. Prints percentiles in ms.

``cpu``: of the process's own time, which others on the machine do not lengthen so much.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import numpy as np

from tests.bench.people import stored
from twofold.catalogue import CATALOGUE
from twofold.explain import explain
from twofold.merge import merge
from twofold.record import make_record

T = 1_780_000_000_000


def measure(recent: int, hot: int, reads: int) -> dict[str, Any]:
    """p50, p99 and max over ``reads`` explanations of a person with so many recent and hot entries, features in turn."""
    with stored({"user:1": (recent, hot)}, T) as (row, snapshot, reader):
        names = list(CATALOGUE.features)
        took: list[tuple[float, float]] = []
        told = 0
        for number in range(reads + len(names)):
            t = T + number
            began, own = time.perf_counter(), time.process_time()
            view = reader.view("user:1", row.cut)
            merged = merge(CATALOGUE, row, snapshot.person("user:1"), view, t)
            record = make_record(CATALOGUE, "user:1", row, merged, view, t, T, 5_000, 60_000, view.high)
            found = explain(CATALOGUE, record, names[number % len(names)], row, merged, view)
            took.append((time.perf_counter() - began, time.process_time() - own))
            told = max(told, *(len(part.contributions) for part in found.parts))
    passed, cpu = np.round(np.percentile(np.array(took[len(names) :]) * 1e3, (50, 99, 100), axis=0), 2).T.tolist()
    figures = {"p50_ms": passed[0], "p99_ms": passed[1], "max_ms": passed[2], "cpu_p50_ms": cpu[0], "cpu_p99_ms": cpu[1]}
    return {"recent": recent, "hot": hot, "reads": reads, "most_events": told, **figures}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--reads", type=int, default=3_000)
    options = parser.parse_args()
    print(json.dumps(measure(250, 50, options.reads)))
    print(json.dumps(measure(2_500, 50, options.reads // 3)))
    print(json.dumps(measure(100_000, 50, max(90, options.reads // 30))))

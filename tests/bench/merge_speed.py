"""Merge of one person, fetch and decode included: the real LMDB stores, every feature. Prints percentiles in microseconds."""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from tests.bench.people import stored
from twofold.catalogue import CATALOGUE
from twofold.merge import merge
from twofold.record import make_record

T = 1_780_000_000_000


def measure(recent: int, hot: int, reads: int, others: int = 20_000) -> dict[str, float]:
    """p50, p99 and max of ``reads`` merges of a person with so many recent and hot entries, among ``others`` persons."""
    with stored({"user:1": (recent, hot)}, T, others) as (row, snapshot, reader):
        took = []
        for number in range(reads + 20):
            t = T + number
            began = time.perf_counter()
            view = reader.view("user:1", row.cut)
            merged = merge(CATALOGUE, row, snapshot.person("user:1"), view, t)
            record = make_record(CATALOGUE, "user:1", row, merged, view, t, T, 5_000, 60_000, view.high)
            took.append(time.perf_counter() - began)
        assert record.freshness.state == "fresh"
    p50, p99, largest = np.percentile(np.array(took[20:]) * 1e6, (50, 99, 100))
    return {"recent": recent, "hot": hot, "reads": reads, "p50_us": round(p50), "p99_us": round(p99), "max_us": round(largest)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--reads", type=int, default=3_000)
    options = parser.parse_args()
    print(json.dumps(measure(250, 50, options.reads)))
    print(json.dumps(measure(100_000, 50, max(100, options.reads // 10))))

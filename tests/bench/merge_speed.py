"""Merge of one person, fetch and decode included: the real LMDB stores, every feature. Prints percentiles in microseconds."""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import numpy as np

from tests.bench.people import entries
from twofold.catalogue import CATALOGUE, VERSION
from twofold.columns import FactColumns, id_hash
from twofold.events import encode_entry
from twofold.merge import merge
from twofold.record import make_record
from twofold.stores.lmdb_hot import LmdbHot, LmdbHotReader
from twofold.stores.snapshot_file import SnapshotFile, snapshot_path, write
from twofold.timeline import DAY_MS, Offsets, PartitionKey
from twofold.views import ManifestRow, PersonSnapshot

T = 1_780_000_000_000


def measure(recent: int, hot: int, reads: int, others: int = 20_000) -> dict[str, float]:
    """p50, p99 and max of ``reads`` merges of a person with so many recent and hot entries, among ``others`` persons."""
    keys = [PartitionKey("t", p) for p in range(4)]
    cut = Offsets(dict.fromkeys(keys, recent))
    high = recent + hot + 1
    row = ManifestRow(1, "bench", cut, VERSION, T, T - 35 * DAY_MS, T, ("t",))
    with tempfile.TemporaryDirectory() as folder:
        older_ids = np.sort(np.array([id_hash(f"old-{n}") for n in range(500)], dtype=np.int64))
        columns = FactColumns.of_entries((entry, 0) for entry in entries(1, 0, recent, T, "t"))
        person = PersonSnapshot({"orders_lifetime": 3, "revenue_lifetime": {"USD": 100}}, older_ids, columns).pack()
        small = PersonSnapshot({}, older_ids[:2], FactColumns.of_entries(())).pack()
        people = sorted([("user:1", person), *((f"user:x{n:06d}", small) for n in range(others))])
        path = snapshot_path(Path(folder), "bench")
        write(path, "bench", people)
        store = Path(folder) / "hot"
        with LmdbHot(store, 1 << 30, Offsets(dict.fromkeys(keys, 0))) as writer:
            for key in keys:
                writer.raise_high(writer.partition(key), high, VERSION, T)
            writer.beat(T, Offsets(dict.fromkeys(keys, high)))
            writer.commit([(entry, encode_entry(entry)) for entry in entries(2, recent, hot, T, "t")])
        snapshot, reader = SnapshotFile(path, row), LmdbHotReader(store, 1 << 30)
        took = []
        for number in range(reads + 20):
            t = T + number
            began = time.perf_counter()
            view = reader.view("user:1", row.cut)
            merged = merge(CATALOGUE, row, snapshot.person("user:1"), view, t)
            record = make_record(CATALOGUE, "user:1", row, merged, view, t, T, 5_000, 60_000, view.high)
            took.append(time.perf_counter() - began)
        assert record.freshness.state == "fresh"
        snapshot.close()
        reader.close()
    p50, p99, largest = np.percentile(np.array(took[20:]) * 1e6, (50, 99, 100))
    return {"recent": recent, "hot": hot, "reads": reads, "p50_us": round(p50), "p99_us": round(p99), "max_us": round(largest)}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--reads", type=int, default=3_000)
    options = parser.parse_args()
    print(json.dumps(measure(250, 50, options.reads)))
    print(json.dumps(measure(100_000, 50, max(100, options.reads // 10))))

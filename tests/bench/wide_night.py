"""Two nights over generated events, the second audited: seconds by step, each step's share, and point reads of `wide_person`.

The second night adds one event in a hundred. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from itertools import pairwise
from statistics import median

import psutil
import pyarrow.dataset as ds
from deltalake import DeltaTable

from tests.bench.generated_archive import generated_home, make_archive
from twofold.settings import Settings
from twofold.spark.batch import rebuild
from twofold.spark.session import cores
from twofold.spark.state_rows import tasks_of
from twofold.views import ManifestRow

EVENTS_A_PERSON = 20


def _night(spark, settings: Settings) -> tuple[dict[str, tuple[float, float]], ManifestRow]:
    """(wall and processor seconds of each step, the published row); the second survive other work on the same cores."""
    processes = [psutil.Process(), psutil.Process(int(spark._jvm.java.lang.ProcessHandle.current().pid()))]
    steps: list[tuple[str, float, float]] = []

    def began(step: str) -> None:
        cpu_s = sum(times.user + times.system for times in (process.cpu_times() for process in processes))
        steps.append((step, time.perf_counter(), cpu_s))

    row = rebuild(spark, settings, report=began)
    return {a[0]: (round(b[1] - a[1], 1), round(b[2] - a[2], 1)) for a, b in pairwise(steps)}, row


def _point_reads(location: str, reads: int) -> dict[str, float]:
    """Milliseconds of reading one person's row, the table open."""
    table = DeltaTable(location)
    dataset = table.to_pyarrow_dataset()
    people = dataset.to_table(columns=["person"])["person"].to_pylist()
    took = []
    for person in random.Random(1).sample(people, reads):
        start = time.perf_counter()
        (found,) = dataset.to_table(filter=ds.field("person") == person).to_pylist()
        took.append((time.perf_counter() - start) * 1_000)
        assert found["person"] == person
    return {
        "p50_ms": round(median(took), 1),
        "p99_ms": round(sorted(took)[int(len(took) * 0.99)], 1),
        "files": len(table.file_uris()),
    }


def measure(events: int, reads: int) -> dict[str, object]:
    with generated_home("4g") as (settings, spark):
        archive, persons, slice_from = settings.table("archive"), max(1, events // EVENTS_A_PERSON), events * 99 // 100
        make_archive(spark, archive, events, persons, tasks_of(events), (0, slice_from))
        first, _row = _night(spark, settings)
        make_archive(spark, archive, events, persons, tasks_of(events - slice_from), (slice_from, events))
        second, row = _night(spark, settings)
        found = _point_reads(settings.table("wide_person"), reads)
    cpu_s = sum(cpu for _wall, cpu in second.values())
    return {
        "events": events,
        "persons": row.counts["persons"],
        "cores": cores(),
        "wall_cpu_s": {"first": first, "second": second},
        "share_of_cpu": {step: round(cpu / cpu_s, 2) for step, (_wall, cpu) in second.items()},
        "drift": row.audit["drift"],
        "point_reads": found,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=500)
    options = parser.parse_args()
    print(json.dumps(measure(options.events, options.reads)))

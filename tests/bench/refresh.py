"""A row of `personalization` for everyone after a snapshot, JSON and Delta write included, twice in one process.

The first refresh runs into a JVM that has compiled little of it. ``--home`` names a folder whose night stays for another run; the
table is made anew. Prints one JSON line, and to the error stream what is done.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path

from tests.bench.bench_batch import meter
from tests.bench.generated_archive import generated_home, make_archive
from tests.bench.wide_night import EVENTS_A_PERSON
from twofold.settings import Settings
from twofold.spark.batch import rebuild
from twofold.spark.personalize import Personalizer
from twofold.spark.session import cores
from twofold.spark.state_rows import tasks_of
from twofold.stores.manifest import current
from twofold.stores.one_writer import process_writer
from twofold.timeline import HOUR_MS, Offsets


def refresh_everyone(spark, settings: Settings, end: Offsets, t: int) -> list[float]:
    """As the table's writer does it after a snapshot; the seconds of each commit."""
    right = process_writer(settings, "personalize")
    writer = Personalizer(spark, settings, right, now_ms=lambda: t, log_end=lambda _settings: end)
    took, waits = [], True
    while waits:
        start = time.perf_counter()
        waits = writer.tick()
        took.append(round(time.perf_counter() - start, 1))
    return took


def measure(events: int, home: str | None) -> dict[str, object]:
    with generated_home("5g", home) as (settings, spark):
        row = current(settings.table("manifest"))
        if row is None:
            make_archive(spark, settings.table("archive"), events, max(1, events // EVENTS_A_PERSON), tasks_of(events))
            row = rebuild(spark, settings, report=lambda step: print(f"refresh: {step}", file=sys.stderr, flush=True))
        end, as_of_ms, persons = row.cut, row.as_of_ms, row.counts["persons"]
        assert as_of_ms is not None
        measured, out = meter(spark), []
        for _run in range(2):
            shutil.rmtree(Path(settings.table("personalization")), ignore_errors=True)
            commits: list[float] = []
            wall, cpu = measured(lambda made=commits: made.extend(refresh_everyone(spark, settings, end, as_of_ms + HOUR_MS)))
            out.append(
                {"s": round(wall, 1), "cpu_s": round(cpu, 1), "ms_a_row": round(1_000 * wall / persons, 3), "commits_s": commits}
            )
    return {"persons": persons, "cores": cores(), "first": out[0], "second": out[1]}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=20_000_000)
    parser.add_argument("--home")
    options = parser.parse_args()
    print(json.dumps(measure(options.events, options.home)))

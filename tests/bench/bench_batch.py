"""The rebuild's fold over generated events against the rival of ``rival.py``, in one run; the outputs must be equal.

Prints one JSON line: seconds and the JVM's processor seconds of both, their ratio, and the seconds of a whole rebuild by step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from itertools import pairwise

import psutil
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from tests.bench.generated_archive import NEWEST_MS, generated_home, make_archive
from tests.bench.rival import rival_rows
from twofold.spark.batch import fold_state, rebuild
from twofold.spark.cut import pin
from twofold.spark.published import write_version
from twofold.spark.session import cores
from twofold.spark.state_rows import tasks_of

EVENTS_A_PERSON = 12


def meter(spark) -> Callable[[Callable[[], object]], tuple[float, float]]:
    """Wall and processor seconds of some work; the second survive other work on the same cores."""
    process = psutil.Process(int(spark._jvm.java.lang.ProcessHandle.current().pid()))

    def cpu_s() -> float:
        times = process.cpu_times()
        return times.user + times.system

    def measured(work: Callable[[], object]) -> tuple[float, float]:
        wall, cpu = time.perf_counter(), cpu_s()
        work()
        return time.perf_counter() - wall, cpu_s() - cpu

    return measured


def differing(spark, ours: str, theirs: str) -> int:
    """Rows that one table has and the other has not; ``older`` through its JSON, because maps cannot be hashed.

    Of ``older`` what the rival knows: the families came after it, so ours does their work besides.
    """
    a, b = (spark.read.format("delta").load(location) for location in (ours, theirs))
    names = b.select("older.*").columns

    def rows(table: DataFrame) -> DataFrame:
        older = F.to_json(F.struct(*(F.col("older")[name].alias(name) for name in names)))
        hashes = (F.xxhash64(column).alias(column) for column in ("older_ids", "recent"))
        return table.select("person", F.xxhash64(older).alias("older"), *hashes)

    a, b = rows(a), rows(b)
    return a.exceptAll(b).count() + b.exceptAll(a).count()


def measure(events: int, runs: int) -> dict[str, object]:
    """The best of ``runs`` runs each, alternating. Raises ``AssertionError`` when the outputs differ."""
    with generated_home("3g") as (settings, spark):
        make_archive(spark, settings.table("archive"), events, max(1, events // EVENTS_A_PERSON), tasks_of(events))
        pinned = pin(spark, settings, NEWEST_MS)
        row = pinned.row
        assert row.archive_version is not None and row.horizon_ms is not None
        rival_reads = (settings.table("archive"), row.archive_version, row.cut, row.horizon_ms, tasks_of(events))
        ours, theirs = str(settings.home_path / "ours"), str(settings.home_path / "theirs")
        measured = meter(spark)
        took: dict[str, list[tuple[float, float]]] = {"ours": [], "rival": []}
        for _ in range(runs):
            took["ours"].append(measured(lambda: fold_state(pinned, ours)))
            took["rival"].append(measured(lambda: write_version(rival_rows(spark, *rival_reads), theirs, "rival")))
        differ = differing(spark, ours, theirs)
        if differ:
            raise AssertionError(f"the rival's rows differ from ours in {differ} places")
        steps: list[tuple[str, float]] = []
        published = rebuild(spark, settings, report=lambda step: steps.append((step, time.perf_counter())))
    (our_s, our_cpu_s), (rival_s, rival_cpu_s) = (
        tuple(min(run[place] for run in took[name]) for place in (0, 1)) for name in ("ours", "rival")
    )
    return {
        "events": events,
        "persons": published.counts["persons"],
        "cores": cores(),
        "fold_s": round(our_s, 1),
        "rival_s": round(rival_s, 1),
        "ratio": round(our_s / rival_s, 2),
        "fold_cpu_s": round(our_cpu_s, 1),
        "rival_cpu_s": round(rival_cpu_s, 1),
        "cpu_ratio": round(our_cpu_s / rival_cpu_s, 2),
        "rebuild_s": {step: round(later - at, 1) for (step, at), (_next, later) in pairwise(steps)},
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--runs", type=int, default=2)
    options = parser.parse_args()
    print(json.dumps(measure(options.events, options.runs)))

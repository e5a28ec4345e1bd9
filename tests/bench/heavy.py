"""A person of 200,000 recent entries beside ordinary ones: reads of both in one run, and tasks of a night that holds both.

Prints one JSON line for the reads and one for the night: of every stage with many tasks, how much longer its longest task took than
its median one, with and without the tasks that ran first, and how many rows they read.
"""

from __future__ import annotations

import argparse
import json
import time
from statistics import median
from typing import Any

import numpy as np

from tests.bench.generated_archive import generated_home, make_archive
from tests.bench.people import stored
from twofold.catalogue import CATALOGUE
from twofold.merge import merge
from twofold.record import make_record
from twofold.spark.batch import rebuild
from twofold.spark.session import cores
from twofold.spark.state_rows import tasks_of

T = 1_780_000_000_000
HEAVY, ORDINARY = (200_000, 50), (250, 50)
#: One read in so many is the heavy person's.
EVERY = 20
EVENTS_A_PERSON = 12


def _percentiles(took_s: list[float]) -> dict[str, int]:
    p50, p99, largest = np.percentile(np.array(took_s) * 1e6, (50, 99, 100))
    return {"reads": len(took_s), "p50_us": round(p50), "p99_us": round(p99), "max_us": round(largest)}


def reads(count: int) -> dict[str, Any]:
    """``count`` reads of the ordinary person alone, then as many among which one in ``EVERY`` is of the heavy one."""
    alone: list[float] = []
    beside: list[float] = []
    heavy: list[float] = []
    with stored({"user:1": HEAVY, "user:2": ORDINARY}, T, 20_000) as (row, snapshot, reader):

        def read(person: str, t: int) -> float:
            began = time.perf_counter()
            view = reader.view(person, row.cut)
            merged = merge(CATALOGUE, row, snapshot.person(person), view, t)
            make_record(CATALOGUE, person, row, merged, view, t, T, 5_000, 60_000, view.high)
            return time.perf_counter() - began

        for number in range(count):
            alone.append(read("user:2", T + number))
        for number in range(count):
            if number % EVERY == 0:
                heavy.append(read("user:1", T + number))
            beside.append(read("user:2", T + number))
    return {
        "entries": HEAVY[0],
        "ordinary": _percentiles(alone),
        "ordinary_beside": _percentiles(beside),
        "heavy": _percentiles(heavy),
    }


def _stages(spark: Any) -> list[dict[str, Any]]:
    """Every stage that ran: its number, its tasks, the seconds of their median and their longest, and the rows of both extremes.

    ``after_first``: the same ratio without the task that each core ran first, in which the JVM compiles what the others run.
    """
    jvm, store = spark._jvm, spark.sparkContext._jsc.sc().statusStore()
    anything, quantiles = jvm.java.util.ArrayList(), spark.sparkContext._gateway.new_array(jvm.double, 0)
    stages = store.stageList(anything, False, False, quantiles, anything)
    found = []
    for stage in (stages.apply(place) for place in range(stages.size())):
        tasks = store.taskList(stage.stageId(), stage.attemptId(), 100_000)
        ended = [task for task in (tasks.apply(place) for place in range(tasks.size())) if task.taskMetrics().isDefined()]
        ended.sort(key=lambda task: task.taskId())
        metrics = [task.taskMetrics().get() for task in ended]
        run_s = [one.executorRunTime() / 1_000 for one in metrics]
        rows = [one.inputMetrics().recordsRead() + one.shuffleReadMetrics().recordsRead() for one in metrics]
        if run_s:
            middle, longest = median(run_s), max(run_s)
            found.append(
                {
                    "stage": stage.stageId(),
                    "tasks": len(run_s),
                    "median_s": round(middle, 2),
                    "longest_s": round(longest, 2),
                    "ratio": round(longest / max(middle, 1e-3), 2),
                    "after_first": round(max(run_s[cores() :] or run_s) / max(middle, 1e-3), 2),
                    "median_rows": round(median(rows)),
                    "most_rows": max(rows),
                    "rows_of_longest": rows[run_s.index(longest)],
                }
            )
    return found


def night(events: int) -> dict[str, Any]:
    """A whole night over ``events``, 200,000 of them recent ones of one person: its stages of many tasks that took a second."""
    with generated_home("3g") as (settings, spark):
        archive, persons, ordinary = settings.table("archive"), max(1, events // EVENTS_A_PERSON), events - HEAVY[0]
        make_archive(spark, archive, events, persons, tasks_of(ordinary), (0, ordinary))
        make_archive(spark, archive, events, persons, 1, (ordinary, events), "user:heavy")
        before = max(stage["stage"] for stage in _stages(spark))
        began = time.perf_counter()
        rebuild(spark, settings)
        took_s = time.perf_counter() - began
        stages = [stage for stage in _stages(spark) if stage["stage"] > before]
    many = [stage for stage in stages if stage["tasks"] >= tasks_of(events) and stage["longest_s"] >= 1]
    return {"events": events, "cores": cores(), "night_s": round(took_s, 1), "stages": many}


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--reads", type=int, default=3_000)
    parser.add_argument("--events", type=int, default=5_000_000)
    options = parser.parse_args()
    print(json.dumps(reads(options.reads)), flush=True)
    print(json.dumps(night(options.events)))

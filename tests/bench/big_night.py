"""A whole night over generated events, every column and the gate on, against queries by hand over the same files in one run.

The rivals: ``rival`` (Spark, `state`) and ``engines`` (Spark, DuckDB, Polars, `wide_person`), each from the archive's files to
written files, in processes of their own where they are not Spark. Their rows must equal ours in the thirty features that they
know; ours makes those of the families besides. Prints one JSON line, and to the error stream what is done.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pyarrow.dataset as ds

from tests.bench.bench_batch import differing as differing_states
from tests.bench.bench_batch import meter
from tests.bench.engines import differing, duckdb_rows, polars_rows, spark_rows
from tests.bench.generated_archive import generated_home, make_archive
from tests.bench.refresh import refresh_everyone
from tests.bench.rival import rival_rows
from tests.bench.wide_night import EVENTS_A_PERSON
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.spark.batch import rebuild
from twofold.spark.published import write_version
from twofold.spark.session import cores
from twofold.spark.state_rows import tasks_of
from twofold.stores.personalization import current_rows
from twofold.stores.places import data_files, open_table
from twofold.timeline import HOUR_MS
from twofold.views import ManifestRow

_DUCKDB_MEMORY = "12GB"


def _done(what: str, took: object) -> None:
    """A run takes most of an hour: what is known is told when it is."""
    print(f"big-night: {what}: {took}", file=sys.stderr, flush=True)


def _measured(work: Callable[..., None], pipe: Any, arguments: tuple[Any, ...]) -> None:
    start = time.perf_counter()
    work(*arguments)
    usage = resource.getrusage(resource.RUSAGE_SELF)
    pipe.send((time.perf_counter() - start, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6))


def _apart(work: Callable[..., None], *arguments: Any) -> dict[str, float]:
    """Seconds, processor seconds and most memory (GB) of some work in a fresh process."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_measured, args=(work, theirs, arguments))
    process.start()
    theirs.close()
    try:
        wall, cpu, gigabytes = ours.recv()
    except EOFError as error:
        raise RuntimeError(f"{work.__name__} died: exit {process.exitcode}") from error
    process.join()
    return {"s": round(wall, 1), "cpu_s": round(cpu, 1), "gb": round(gigabytes, 1)}


def _reads(settings: Settings, t: int) -> dict[str, object]:
    """10,000 people's records by the library, and their rows of `wide_person` and `personalization`, one read each."""
    location = settings.table("wide_person")
    table = open_table(location).to_pyarrow_dataset()
    people = table.to_table(columns=["person"])["person"].to_pylist()
    some = random.Random(1).sample(people, min(10_000, len(people)))
    took: dict[str, object] = {}
    with Reader(settings) as reader:
        start = time.perf_counter()
        found = sum(1 for _record in reader.records(some, t))
        took["records_10k_s"] = round(time.perf_counter() - start, 2)
    assert found == len(some)
    start = time.perf_counter()
    assert len(table.to_table(filter=ds.field("person").isin(some))) == len(some)
    took["wide_person_10k_s"] = round(time.perf_counter() - start, 2)
    start = time.perf_counter()
    assert len(current_rows(settings.table("personalization"), t, some)) == len(some)
    took["personalization_10k_s"] = round(time.perf_counter() - start, 2)
    points = []
    for person in some[:300]:
        start = time.perf_counter()
        assert len(table.to_table(filter=ds.field("person") == person)) == 1
        points.append((time.perf_counter() - start) * 1_000)
    points.sort()
    took["wide_person_point_ms"] = {"p50": round(points[len(points) // 2], 1), "p99": round(points[len(points) * 99 // 100], 1)}
    return took


def measure(events: int) -> dict[str, object]:
    """Raises ``AssertionError`` when a rival's rows differ from ours."""
    with generated_home("5g") as (settings, spark):
        tasks = tasks_of(events)
        make_archive(spark, settings.table("archive"), events, max(1, events // EVENTS_A_PERSON), tasks)
        measured = meter(spark)
        steps: list[tuple[str, float]] = []
        published: list[ManifestRow] = []
        whole = measured(
            lambda: published.append(rebuild(spark, settings, report=lambda step: steps.append((step, time.perf_counter()))))
        )
        row = published[0]
        took = {step: round(later - at, 1) for (step, at), (_next, later) in pairwise(steps)}
        _done("rebuild", took)
        assert row.as_of_ms is not None and row.archive_version is not None and row.horizon_ms is not None
        archive, t = settings.table("archive"), row.as_of_ms
        states, wide = str(settings.home_path / "states"), str(settings.home_path / "wide")
        by_hand = {
            "spark_state": measured(
                lambda: write_version(
                    rival_rows(spark, archive, row.archive_version or 0, row.cut, row.horizon_ms or 0, tasks), states, "rival"
                )
            ),
            "spark_wide": measured(
                lambda: write_version(spark_rows(spark, archive, row.archive_version or 0, t, tasks), wide, "rival")
            ),
        }
        _done("by hand", by_hand)
        different = differing_states(spark, settings.table("state"), states)
        if different:
            raise AssertionError(f"the rival's `state` differs from ours in {different} places")
        refresh = measured(lambda: refresh_everyone(spark, settings, row.cut, t + HOUR_MS))
        _done("refresh", refresh)
        reads = _reads(settings, t)
        _done("reads", reads)
        files, _filesystem = data_files(archive, row.archive_version)
        ours, _filesystem = data_files(settings.table("wide_person"), row.tables["wide_person"])
        outs = {name: settings.home_path / f"{name}.parquet" for name in ("duckdb", "polars")}
        apart = {
            "duckdb": _apart(duckdb_rows, files, t, outs["duckdb"], _DUCKDB_MEMORY, settings.home_path / "spill"),
            "polars": _apart(polars_rows, files, t, outs["polars"]),
        }
        _done("engines", apart)
        rows = {"spark": data_files(wide, 0)[0], **{name: [str(out)] for name, out in outs.items()}}
        for name, theirs in rows.items():
            found = differing(ours, theirs)
            if found:
                raise AssertionError(f"the rows of {name} differ from ours: {found}")
    hand_s = sum(wall for wall, _cpu in by_hand.values())
    without_gate_s = whole[0] - took["gate"]
    return {
        "events": events,
        "persons": row.counts["persons"],
        "cores": cores(),
        "rebuild_s": round(whole[0], 1),
        "rebuild_cpu_s": round(whole[1], 1),
        "steps_s": took,
        "by_hand": {name: {"s": round(wall, 1), "cpu_s": round(cpu, 1)} for name, (wall, cpu) in by_hand.items()},
        "duckdb_wide": apart["duckdb"],
        "polars_wide": apart["polars"],
        "ratio_to_spark_by_hand": round(without_gate_s / hand_s, 2),
        "gate_on_top": round(took["gate"] / without_gate_s, 2),
        "personalization_refresh": {"s": round(refresh[0], 1), "cpu_s": round(refresh[1], 1)},
        **reads,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=20_000_000)
    options = parser.parse_args()
    print(json.dumps(measure(options.events)))

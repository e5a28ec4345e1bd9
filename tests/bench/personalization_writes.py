"""How `personalization` should be written: rows of touched people appended to a log, or merged into one row a person.

Generated people with thirty columns and a record of JSON; 2,500 touched people a commit. Prints one JSON line a measure: seconds
of the commit (median of three), bytes that it added, and what the log costs: the current rows of 1,000 people, tidying.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from twofold.settings import Settings
from twofold.spark.personalization import compact
from twofold.spark.session import open_session
from twofold.stores.personalization import current_rows

TOUCHED, REPEATS, FEATURES = 2_500, 3, 30
WAYS = ("append", "merge", "merge with vectors")


def people(spark: Any, ids: DataFrame, batch: int) -> DataFrame:
    values = [
        F.pmod(F.xxhash64("id", F.lit(number), F.lit(batch)), F.lit(1_000)).alias(f"f{number:02d}") for number in range(FEATURES)
    ]
    rows = ids.select(
        F.concat(F.lit("user:"), F.col("id")).alias("person"),
        F.lit(batch).cast("bigint").alias("batch"),
        F.lit(batch).cast("bigint").alias("era"),
        F.lit(None).cast("bigint").alias("valid_until"),
        F.lit(None).cast("bigint").alias("sendable_until"),
        *values,
    )
    # As long as a real record: the values by name, and a state for each.
    states = F.struct(*(F.lit("exact").alias(f"state_of_f{number:02d}") for number in range(FEATURES)))
    return rows.withColumn("record", F.to_json(F.struct(*rows.columns, states.alias("fields"))))


def write(rows: DataFrame, location: str, vectors: bool) -> Any:
    writer = rows.write.format("delta").option("delta.enableDeletionVectors", str(vectors).lower())
    return writer.option("delta.dataSkippingNumIndexedCols", "8")


def added_bytes(location: str) -> int:
    version = DeltaTable(location).version()
    commit = Path(location, "_delta_log", f"{version:020d}.json").read_text(encoding="utf-8")
    return sum(action["add"]["size"] for line in commit.splitlines() if "add" in (action := json.loads(line)))


def measure(spark: Any, folder: Path, persons: int, kind: str) -> dict[str, Any]:
    from delta.tables import DeltaTable as SparkTable

    location = str(folder / f"{kind}-{persons}")
    everyone = people(spark, spark.range(0, persons, 1, 8), 0).repartition(8, "person").sortWithinPartitions("person")
    write(everyone, location, kind == "merge with vectors").partitionBy(*(["era"] if kind == "append" else [])).save(location)

    def append(touched: DataFrame) -> None:
        touched.coalesce(1).write.format("delta").mode("append").save(location)

    def merge(touched: DataFrame) -> None:
        table = SparkTable.forPath(spark, location).alias("old")
        matched = table.merge(touched.alias("new"), "old.person = new.person")
        matched.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()

    act: Callable[[DataFrame], None] = append if kind == "append" else merge
    seconds, sizes = [], []
    for batch in range(1, REPEATS + 1):
        ids = spark.range(0, TOUCHED).select(F.pmod(F.xxhash64("id", F.lit(batch)), F.lit(persons)).alias("id")).distinct()
        began = time.perf_counter()
        act(people(spark, ids, batch))
        seconds.append(time.perf_counter() - began)
        sizes.append(added_bytes(location))
    out: dict[str, Any] = {
        "persons": persons,
        "kind": kind,
        "touched": TOUCHED,
        "commit_s": round(statistics.median(seconds), 2),
        "added_mb": round(statistics.median(sizes) / 1e6, 1),
    }
    if kind == "append":
        some = [f"user:{number}" for number in range(0, persons, persons // 1_000)]
        began = time.perf_counter()
        found: pa.Table = current_rows(location, 0, some)
        out |= {"read_1000_s": round(time.perf_counter() - began, 2), "rows": len(found)}
        began = time.perf_counter()
        compact(spark, location, REPEATS)
        out["compact_s"] = round(time.perf_counter() - began, 1)
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--persons", type=int, nargs="+", default=[200_000, 1_000_000])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        session = open_session(Settings(home=scratch), "bench", spark__driver__memory="8g")
        for size in options.persons:
            for way in options.ways:
                print(json.dumps(measure(session, Path(scratch), size, way)), flush=True)
        session.stop()

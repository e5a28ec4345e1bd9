"""Rows of `state` found by person in the copy, against the table itself."""

from __future__ import annotations

import pyarrow as pa
import pytest
from pyspark.sql import functions as F

from tests.spark.personalize_home import SMALL
from twofold.settings import Settings
from twofold.spark import standing, state_lookup
from twofold.spark.standing import read_anew
from twofold.spark.state_lookup import StateLookup
from twofold.spark.state_rows import empty_state

NOBODY = pa.array([], pa.string())


@pytest.mark.parametrize("columns", [("older", "older_ids", "retracted_ids", "recent", "more"), ("older", "older_ids", "recent")])
def test_what_is_found_is_what_the_table_has(spark, tmp_path, monkeypatch, columns):
    monkeypatch.setattr(state_lookup, "_ROWS_A_FILE", 30)
    monkeypatch.setattr(state_lookup, "_ROWS_AT_ONCE", 10)
    number = F.col("id")
    people = spark.range(100).select(
        F.concat(F.lit("user:"), number).alias("person"),
        F.when(number % 3 > 0, F.struct(number.alias("count"), F.create_map(F.lit("EUR"), number).alias("sum"))).alias("older"),
        F.array(number, number + 1).alias("older_ids"),
        F.when(number % 2 == 0, F.array(number)).alias("retracted_ids"),
        F.array(F.struct(number.alias("at_ms"), F.lit(None).cast("string").alias("event_id"))).alias("recent"),
        number.alias("more"),
    )
    location = str(tmp_path / "state")
    people.select("person", *columns).repartition(3).write.format("delta").save(location)
    lookup = StateLookup(spark, Settings(home=str(tmp_path)).checkpoint("found"), tmp_path / "local")
    lookup.start(location, 0)
    assert sorted(lookup.persons().to_pylist()) == sorted(f"user:{n}" for n in range(100))
    kept = [name for name in columns if name != "more"]

    def told(rows) -> list[str]:
        return sorted(row[0] for row in rows.select(F.to_json(F.struct("*"))).collect())

    def found(*persons: str, more: tuple[str, ...] = ()) -> list[str]:
        lookup.find(pa.array(persons, pa.string()), pa.array(more, pa.string()))
        return told(read_anew(frame))

    def right(*persons: str) -> list[str]:
        return told(people.where(F.col("person").isin(*persons)).select("person", *kept))

    lookup.find(NOBODY, NOBODY)
    frame = lookup.rows()
    assert found() == []
    for persons in (("user:0",), ("user:3", "user:50", "user:99", "nobody"), tuple(f"user:{n}" for n in range(0, 100, 7))):
        assert found(*persons) == right(*persons) != []
    # Who has no row has one that holds nothing.
    assert found("user:3", "new", more=("new", "user:3")) == sorted([*right("user:3"), '{"person":"new"}'])
    people.select("person", *columns).where("person < 'user:2'").write.format("delta").mode("overwrite").save(location)
    lookup.start(location, 1)
    assert found("user:1", "user:50") == right("user:1")


def test_in_as_many_files_as_there_are_tasks(spark, tmp_path, monkeypatch):
    monkeypatch.setattr(standing, "ROWS_A_TASK", 10)
    people = spark.range(100).select(F.concat(F.lit("user:"), "id").alias("person"))
    nobody = empty_state(spark, SMALL)
    nothing = (F.lit(None).cast(nobody.schema[name].dataType).alias(name) for name in ("older", "older_ids", "recent"))
    people.select("person", *nothing).write.format("delta").save(str(tmp_path / "state"))
    lookup = StateLookup(spark, Settings(home=str(tmp_path)).checkpoint("found"), tmp_path / "local")
    lookup.start(str(tmp_path / "state"), 0)
    for asked in (50, 10):
        persons = [f"user:{n}" for n in range(asked)]
        lookup.find(pa.array(persons), NOBODY)
        rows = read_anew(lookup.rows()).select("person", F.spark_partition_id().alias("task")).collect()
        ranges = [[row.person for row in rows if row.task == task] for task in {row.task for row in rows}]
        assert len(ranges) == min(spark.sparkContext.defaultParallelism, asked // 10)
        # Files of what was found before are removed.
        assert [person for people in sorted(ranges) for person in people] == sorted(persons)

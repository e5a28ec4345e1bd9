"""Rows of `state` found by person in the copy, against the table itself."""

from __future__ import annotations

import pytest
from pyspark.sql import functions as F

from twofold.settings import Settings
from twofold.spark import state_lookup
from twofold.spark.standing import read_anew
from twofold.spark.state_lookup import StateLookup


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
    kept = [name for name in columns if name != "more"]

    def told(rows) -> list[str]:
        return sorted(row[0] for row in rows.select(F.to_json(F.struct("*"))).collect())

    def found(*persons: str) -> list[str]:
        lookup.find(persons)
        return told(read_anew(frame))

    def right(*persons: str) -> list[str]:
        return told(people.where(F.col("person").isin(*persons)).select("person", *kept))

    lookup.find([])
    frame = lookup.rows()
    assert found() == []
    for persons in (("user:0",), ("user:3", "user:50", "user:99", "nobody"), tuple(f"user:{n}" for n in range(0, 100, 7))):
        assert found(*persons) == right(*persons) != []
    people.select("person", *columns).where("person < 'user:2'").write.format("delta").mode("overwrite").save(location)
    lookup.start(location, 1)
    assert found("user:1", "user:50") == right("user:1")

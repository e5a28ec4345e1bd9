"""The current rows of a log of rows: without Spark, and the same by the documented SQL in DuckDB."""

from __future__ import annotations

import json
import random

import duckdb
import pyarrow as pa
import pytest
from deltalake import CommitProperties, DeltaTable, write_deltalake

from twofold.stores.personalization import (
    Commit,
    current_row,
    current_rows,
    current_view_sql,
    newest_commit,
    rows_of_batch,
)
from twofold.stores.refresh_request import answer, request_refresh, requested
from twofold.timeline import Offsets, PartitionKey

NOW = 1_000
SCHEMA = pa.schema(
    [
        ("person", pa.string()),
        ("batch", pa.int64()),
        ("valid_until", pa.int64()),
        ("sendable", pa.bool_()),
        ("sendable_until", pa.int64()),
        ("revenue", pa.map_(pa.string(), pa.decimal128(38, 0))),
    ]
)


@pytest.fixture
def table(tmp_path):
    """Sixty rows of seven people in six batches, and the newest of each, plainly."""
    r = random.Random(5)
    location, newest = str(tmp_path / "p"), {}
    for batch in range(1, 7):
        rows = []
        for person in r.sample(range(7), 5):
            sendable = r.random() < 0.5
            row = {
                "person": f"user:{person}",
                "batch": batch,
                "valid_until": r.choice([None, NOW - 1, NOW, NOW + 1]),
                "sendable": sendable,
                "sendable_until": r.choice([NOW - 1, NOW, NOW + 1]) if sendable else None,
                "revenue": [("USD", batch)],
            }
            rows.append(row)
            newest[row["person"]] = row
        told = Offsets({PartitionKey("t", 0): batch}).to_json()
        metadata = {"userMetadata": json.dumps({"batch": batch, "refreshed": 2, "told": told})}
        frame = pa.Table.from_pylist(rows, SCHEMA)
        write_deltalake(location, frame, mode="append", commit_properties=CommitProperties(custom_metadata=metadata))
    expected = {
        person: {
            **row,
            "sendable": row["sendable"] and row["sendable_until"] > NOW,
            "stale": row["valid_until"] is not None and row["valid_until"] <= NOW,
        }
        for person, row in newest.items()
    }
    return location, expected


def test_the_newest_row_of_each_person(table):
    location, expected = table
    found = current_rows(location, NOW)
    assert {row["person"]: row for row in found.to_pylist()} == expected
    assert len(found) == len(expected)
    assert {row["stale"] for row in expected.values()} == {row["sendable"] for row in expected.values()} == {True, False}
    some = current_rows(location, NOW, ["user:1", "user:nobody"], ["valid_until"]).to_pylist()
    assert some == [{name: expected["user:1"][name] for name in ("person", "batch", "valid_until", "stale")}]
    assert current_row(location, "user:3", NOW) == expected["user:3"]
    assert current_row(location, "user:nobody", NOW) is None


def test_the_view_in_duckdb(table):
    location, expected = table
    with duckdb.connect() as connection:
        connection.register("rows", DeltaTable(location).to_pyarrow_dataset())
        found = connection.sql(current_view_sql("rows", SCHEMA.names, str(NOW))).fetch_arrow_table().to_pylist()
    assert len(found) == len(expected)
    for row in found:
        row["revenue"] = list(dict(row["revenue"]).items())
        assert row == expected[row["person"]]


def test_what_the_newest_commit_says(table, tmp_path):
    location, _expected = table
    told = Offsets({PartitionKey("t", 0): 6})
    assert newest_commit(location) == Commit(6, 2, told)
    # Maintenance carries none of it.
    for _ in range(9):
        write_deltalake(location, pa.Table.from_pylist([], SCHEMA), mode="append")
    assert newest_commit(location) == Commit(6, 2, told)
    assert newest_commit(str(tmp_path / "nothing")) == Commit()
    assert rows_of_batch(location, 4, ["batch"])["batch"].to_pylist() == [4] * 5


def test_a_request_stays_until_that_very_request_is_answered(tmp_path):
    assert requested(tmp_path) is None
    request_refresh(tmp_path)
    asked = requested(tmp_path)
    assert asked is not None
    answer(tmp_path, asked - 1)
    assert requested(tmp_path) == asked
    answer(tmp_path, asked)
    assert requested(tmp_path) is None

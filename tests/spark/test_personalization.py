"""The table `personalization`: its stream, its tidying, its readers."""

from __future__ import annotations

import json
from itertools import pairwise
from threading import Thread
from typing import Any

import duckdb
import polars
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from tests.spark.personalize_home import SMALL, TOPIC, assert_equal_to_the_library, finish
from tests.spark.test_batch import offsets, page
from twofold.errors import DefinitionError
from twofold.features import Catalogue, Feature
from twofold.spark.personalization import (
    column_names,
    compact,
    create_personalization,
    current_view,
    gather_files,
    table_columns,
)
from twofold.spark.personalize import start_personalize
from twofold.stores.personalization import current_row, current_view_sql, newest_commit
from twofold.testing.strategies import NOW_MS
from twofold.timeline import Offsets, PartitionKey

pytestmark = pytest.mark.spark


# --- the table --------------------------------------------------------------------------------------------------------------------
def test_tidying_beside_appends_and_every_reader(spark, homes):
    home = homes(now_ms=NOW_MS + 10)
    people = [f"user:{n}" for n in range(5)]
    home.archive([page(n, person) for n, person in enumerate(people)], offsets(5))
    home.open()
    for _ in range(3):
        home.clock.now_ms += 1
        home.writer._emit("due", pa.array(people))
    home.archive([page(5, "user:0"), page(6, "user:new")], offsets(7))
    home.writer._era, old = home.writer._batch + 1, home.writer._batch
    tidying = Thread(target=compact, args=(spark, home.table, old))
    tidying.start()
    home.live()
    tidying.join()
    rows = DeltaTable(home.table).to_pyarrow_table(columns=["person", "batch"]).to_pylist()
    assert sorted((row["batch"], row["person"]) for row in rows) == [
        *((3, person) for person in people),
        (4, "user:0"),
        (4, "user:new"),
    ]
    assert newest_commit(home.table).batch == 4
    expected = assert_equal_to_the_library(home)

    now, names = home.clock.now_ms, list(column_names(home.catalogue))
    plain = {person: (row["batch"], row["sendable"], row["page_views_1h"], row["stale"]) for person, row in expected.items()}

    def as_plain(found: list[dict[str, Any]]) -> dict[str, tuple]:
        assert len(found) == len(plain)
        return {row["person"]: (row["batch"], row["sendable"], row["page_views_1h"], row["stale"]) for row in found}

    sql = spark.sql(current_view_sql(f"delta.`{home.table}`", names, str(now)))
    assert as_plain([row.asDict() for row in sql.collect()]) == plain
    assert current_view(spark, home.table, home.catalogue).count() == len(plain)
    with duckdb.connect() as connection:
        connection.register("rows", DeltaTable(home.table).to_pyarrow_dataset())
        assert as_plain(connection.sql(current_view_sql("rows", names, str(now))).fetch_arrow_table().to_pylist()) == plain
    newest = polars.scan_delta(str(home.table)).sort("batch").group_by("person").last().collect()
    assert {row["person"]: row["batch"] for row in newest.to_dicts()} == {person: row[0] for person, row in plain.items()}
    assert current_row(home.table, "user:new", now) == expected["user:new"]
    protocol = DeltaTable(home.table).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    comments = {field.name: field.metadata["comment"] for field in DeltaTable(home.table).schema().fields}
    assert comments == {name: comment for name, _type, comment in table_columns(home.catalogue)}

    gather_files(spark, home.table)
    assert assert_equal_to_the_library(home) == expected


def test_the_table_stays_small_however_many_batches(homes, monkeypatch):
    monkeypatch.setattr("twofold.spark.tidy._LOOK_EVERY_MS", 0)
    home = homes(now_ms=NOW_MS + 10, tidy_files=6)
    people = [f"user:{n}" for n in range(4)]
    home.archive([page(n, person) for n, person in enumerate(people)], offsets(4))
    home.open()
    sizes = []
    for _ in range(20):
        home.clock.now_ms += 1
        home.writer._emit("due", pa.array(people))
        finish(home)
        tidying = home.writer._tidy._thread
        if tidying is not None:
            tidying.join()
        sizes.append((len(DeltaTable(home.table).file_uris()), DeltaTable(home.table).to_pyarrow_dataset().count_rows()))
    assert max(files for files, _rows in sizes) <= 6, "never more files than asked for"
    assert sum(files < before for (before, _r), (files, _s) in pairwise(sizes)) >= 3, "tidied again and again"
    assert max(rows for _files, rows in sizes) <= 6 * len(people), "and one row a person is left of the old ones"
    assert {row["batch"] for row in assert_equal_to_the_library(home).values()} == {home.writer._batch}


def test_a_feature_may_not_take_the_name_of_a_column():
    clash = Catalogue(list(SMALL.primaries.values()), [Feature("record", "A clash", "orders_lifetime")])
    with pytest.raises(DefinitionError, match="record"):
        table_columns(clash)


def test_other_columns_make_a_new_table(spark, homes):
    home = homes()
    assert create_personalization(spark, home.table, SMALL)
    assert not create_personalization(spark, home.table, SMALL)
    more = Catalogue(list(SMALL.primaries.values()), [*SMALL.features.values(), Feature("more", "More", "orders_lifetime")])
    assert create_personalization(spark, home.table, more)
    assert tuple(DeltaTable(home.table).to_pyarrow_dataset().schema.names) == column_names(more)


def test_the_stream(spark, homes, monkeypatch):
    """The real query over the archive: a commit's people have their rows, at the end of that very commit."""
    monkeypatch.setattr("twofold.spark.personalize.broker_log_end", lambda _settings: None)
    home = homes()
    home.archive([page(0, "user:a")], offsets(1))
    running = start_personalize(spark, home.settings, SMALL)
    try:
        while running.tick():
            pass
        home.archive([page(1, "user:b"), page(2, "user:a")], offsets(3))
        running.query.processAllAvailable()
        for offset in range(3, 8):
            home.archive([page(offset, "user:c")], offsets(offset + 1))
            running.query.processAllAvailable()
        ends = {p: Offsets.from_json(json.loads(row["o"]))[PartitionKey(TOPIC, 0)] for p, row in home.rows().items()}
        assert ends == {"user:a": 3, "user:b": 3, "user:c": 8}
    finally:
        running.query.stop()

"""The writer of `personalization` on archives written by hand: every row equals the library's record at the same (t, O)."""

from __future__ import annotations

import json
from dataclasses import replace
from threading import Thread
from typing import Any, Literal

import duckdb
import polars
import pytest
from deltalake import DeltaTable
from pyspark.sql import functions as F

from tests.spark.test_batch import archive_row, commit, drawn_logs, offsets, page
from twofold.catalogue import CATALOGUE, CONSENT_PRIMARIES
from twofold.errors import DefinitionError, SecondWriter, ValidationRefused
from twofold.events import Entry, FactBody
from twofold.features import Catalogue, Feature
from twofold.merge import merge
from twofold.record import make_record
from twofold.settings import BatchSettings, GateSettings, PersonalizeSettings, Settings
from twofold.spark.batch import rebuild
from twofold.spark.personalization import (
    column_names,
    compact,
    create_personalization,
    current_view,
    gather_files,
    personalization_rows,
    table_columns,
)
from twofold.spark.personalize import Personalizer, start_personalize
from twofold.spark.published import append_row
from twofold.stores.archive_entries import archive_entries
from twofold.stores.archive_log import archive_end
from twofold.stores.home_log import HomeLog, read_home_log, write_home_log
from twofold.stores.manifest import rows as manifest_rows
from twofold.stores.one_writer import process_writer, take_writer
from twofold.stores.person_hash import PersonHash
from twofold.stores.personalization import current_row, current_rows, current_view_sql, newest_commit
from twofold.stores.refresh_request import request_refresh
from twofold.stores.reports import read_reports, reports_place
from twofold.stores.snapshot_file import EmptySnapshot, SnapshotFile, snapshot_path
from twofold.testing.strategies import NOW_MS, log_end
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS, Offsets, PartitionKey
from twofold.views import Heartbeat, HotView, empty_manifest

pytestmark = pytest.mark.spark

TOPIC = "topic-a"
#: For what does not depend on the features: a window, a lifetime, and what permission rests on.
SMALL = Catalogue(
    [CATALOGUE.primaries[name] for name in ("page_views_1h", "orders_lifetime", *CONSENT_PRIMARIES)],
    [CATALOGUE.features[name] for name in ("page_views_1h", "orders_lifetime", "consent_marketing")],
)
GateMode = Literal["enforce", "report", "off"]
GRANTED = (FactBody("consent", key="marketing", value="granted"),)


class Clock:
    """An instant that only a test moves."""

    def __init__(self, now_ms: int) -> None:
        self.now_ms = now_ms

    def __call__(self) -> int:
        return self.now_ms


class Home:
    """A home whose archive is written by hand, with a writer that the test drives: no broker, no stream, no waiting."""

    def __init__(
        self,
        spark: Any,
        folder: Any,
        catalogue: Catalogue = SMALL,
        now_ms: int = NOW_MS + HOUR_MS,
        gate: GateMode = "off",
        **more: Any,
    ) -> None:
        write_home_log(folder, HomeLog(TOPIC, offsets(0, 0, 0), 1))
        personalize = PersonalizeSettings(**{"chunk_persons": 64, "due_interval_ms": 0, **more})
        batch = BatchSettings(wide_tables=False)
        self.settings = Settings(home=str(folder), personalize=personalize, batch=batch, gate=GateSettings(mode=gate))
        self.table = self.settings.table("personalization")
        self.spark, self.catalogue, self.clock = spark, catalogue, Clock(now_ms)
        self.reached = offsets(0, 0, 0)
        self.end: Offsets | None = self.reached
        self.writer: Any = None

    def archive(self, entries: list[Entry], end: Offsets) -> None:
        commit(self.spark, self.settings, [archive_row(e) for e in entries], self.reached, self.reached.join(end))
        self.reached = self.end = self.reached.join(end)

    def batch(self, **options: Any) -> Any:
        return rebuild(self.spark, self.settings, catalogue=self.catalogue, **options)

    def open(self) -> Personalizer:
        right = process_writer(self.settings, "personalize")
        self.writer = Personalizer(self.spark, self.settings, right, self.catalogue, self.clock, lambda _settings: self.end)
        return self.writer

    def live(self) -> None:
        """One micro-batch over the archive's newest commit."""
        version = DeltaTable(self.settings.table("archive")).version()
        frame = self.spark.read.parquet(*_added(self.settings.table("archive"), version))
        self.writer._end_of = lambda _batch: archive_end(self.settings.table("archive"), version)
        self.writer.on_batch(frame, 0)

    def rows(self) -> dict[str, dict[str, Any]]:
        found = current_rows(self.table, self.clock.now_ms).to_pylist()
        return {row["person"]: row for row in sorted(found, key=lambda row: row["person"])}

    def batches(self) -> list[int]:
        return sorted(set(DeltaTable(self.table).to_pyarrow_table(columns=["batch"])["batch"].to_pylist()))


def _added(location: str, version: int) -> list[str]:
    new, old = (set(DeltaTable(location, version=v).file_uris()) for v in (version, version - 1))
    return sorted(new - old)


@pytest.fixture
def homes(spark, tmp_path, monkeypatch) -> Any:
    # The slice then gathers its files at every second batch.
    monkeypatch.setattr("twofold.spark.hot_slice._FANOUT", 2)
    return lambda **options: Home(spark, tmp_path, **options)


# --- the library's records at a row's own (t, O) --------------------------------------------------------------------------------
class Library:
    """Records from the snapshot file and the archive, as the library makes them of a hot store."""

    def __init__(self, home: Home) -> None:
        self._home = home
        version = home.catalogue.version
        self._entries: dict[str, list[Entry]] = {}
        for entry in archive_entries(home.settings.table("archive"), version):
            if entry.verdict == "ok":
                self._entries.setdefault(entry.person or "", []).append(entry)
        self._snapshots = {0: EmptySnapshot(empty_manifest(read_home_log(home.settings.home_path).log_start, version))}
        for row in manifest_rows(home.settings.table("manifest")):
            file = snapshot_path(home.settings.snapshots_path, row.snapshot)
            self._snapshots[row.seq] = SnapshotFile(file, row)
        self.people = set(self._entries)

    def record(self, row: dict[str, Any], lag_ms: int) -> Any:
        """The record of a row's person at the row's t and O, read that far behind the log."""
        snapshot, t, o = self._snapshots[row["seq"]], row["t"], Offsets.from_json(json.loads(row["o"]))
        beyond = Offsets({key: end + 1 for key, end in o.items()}) if lag_ms else o
        hot = HotView(
            high=o,
            low=snapshot.row.cut,
            entries=tuple(self._entries.get(row["person"], ())),
            heartbeat=Heartbeat(t, beyond),
            high_broker_ms=dict.fromkeys(o, t - lag_ms),
        )
        merged = merge(self._home.catalogue, snapshot.row, snapshot.person(row["person"]), hot, t)
        serving = self._home.settings.serving
        limits = (serving.fresh_max_lag_ms, serving.consent_max_lag_ms)
        return make_record(self._home.catalogue, row["person"], snapshot.row, merged, hot, t, t, *limits, o)


def assert_equal_to_the_library(home: Home, people: set[str] | None = None) -> dict[str, dict[str, Any]]:
    """Every current row: its record, its columns and its permission are the library's at the row's own (t, O)."""
    library = Library(home)
    rows = home.rows()
    assert set(rows) == (library.people if people is None else people)
    for person, row in rows.items():
        record = json.loads(row["record"])
        want = library.record(row, record["freshness"]["lag_ms"])
        where = f"{person} at {row['t']}"
        assert record["values"] == want.values, where
        assert (record["sendable"]["ok"], tuple(record["sendable"]["reasons"])) == (want.sendable.ok, want.sendable.reasons), where
        assert record["fields"] == want.fields, where
        for name in ("snapshot", "cut", "as_of", "t", "newest_event", "lag_ms", "state"):
            assert record["freshness"][name] == getattr(want.freshness, name), (where, name)
        for name, value in want.values.items():
            found = dict(row[name]) if isinstance(value, dict) else row[name]
            assert found == value, (where, name)
    return rows


# --- what is written --------------------------------------------------------------------------------------------------------------
def finish(home: Home) -> None:
    while home.writer.tick():
        pass


def test_touched_people_and_everyone_after_a_snapshot(spark, homes):
    """Random histories with late, duplicate and rejected entries: live rows, then everyone's from the next snapshot."""
    log = drawn_logs(40)
    ends = log_end(log)
    half, most = (Offsets({key: end * part // 4 for key, end in ends.items()}) for part in (2, 3))
    home = homes(catalogue=CATALOGUE, chunk_persons=50_000)
    home.archive([e for e in log if half.holds(e.position)], half)
    home.batch(as_of_ms=NOW_MS)
    home.archive([e for e in log if most.holds(e.position) and not half.holds(e.position)], most)
    home.open()
    finish(home)
    refreshed = assert_equal_to_the_library(home)
    assert {row["seq"] for row in refreshed.values()} == {1}

    home.clock.now_ms += 3 * DAY_MS
    rest = [e for e in log if not most.holds(e.position)]
    home.archive(rest, ends)
    home.live()
    rows = assert_equal_to_the_library(home)
    touched = {e.person for e in rest if e.verdict == "ok"}
    assert {person for person, row in rows.items() if row["t"] == home.clock.now_ms} == touched
    assert len(touched) < len(rows)

    # The law: the same (t, O) from the next snapshot.
    home.writer._emit("due", sorted(rows))
    before = home.rows()
    home.batch(as_of_ms=NOW_MS + 2 * DAY_MS)
    finish(home)
    after = assert_equal_to_the_library(home)
    assert {row["seq"] for row in before.values()} == {1} and {row["seq"] for row in after.values()} == {2}
    same = ("t", "o", *CATALOGUE.features)
    exact = 0
    for person, row in after.items():
        if "conflict" not in before[person]["record"]:
            exact += 1
            assert {name: row[name] for name in same} == {name: before[person][name] for name in same}
    assert exact > len(after) // 2


def test_before_the_first_snapshot_and_back_to_an_old_one(homes):
    home = homes()
    home.archive([page(n, f"user:{n}") for n in range(70)], offsets(70))
    home.open()
    finish(home)
    assert {row["snapshot"] for row in assert_equal_to_the_library(home).values()} == {"empty"}
    # Everyone once, in chunks of about 64.
    assert home.batches() == [1, 2] and DeltaTable(home.table).to_pyarrow_dataset().count_rows() == 70
    first = home.batch()
    home.archive([page(70, "user:0"), page(71, "user:new")], offsets(72))
    home.live()
    home.batch()
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert {row["seq"] for row in rows.values()} == {2} and rows["user:0"]["page_views_1h"] == 2
    # A start from the second snapshot has no entries below its cut; the first one's need them.
    home.open()
    append_row(home.spark, home.settings.table("manifest"), replace(first, seq=3, parent=2))
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert {row["seq"] for row in rows.values()} == {3} and {row["snapshot"] for row in rows.values()} == {first.snapshot}
    # A snapshot of other definitions is waited out.
    append_row(home.spark, home.settings.table("manifest"), replace(first, seq=4, parent=3, version="1/other"))
    request_refresh(home.settings.home_path)
    assert home.writer.tick() is False
    assert home.writer._emit("due", ["user:0"]) == 0
    assert home.rows() == rows


def test_people_whose_row_lapses_are_emitted_again(homes):
    home = homes(now_ms=NOW_MS + 10)
    home.archive([page(0, "user:a", at_ms=NOW_MS), page(1, "user:b", at_ms=NOW_MS + MINUTE_MS)], offsets(2))
    home.open()
    finish(home)
    rows = home.rows()
    assert {p: row["valid_until"] - NOW_MS for p, row in rows.items()} == {"user:a": HOUR_MS + 1, "user:b": MINUTE_MS + 1}
    assert [row["page_views_1h"] for row in rows.values()] == [1, 0]
    home.clock.now_ms = NOW_MS + MINUTE_MS + 1
    assert {p: row["stale"] for p, row in home.rows().items()} == {"user:a": False, "user:b": True}
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert [(row["batch"], row["page_views_1h"], row["stale"]) for row in rows.values()] == [(1, 1, False), (2, 1, False)]
    # Far beyond what was known ahead: both have left the window, and then nothing lapses any more.
    home.clock.now_ms = NOW_MS + 2 * HOUR_MS
    finish(home)
    rows = assert_equal_to_the_library(home)
    assert [(row["page_views_1h"], row["valid_until"]) for row in rows.values()] == [(0, None), (0, None)]
    finish(home)
    assert home.batches() == [1, 2, 3]


def test_permission_fails_closed(homes):
    home = homes(now_ms=NOW_MS + 10_000)
    home.archive([page(0, "user:yes", facts=GRANTED), page(1, "user:no")], offsets(2))
    home.open()

    def said(person: str = "user:yes") -> tuple:
        row = home.rows()[person]
        freshness = json.loads(row["record"])["freshness"]
        return row["sendable"], row["sendable_until"], freshness["state"], freshness["lag_ms"]

    def emit() -> None:
        assert home.writer._emit("due", ["user:yes", "user:no"]) == 2

    t = home.clock.now_ms
    emit()
    assert said() == (True, t + 60_000, "fresh", 0)
    assert said("user:no")[:2] == (False, None)
    # What was permitted lapses by itself.
    home.clock.now_ms = t + 60_000
    assert said()[0] is False
    # The log has gone on: the row lies as far back as the newest entry that it knows of.
    home.clock.now_ms = t
    home.end = offsets(3, 0, 0)
    emit()
    lag = t - (NOW_MS + 1)
    assert said() == (True, t + 60_000 - lag, "stale", lag)
    home.clock.now_ms = NOW_MS + 61_002
    emit()
    assert said() == (False, None, "stale", 61_001)
    # Nobody can tell how far the log has gone.
    home.end = None
    emit()
    assert said() == (False, None, "batch_only", None)
    assert json.loads(home.rows()["user:yes"]["record"])["sendable"]["reasons"] == ["state_batch_only"]


def test_one_writer_which_tells_after_a_start_what_it_missed(homes):
    home = homes()
    home.archive([page(n, f"user:{n}") for n in range(4)], offsets(4))
    home.open()
    with pytest.raises(SecondWriter, match="another personalize is running") as refused:
        take_writer(home.settings, "personalize")
    assert refused.value.exit_code == 3
    finish(home)
    home.archive([page(4, "user:1"), page(5, "user:8"), page(6, None, verdict="malformed", event_id=None, facts=())], offsets(7))
    home.open()
    rows = assert_equal_to_the_library(home)
    assert {person: row["batch"] for person, row in rows.items()} == dict.fromkeys(rows, 1) | {"user:1": 2, "user:8": 2}
    home.open()
    finish(home)
    assert home.batches() == [1, 2]


# --- the gate -------------------------------------------------------------------------------------------------------------------
def everyone_sendable(*arguments: Any) -> Any:
    rows = personalization_rows(*arguments)
    return rows.withColumn("sendable", F.lit(True)).withColumn("sendable_until", F.col("t") + 1)


def test_a_sample_that_the_gate_refuses_is_not_written(homes, monkeypatch):
    home = homes(gate="enforce")
    people = [f"user:{n}" for n in range(12)]
    home.archive([page(n, person) for n, person in enumerate(people)], offsets(12))
    home.open()
    finish(home)
    before = home.batches()
    place = reports_place(home.settings.table("manifest"))
    assert before and read_reports(place) == [], "a sample that is met needs no report"

    monkeypatch.setattr("twofold.spark.personalize.personalization_rows", everyone_sendable)
    home.archive([page(12, "user:3"), page(13, "user:4")], offsets(14))
    with pytest.raises(ValidationRefused, match=r"personalization\.sendable_needs_consent .*2 rows to blame") as refused:
        home.open()
    assert refused.value.exit_code == 3 and "user:" not in str(refused.value)
    assert home.batches() == before
    (report,) = read_reports(place)
    ((suite, check),) = report.failed()
    hashed = PersonHash(home.settings.home_path)
    assert (suite.rows, check.unexpected, check.positions) == (2, 2, ((0, 0, 13), (0, 0, 12), (0, 0, 4), (0, 0, 3)))
    assert set(check.persons) == {hashed("user:3"), hashed("user:4")}


def test_a_live_batch_that_the_gate_refuses_says_so(homes, monkeypatch):
    """Within the interval nothing is looked at; after it, the writer names what its callback died of."""
    home = homes(gate="enforce")
    home.archive([page(0, "user:0")], offsets(1))
    home.open()
    finish(home)
    monkeypatch.setattr("twofold.spark.personalize.personalization_rows", everyone_sendable)
    home.writer._prepared = None
    home.archive([page(1, "user:1")], offsets(2))
    home.live()
    assert home.rows()["user:1"]["batch"] == 2
    home.clock.now_ms += home.settings.gate.sample_interval_ms
    home.archive([page(2, "user:2")], offsets(3))
    with pytest.raises(ValidationRefused):
        home.live()
    assert isinstance(home.writer.died_of, ValidationRefused) and "user:2" not in home.rows()


# --- the table --------------------------------------------------------------------------------------------------------------------
def test_tidying_beside_appends_and_every_reader(spark, homes):
    home = homes(now_ms=NOW_MS + 10)
    people = [f"user:{n}" for n in range(5)]
    home.archive([page(n, person) for n, person in enumerate(people)], offsets(5))
    home.open()
    for _ in range(3):
        home.clock.now_ms += 1
        home.writer._emit("due", people)
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

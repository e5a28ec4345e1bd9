"""What stays and what goes: readable rows and pins, rollback's refusals, vacuum's bounds; on tables written without Spark."""

from __future__ import annotations

import contextlib
import threading
from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from tests.unit.manifests import TOPIC, VERSION, create_manifest, cut, new_version, nights, publish, row_of
from twofold.cli import main
from twofold.errors import ArchiveError, PublishConflict, RebuildRunning, RollbackRefused, StoreError, UsageError
from twofold.events import Entry
from twofold.settings import Settings
from twofold.stores.archive_requests import answer, ask_compact, ask_delete, wait_answer, waiting
from twofold.stores.listing import listing
from twofold.stores.lmdb_hot import LmdbHot
from twofold.stores.manifest import append_without_spark, current, rows
from twofold.stores.one_writer import take_writer
from twofold.stores.pins import read_pins, remove_pin, write_pin
from twofold.stores.readable import lowest_cut, pin_readable, readable, survey_manifest
from twofold.stores.rollback import roll_back, rollback_row
from twofold.stores.table_files import check_whole, stored_files
from twofold.stores.vacuum import vacuum
from twofold.timeline import DAY_MS, HOUR_MS, PartitionKey, Position

#: Long after every file that a test writes.
YEARS_LATER_MS = 4_000_000_000_000


@pytest.fixture
def home(tmp_path) -> Settings:
    """Five nights, of which the default keeps three."""
    return nights(tmp_path, 5)


def value_of(home: Settings, row) -> int:
    values = DeltaTable(home.table("state"), version=row.tables["state"]).to_pyarrow_table()["value"].to_pylist()
    return values[0]


# --- readable ---------------------------------------------------------------------------------------------------------------------
def test_pinned_rows_stay_readable_and_hold_the_cut_down(home):
    published = rows(home.table("manifest"))
    assert [row.seq for row in readable(published, 3)] == [3, 4, 5]
    assert [row.seq for row in readable(published, 3, {1, 9})] == [1, 3, 4, 5]
    assert lowest_cut(published, 3) == cut(30) and lowest_cut(published, 3, {1}) == cut(10)
    write_pin(home, 2)
    assert survey_manifest(home) == (cut(20), VERSION)


def test_only_a_readable_snapshot_can_be_pinned(home):
    pin_readable(home, 3)
    publish(home, 6)
    assert read_pins(home) == {3}
    with pytest.raises(UsageError, match="not readable any more"):
        pin_readable(home, 2)
    assert read_pins(home) == {3}
    remove_pin(home, 3)
    remove_pin(home, 3)
    assert not read_pins(home)


# --- rollback ---------------------------------------------------------------------------------------------------------------------
def test_a_rollback_is_one_more_row(home):
    before = rows(home.table("manifest"))
    row = roll_back(home, 3, VERSION, 77)
    assert row == replace(before[2], seq=6, parent=5, published_ms=77)
    assert rows(home.table("manifest")) == [*before, row] and current(home.table("manifest")) == row
    assert [(found.row.seq, found.current, found.readable, found.back_to) for found in listing(home)[:4]] == [
        (6, True, True, 3),
        (5, False, True, None),
        (4, False, True, None),
        (3, False, False, None),
    ]
    # And forward again; and a rollback to a row of a rollback is one to what it named.
    assert roll_back(home, 5, VERSION, 78).snapshot == before[4].snapshot
    assert roll_back(home, 6, VERSION, 79).tables == before[2].tables
    assert listing(home)[0].back_to == 3


def test_a_topic_that_was_named_since_stays_named(home):
    publish(home, 6, topics=(TOPIC, "topic-b"))
    assert roll_back(home, 5, VERSION, 77).topics == (TOPIC, "topic-b")


@pytest.mark.parametrize(("seq", "match"), [(9, "there is no snapshot 9"), (5, "is the current one already")])
def test_numbers_that_mean_nothing(home, seq, match):
    with pytest.raises(UsageError, match=match):
        roll_back(home, seq, VERSION, 77)


def refused(home: Settings, seq: int, match: str, version: str = VERSION) -> None:
    before = rows(home.table("manifest"))
    with pytest.raises(RollbackRefused, match=match):
        roll_back(home, seq, version, 77)
    assert rows(home.table("manifest")) == before and RollbackRefused.exit_code == 3


def test_what_is_not_readable_cannot_come_back(home):
    refused(home, 2, "readable are 3, 4, 5")
    write_pin(home, 2)
    assert roll_back(home, 2, VERSION, 77).tables == rows(home.table("manifest"))[1].tables


def test_another_definition_cannot_come_back(home):
    refused(home, 4, "made under definition 1/x, running is 2/y", "2/y")


def test_tables_that_were_removed_cannot_come_back(home):
    table = DeltaTable(home.table("state"), version=rows(home.table("manifest"))[3].tables["state"])
    (file,) = stored_files(home.table("state")).keys() & set(pa.table(table.get_add_actions())["path"].to_pylist())
    (home.home_path / "tables" / "state" / file).unlink()
    refused(home, 4, "1 of 1 files were removed by `twofold vacuum`")


def test_a_cut_below_the_hot_store_cannot_come_back(home):
    LmdbHot(home.hot_path, 1 << 20, cut(35)).close()
    refused(home, 3, "begins at 35 in partition 0, its cut is 30")
    assert roll_back(home, 4, VERSION, 77).cut == cut(40)


def test_a_file_is_not_built_again_while_a_rebuild_runs(home):
    (home.snapshots_path / "s00000004-test.lmdb").unlink()
    with take_writer(home, "batch"), pytest.raises(RebuildRunning):
        roll_back(home, 4, VERSION, 77)


def test_what_is_published_meanwhile_wins(home):
    row = rollback_row(home, 4, VERSION, 77)
    publish(home, 6)
    with pytest.raises(PublishConflict, match="row 6 is another writer's"):
        append_without_spark(home.table("manifest"), row)


def test_of_many_writers_of_one_number_one_wins(home):
    for seq in range(6, 11):
        start, won = threading.Barrier(4), []

        def write(number: int, seq: int = seq, start=start, won=won) -> None:
            start.wait()
            with contextlib.suppress(PublishConflict):
                won.append(append_without_spark(home.table("manifest"), row_of(seq, 0, snapshot=f"writer-{number}")))

        threads = [threading.Thread(target=write, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert won == [current(home.table("manifest"))]
    assert [row.seq for row in rows(home.table("manifest"))] == list(range(1, 11))


# --- vacuum -----------------------------------------------------------------------------------------------------------------------
def removed(home: Settings, now_ms: int = 0, dry_run: bool = False) -> dict[str, int]:
    return {one.place: one.files for one in vacuum(home, now_ms, dry_run)}


def test_vacuum_goes_to_the_readable_rows_and_no_further(home):
    published = rows(home.table("manifest"))
    write_pin(home, 1)
    assert removed(home, dry_run=True) == {"manifest": 0, "snapshots": 1, "state": 1}
    assert removed(home) == {"manifest": 0, "snapshots": 1, "state": 1}
    assert removed(home) == {"manifest": 0, "snapshots": 0, "state": 0}
    for row in published:
        if row.seq == 2:
            with pytest.raises(StoreError, match=r"version 1 of the table .* is not readable any more"):
                check_whole(home.table("state"), row.tables["state"])
        else:
            check_whole(home.table("state"), row.tables["state"])
            assert value_of(home, row) == row.seq
    assert {file.stem for file in home.snapshots_path.glob("*.lmdb")} == {row.snapshot for row in published if row.seq != 2}
    # A pin that is let go takes its files along.
    remove_pin(home, 1)
    assert removed(home) == {"manifest": 0, "snapshots": 1, "state": 1}


def test_what_a_rollback_names_stays(home):
    roll_back(home, 3, VERSION, 77)
    publish(home, 7)
    publish(home, 8)
    # Readable are 6 (= 3), 7 and 8.
    assert removed(home) == {"manifest": 0, "snapshots": 4, "state": 4}
    assert [value_of(home, row) for row in rows(home.table("manifest"))[5:]] == [3, 7, 8]


def test_a_rebuild_under_way_loses_nothing(home):
    """Versions above the newest published one, a file that no commit names yet, and a snapshot file of a row to come."""
    versions = [new_version(home, "state", number) for number in (6, 7)]
    folder = home.home_path / "tables" / "state"
    (folder / "part-in-flight.parquet").write_bytes(b"half")
    (folder / ".part-in-flight.parquet.crc").write_bytes(b"half")
    coming = home.snapshots_path / "s00000006-test.lmdb"
    coming.write_bytes(b"whole")
    assert removed(home) == {"manifest": 0, "snapshots": 2, "state": 2}
    for version in versions:
        check_whole(home.table("state"), version)
    assert (folder / "part-in-flight.parquet").exists() and coming.exists()
    # A day later it is what a dead rebuild left; the versions stay until a newer one is published.
    assert removed(home, YEARS_LATER_MS)["state"] == 1
    assert not list(folder.glob("*in-flight*")) and not list(folder.glob(".*in-flight*"))
    for version in versions:
        check_whole(home.table("state"), version)
    publish(home, 6, snapshot="s00000006-again")
    assert removed(home) == {"manifest": 0, "snapshots": 2, "state": 3}


def test_a_table_that_was_never_published_stays(tmp_path):
    home = Settings(home=str(tmp_path))
    assert vacuum(home, YEARS_LATER_MS) == []
    new_version(home, "state", 1)
    create_manifest(home)
    publish(home, 1)
    assert removed(home, YEARS_LATER_MS) == {"manifest": 0, "snapshots": 0, "state": 1}


def test_files_that_a_stream_may_still_read_stay(home):
    location = home.table("archive")
    for number in range(4):
        write_deltalake(location, pa.table({"offset": [number]}), mode="append")
    named = DeltaTable(location).version()
    publish(home, 6, archive_version=1)
    DeltaTable(location).optimize.compact()
    write_deltalake(location, pa.table({"offset": [4]}), mode="append")
    committed_ms = DeltaTable(location).history(1)[0]["timestamp"]
    window_ms = home.retention.stream_days * DAY_MS
    assert removed(home, committed_ms + window_ms - 1)["archive"] == 0
    # Two of the four small files stay for as long as the snapshot that was made from them.
    later = committed_ms + window_ms + home.retention.orphan_hours * HOUR_MS + DAY_MS
    assert removed(home, later)["archive"] == 2
    check_whole(location, 1)
    with pytest.raises(StoreError):
        check_whole(location, named)
    assert sorted(DeltaTable(location).to_pyarrow_table()["offset"].to_pylist()) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("chunk", [1, 2, 100])
def test_the_hot_store_is_trimmed_to_its_last_key(tmp_path, chunk):
    key = PartitionKey(TOPIC, 0)
    entries = [Entry(VERSION, TOPIC, 0, n, 0, "ok", f"user:{n % 2}", f"e{n}", 0) for n in range(5)]
    with LmdbHot(tmp_path / "hot", 1 << 20, cut(0)) as hot:
        hot.raise_high(hot.partition(key), 5, VERSION, 0)
        hot.commit([(entry, None) for entry in entries])
        assert hot.trim(cut(2), chunk) == 2
        assert {n: [e.offset for e in hot.view(f"user:{n}").entries] for n in (0, 1)} == {0: [2, 4], 1: [3]}
        assert hot.trim(cut(5), chunk) == 3 and not list(hot.persons())
        assert hot.trim(cut(5), chunk) == 0


# --- requests of the archive's writer ---------------------------------------------------------------------------------------------
def test_requests_are_served_in_order_and_answered_once(tmp_path):
    first = ask_delete(tmp_path, [Position("t", 1, 7), Position("t", 0, 5)])
    second = ask_compact(tmp_path)
    assert list(waiting(tmp_path)) == [
        (first, {"kind": "delete", "positions": [["t", 0, 5], ["t", 1, 7]]}),
        (second, {"kind": "compact"}),
    ]
    answer(tmp_path, first, {"ok": True, "deleted": 2})
    assert [request for request, _wanted in waiting(tmp_path)] == [second]
    assert wait_answer(tmp_path, first, 5, lambda: True) == {"deleted": 2}
    answer(tmp_path, second, {"ok": False, "error": "the disk is full"})
    with pytest.raises(ArchiveError, match="the disk is full"):
        wait_answer(tmp_path, second, 5, lambda: True)
    with pytest.raises(UsageError, match="1 to 10000"):
        ask_delete(tmp_path, [])


@pytest.mark.parametrize(("timeout_s", "served", "match"), [(60, False, "is not running any more"), (0, True, "did not answer")])
def test_a_request_that_nobody_answers_is_withdrawn(tmp_path, timeout_s, served, match):
    request = ask_compact(tmp_path)
    with pytest.raises(ArchiveError, match=match):
        wait_answer(tmp_path, request, timeout_s, lambda: served)
    assert not list(waiting(tmp_path))


# --- commands ---------------------------------------------------------------------------------------------------------------------
def test_the_commands_say_what_they_did(home, capsys):
    place = ["--home", home.home]
    assert main(["snapshots", *place]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in shown[2:]] == ["5", "4", "3", "2", "1"] and "current" in shown[2]
    assert main(["pin", "3", *place, "--json"]) == 0
    assert capsys.readouterr().out == '{"pinned":[3]}\n'
    assert main(["pin", "1", *place]) == 2
    assert main(["rollback", "2", *place]) == 3
    assert "not readable any more" in capsys.readouterr().err
    assert main(["vacuum", "--dry-run", "--json", *place]) == 0
    assert '{"dry_run":true,"place":"state","files":2,' in capsys.readouterr().out
    assert main(["compact", "state", *place]) == 2
    assert len(stored_files(home.table("state"))) == 5

"""Places: files whole or absent on disk and on S3, one writer a table, snapshots fetched whole, no secret in any text."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.s3 import BUCKET, object_store
from twofold.errors import HomeError, SecondWriter, SettingsError, StoreError, WriterFenced
from twofold.settings import Place, S3Settings, Settings, load_settings
from twofold.stores import one_writer
from twofold.stores.files import Folder, LocalFolder, S3Folder, folder
from twofold.stores.home_log import HomeLog, share_home_log, shared_home_log
from twofold.stores.one_writer import Writer, take_writer
from twofold.stores.places import client, hadoop_conf, open_table, storage_options, table_exists
from twofold.stores.snapshot_file import SnapshotFile, snapshot_path, write
from twofold.stores.snapshot_place import fetch_snapshot, publish_snapshot, remove_fetched, remove_published
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey
from twofold.views import ManifestRow, PersonSnapshot


@pytest.fixture(scope="module")
def store() -> Iterator[dict]:
    with object_store() as room:
        yield room


@pytest.fixture
def lake(store, tmp_path: Path) -> Callable[[str], Settings]:
    """Settings of a home whose places are on S3, under a prefix of this test."""
    places = {name: f"s3a://{BUCKET}/{tmp_path.name}/{name}" for name in ("tables", "checkpoints", "snapshots")}
    return lambda home: Settings.model_validate({"home": str(tmp_path / home), "s3": store, **places})


# --- where things lie -----------------------------------------------------------------------------------------------------------
def test_places_are_paths_in_the_home_unless_a_setting_says_otherwise(tmp_path) -> None:
    home = Settings(home=str(tmp_path), checkpoints="elsewhere", snapshots="/mnt/snapshots/")
    assert home.table("state") == f"{tmp_path}/tables/state"
    assert home.checkpoint("speed") == f"{tmp_path}/elsewhere/speed"
    assert home.snapshots_place == "/mnt/snapshots"
    assert not home.uses_s3 and hadoop_conf(home) == {}
    lake = Settings(home=str(tmp_path), tables="s3a://lake/tables/")
    assert lake.table("state") == "s3a://lake/tables/state" and lake.table("state").on_s3 and lake.uses_s3
    assert lake.snapshots_path == home.snapshots_path == tmp_path / "snapshots"


def test_another_scheme_is_refused_in_one_line() -> None:
    with pytest.raises(SettingsError, match=r"tables.*neither a path nor an s3a:// address"):
        load_settings(environ={}, tables="s3://lake/tables")


def test_spark_gets_names_of_variables_and_never_a_secret(monkeypatch) -> None:
    monkeypatch.setenv("LAKE_ID", "the-id")
    monkeypatch.setenv("LAKE_SECRET", "the-secret")
    room = {"access_key_variable": "LAKE_ID", "secret_key_variable": "LAKE_SECRET", "session_token_variable": "LAKE_TOKEN"}
    settings = Settings.model_validate({"tables": "s3a://lake/t", "s3": {**room, "endpoint": "http://127.0.0.1:1"}})
    conf = hadoop_conf(settings)
    assert conf["spark.hadoop.fs.s3a.secret.key"] == "${env.LAKE_SECRET}"
    assert conf["spark.hadoop.fs.s3a.connection.ssl.enabled"] == "false"
    assert "the-" not in f"{conf} {settings} {settings.table('state')!r}"
    options = storage_options(settings.s3)
    assert (options["AWS_ACCESS_KEY_ID"], options["AWS_SECRET_ACCESS_KEY"]) == ("the-id", "the-secret")
    monkeypatch.delenv("LAKE_SECRET")
    with pytest.raises(SettingsError, match="LAKE_ID is set, LAKE_SECRET is not"):
        hadoop_conf(settings)


def test_a_profile_and_a_role_need_no_variables(monkeypatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID", raising=False)
    role = hadoop_conf(Settings.model_validate({"tables": "s3a://lake/t"}))
    assert not [key for key in role if "key" in key or "provider" in key]
    profile = hadoop_conf(Settings.model_validate({"tables": "s3a://lake/t", "s3": {"profile": "mail"}}))
    assert profile["spark.hadoop.fs.s3a.auth.profile.name"] == "mail"


def test_a_table_on_s3_is_read_without_spark(lake) -> None:
    import pyarrow as pa
    from deltalake import write_deltalake

    location = lake("a").table("people")
    assert not table_exists(location)
    write_deltalake(location, pa.table({"n": [1, 2]}), storage_options=storage_options(location.s3))
    assert table_exists(location)
    assert open_table(location).to_pyarrow_table()["n"].to_pylist() == [1, 2]


# --- files ----------------------------------------------------------------------------------------------------------------------
@pytest.fixture(params=["disk", "s3"])
def files(request, tmp_path, store) -> Folder:
    if request.param == "disk":
        return folder(Place(str(tmp_path / "folder"), S3Settings()))
    return folder(Place(f"s3a://{BUCKET}/{tmp_path.name}", S3Settings(**store)))


def test_files_of_a_place(files: Folder, tmp_path: Path) -> None:
    assert isinstance(files, LocalFolder | S3Folder)
    assert files.read("a") is None and files.names() == files.names("sub") == [] and files.walk() == {}
    assert not files.get("a", tmp_path / "copy") and not (tmp_path / "copy").exists()
    files.write("a", b"one")
    files.write("a", b"two")
    files.write("sub/b", b"three")
    files.write("sub/deep/c", b"four")
    assert files.read("a") == b"two" and files.names() == ["a"] and files.names("sub") == ["b"]
    found = files.walk()
    assert {name: file.size_bytes for name, file in found.items()} == {"a": 3, "sub/b": 5, "sub/deep/c": 4}
    assert all(abs(file.written_ms - time.time() * 1000) < 600_000 for file in found.values())
    local = tmp_path / "local"
    local.write_bytes(b"x" * 100_000)
    files.put(local, "big")
    assert files.get("big", tmp_path / "back" / "big") and (tmp_path / "back" / "big").read_bytes() == local.read_bytes()
    assert [file.name for file in (tmp_path / "back").iterdir()] == ["big"]
    files.remove("sub")
    files.remove("nothing")
    assert files.create("once", b"mine") and not files.create("once", b"another's")
    assert files.read("once") == b"mine" and files.names() == ["a", "big", "once"]
    files.remove("once")
    assert files.names() == ["a", "big"] and files.read("sub/deep/c") is None


def test_a_copy_that_breaks_leaves_nothing(files: Folder, tmp_path: Path, store, monkeypatch) -> None:
    files.write("whole", b"x" * 100)
    local = tmp_path / "local"
    local.write_bytes(b"x" * 100)

    def half(target: str | Path, *_more) -> None:
        Path(target).write_bytes(b"x" * 50)
        raise OSError("the line is cut")

    monkeypatch.setattr("shutil.copyfile", lambda _source, target: half(target))
    monkeypatch.setattr(client(S3Settings(**store)), "download_file", lambda _bucket, _key, target: half(target), raising=False)
    with pytest.raises((OSError, StoreError), match="the line is cut"):
        files.get("whole", tmp_path / "back" / "whole")
    assert list((tmp_path / "back").iterdir()) == []
    if isinstance(files, LocalFolder):
        with pytest.raises(OSError, match="the line is cut"):
            files.put(local, "sent")
        assert files.names() == ["whole"]


def test_a_store_that_does_not_answer_is_one_line(store) -> None:
    place = Place("s3a://no-such-bucket/x", S3Settings(**store))
    with pytest.raises(StoreError, match=r"s3a://no-such-bucket/x/a: .*NoSuchBucket.*room s3") as error:
        folder(place).write("a", b"")
    assert "\n" not in str(error.value)


# --- one writer -----------------------------------------------------------------------------------------------------------------
def crash(writer: Writer) -> None:
    """What a kill -9 leaves: the lock is gone, the lease is not released and not renewed."""
    assert writer._lease is not None
    writer._lease._stop.set()
    writer._lock.release()


def test_a_second_writer_of_a_home_is_refused_and_the_next_is_not(tmp_path, lake) -> None:
    for settings in (Settings(home=str(tmp_path)), lake("a")):
        with take_writer(settings, "archive") as first:
            first.confirm()
            with pytest.raises(SecondWriter, match=r"another archive is running on .*: wait for it or stop it") as refused:
                take_writer(settings, "archive")
            assert refused.value.exit_code == 3
            take_writer(settings, "batch").close()
        take_writer(settings, "archive").close()


def test_a_second_home_is_refused_until_the_first_has_ended(lake) -> None:
    with take_writer(lake("a"), "archive"):
        with pytest.raises(SecondWriter, match=r"another archive is running on s3a://.*home .*/a\): stop it"):
            take_writer(lake("b"), "archive")
        # A refusal leaves nothing held.
        with pytest.raises(SecondWriter, match="on s3a://"):
            take_writer(lake("b"), "archive")
    with take_writer(lake("b"), "archive"):
        pass


def test_after_a_crash_the_same_home_goes_on_at_once_and_another_waits(lake, monkeypatch) -> None:
    crash(take_writer(lake("a"), "batch"))
    with pytest.raises(SecondWriter):
        take_writer(lake("b"), "batch")
    again = take_writer(lake("a"), "batch")
    again.confirm()
    crash(again)
    monkeypatch.setattr(one_writer, "_age_ms", lambda _answer: lake("b").s3.lease_ms + 3_000.0)
    take_writer(lake("b"), "batch").close()


def test_a_writer_that_slept_through_its_lease_is_fenced(lake, monkeypatch) -> None:
    sleeper = take_writer(lake("a"), "batch")
    monkeypatch.setattr(one_writer, "_age_ms", lambda _answer: 1e9)
    successor = take_writer(lake("b"), "batch")
    with pytest.raises(WriterFenced, match="another batch has taken over s3a://") as fenced:
        sleeper.confirm()
    assert fenced.value.exit_code == 3 and sleeper.lost
    # Its end releases nothing of the other's.
    sleeper.close()
    successor.confirm()
    successor.close()


def test_a_renewal_whose_answer_was_lost_is_ours(lake, monkeypatch) -> None:
    with take_writer(lake("a"), "batch") as writer:
        write_if = S3Folder.write_if

        def answer_lost(self, name, data, **condition):
            write_if(self, name, data, **condition)
            return

        monkeypatch.setattr(S3Folder, "write_if", answer_lost)
        writer.confirm()
        monkeypatch.undo()
        writer.confirm()


def test_the_age_of_a_lease_is_read_on_the_stores_clock() -> None:
    then = datetime(2031, 1, 1, 12, 0, 0, tzinfo=UTC)
    headers = {"date": (then + timedelta(seconds=7)).strftime("%a, %d %b %Y %H:%M:%S GMT")}
    assert one_writer._age_ms({"LastModified": then, "ResponseMetadata": {"HTTPHeaders": headers}}) == 7_000


# --- snapshots ------------------------------------------------------------------------------------------------------------------
ROW = ManifestRow(1, "s00000001-a", EMPTY_OFFSETS, "1/x")
BLOB = PersonSnapshot({"orders_lifetime": 3}).pack()


def build(home: Settings, snapshot: str = ROW.snapshot) -> None:
    write(snapshot_path(home.snapshots_path, snapshot), snapshot, [("user:1", BLOB)])
    publish_snapshot(home, snapshot)


@pytest.fixture(params=["disk", "s3"])
def homes(request, lake, tmp_path) -> tuple[Settings, Settings]:
    """A home that builds and one that serves."""
    if request.param == "s3":
        return lake("builds"), lake("serves")
    return tuple(Settings(home=str(tmp_path / name), snapshots=str(tmp_path / "shared")) for name in ("builds", "serves"))


def in_home(home: Settings) -> set[str]:
    return {file.name for file in home.snapshots_path.rglob("*") if file.is_file()} - {"fetch.lock"}


def test_a_snapshot_is_fetched_once_and_old_ones_go(homes) -> None:
    builds, serves = homes
    with pytest.raises(StoreError, match=r"s00000001-a\.lmdb is missing"):
        fetch_snapshot(serves, ROW)
    build(builds)
    file = fetch_snapshot(serves, ROW)
    with_first = SnapshotFile(file, ROW)
    folder(builds.snapshots_place).remove(file.name)
    assert fetch_snapshot(serves, ROW) == file and in_home(serves) == {file.name}
    build(builds, "s00000002-b")
    fetch_snapshot(serves, ManifestRow(2, "s00000002-b", EMPTY_OFFSETS, "1/x"))
    remove_fetched(serves, {"s00000002-b"})
    assert in_home(serves) == {"s00000002-b.lmdb"}
    # Whoever holds the old one goes on reading it.
    assert with_first.person("user:1") is not None
    with_first.close()
    folder(builds.snapshots_place).write("s00000009-dead.lmdb.1.partial", b"half")
    remove_published(builds, {"s00000002-b"})
    assert folder(builds.snapshots_place).names() == ["s00000002-b.lmdb"] and in_home(builds) == {"s00000002-b.lmdb"}


def test_the_file_of_another_snapshot_is_refused(homes) -> None:
    builds, serves = homes
    build(builds, "s00000007-other")
    wrong = snapshot_path(builds.snapshots_path, "s00000007-other")
    folder(builds.snapshots_place).put(wrong, f"{ROW.snapshot}.lmdb")
    with pytest.raises(StoreError, match="is not of snapshot s00000001-a"):
        fetch_snapshot(serves, ROW)
    assert not snapshot_path(serves.snapshots_path, ROW.snapshot).exists()


def test_a_killed_fetch_leaves_nothing_half(homes) -> None:
    builds, serves = homes
    build(builds)
    # The process dies by kill -9 with half of the bytes written.
    script = """
import os, shutil, signal, sys
from pathlib import Path
from twofold.settings import Settings
from twofold.stores import files, places
from twofold.stores.snapshot_place import fetch_snapshot
from twofold.timeline import EMPTY_OFFSETS
from twofold.views import ManifestRow
def half(target, data):
    Path(target).write_bytes(data[: len(data) // 2])
    os.kill(os.getpid(), signal.SIGKILL)
settings = Settings.model_validate_json(sys.argv[1])
shutil.copyfile = lambda source, target: half(target, Path(source).read_bytes())
if settings.snapshots_place.on_s3:
    client = places.client(settings.s3)
    client.download_file = lambda bucket, key, target: half(target, client.get_object(Bucket=bucket, Key=key)["Body"].read())
fetch_snapshot(settings, ManifestRow(1, sys.argv[2], EMPTY_OFFSETS, "1/x"))
"""
    command = [sys.executable, "-c", script, serves.model_dump_json(), ROW.snapshot]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    file = snapshot_path(serves.snapshots_path, ROW.snapshot)
    assert not file.exists() and len(in_home(serves)) == 1
    assert fetch_snapshot(serves, ROW) == file and in_home(serves) == {file.name}
    with_it = SnapshotFile(file, ROW)
    assert with_it.person("user:1") is not None
    with_it.close()


# --- the log that homes share -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("where", ["disk", "s3"])
def test_homes_that_share_tables_share_the_log_start(where, lake, tmp_path) -> None:
    def home(name: str) -> Settings:
        return lake(name) if where == "s3" else Settings(home=str(tmp_path / name), tables=str(tmp_path / "tables"))

    first, second = (HomeLog("t", Offsets({PartitionKey("t", 0): n}), n) for n in (5, 9))
    with pytest.raises(HomeError, match="has no log yet"):
        shared_home_log(home("serves"))
    assert share_home_log(home("a"), first) == first
    # The log has moved on meanwhile: what the first home saw counts.
    assert share_home_log(home("b"), second) == first
    assert shared_home_log(home("serves")) == first
    assert json.loads((home("serves").home_path / "home.json").read_text())["created_ms"] == 5

"""A home whose tables, checkpoints and snapshots lie on S3: the archive stream, the batch, a node that only serves, one writer."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import pairwise

import pytest

from tests.e2e.conftest import wait_for
from tests.s3 import BUCKET, object_store
from twofold.catalogue import VERSION
from twofold.errors import RebuildRunning, SecondWriter, StoreError, WriterFenced
from twofold.kafka.home import ensure_home
from twofold.kafka.produce import send
from twofold.kafka.topics import create_topics, log_offsets
from twofold.local.broker import Broker
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.spark import maintain
from twofold.spark.archive import start_archive
from twofold.spark.batch import rebuild
from twofold.spark.published import append_row
from twofold.stores import one_writer
from twofold.stores.archive_entries import archive_entries
from twofold.stores.archive_log import archive_end, committed_ranges
from twofold.stores.files import folder
from twofold.stores.manifest import current, rows
from twofold.stores.one_writer import release_writers, take_writer
from twofold.stores.places import hadoop_conf, open_table
from twofold.stores.rollback import roll_back
from twofold.stores.table_files import check_whole
from twofold.stores.vacuum import vacuum
from twofold.testing.oracle import by_person, record_of, winners
from twofold.timeline import DAY_MS, HOUR_MS

pytestmark = [pytest.mark.spark, pytest.mark.slow]

_LINE = (
    b'{"event_id":"e%d","type":"track","name":"Product Viewed","user_id":"u%d",'
    b'"occurred_at":"2026-06-01T00:00:%02dZ","properties":{"product_id":"p%d"}}'
)


def lines(start: int, count: int) -> list[bytes]:
    return [_LINE % (n, n % 5, n % 60, n % 7) for n in range(start, start + count)]


@pytest.fixture(scope="module")
def lake(tmp_path_factory) -> Iterator[Callable[[str], Settings]]:
    """Settings of homes that share places on S3 and a broker."""
    root = tmp_path_factory.mktemp("lake")
    broker_home = Settings(home=str(root / "broker"))
    broker = Broker(broker_home)
    process = broker.start()
    with object_store() as room:
        broker.wait_ready(process, 120)
        places = {name: f"s3a://{BUCKET}/{name}" for name in ("tables", "checkpoints", "snapshots")}
        kafka = {"bootstrap_servers": f"127.0.0.1:{_port(broker)}", "partitions": 2}
        create_topics(Settings.model_validate({"home": str(root / "broker"), "kafka": kafka}))

        def home(name: str) -> Settings:
            data = {
                "home": str(root / name),
                "s3": room,
                "kafka": kafka,
                "archive": {"trigger_ms": 100},
                "batch": {"wide_tables": False},
                **places,
            }
            return Settings.model_validate(data)

        yield home
        release_writers()
    Broker.stop(process)


def _port(broker: Broker) -> int:
    return int(json.loads(broker.record.read_text(encoding="utf-8"))["port"])


@pytest.fixture(scope="module")
def on_s3(spark, lake):
    """The session of all tests, with the properties that `open_session` gives one of its own."""
    conf = {key.removeprefix("spark.hadoop."): value for key, value in hadoop_conf(lake("writes")).items()}
    assert conf["fs.s3a.access.key"] == "${env.AWS_ACCESS_KEY_ID}"
    for key, value in conf.items():
        spark.conf.set(key, value)
    yield spark
    for key in conf:
        spark.conf.unset(key)


def archive_all(spark, settings: Settings) -> None:
    """The archive stream from where it stands to the log end."""
    query = start_archive(spark, settings)
    try:
        end = log_offsets(settings)[1]
        wait_for(lambda: archive_end(settings.table("archive")).covers(end) or not query.isActive, 120, "archive")
        assert query.isActive, query.exception()
        wait_for(lambda: "Waiting" in query.status["message"], 60, "the commit of the last batch")
    finally:
        query.stop()


def test_archive_batch_and_a_node_that_only_serves(on_s3, lake) -> None:
    writes, serves = lake("writes"), lake("serves")
    ensure_home(writes)
    send(writes, lines(0, 40))
    archive_all(on_s3, writes)
    send(writes, [*lines(40, 20), b"no json", *lines(0, 3)])
    archive_all(on_s3, writes)

    location = writes.table("archive")
    entries = list(archive_entries(location, VERSION))
    assert len(entries) == 64 and max(Counter(e.position for e in entries).values()) == 1, "lost or doubled over the restart"
    ranges = committed_ranges(location)
    assert all(before.end == after.start for before, after in pairwise(ranges)) and ranges[-1].end == log_offsets(writes)[1]
    assert len({commit.get("appId") for commit in open_table(location).history() if commit.get("appId")}) <= 1
    assert folder(writes.checkpoint("archive")).read("twofold-generation.json") is not None
    assert not (writes.home_path / "checkpoints").exists() and not (writes.home_path / "tables").exists()

    row = rebuild(on_s3, writes)
    assert row == current(writes.table("manifest")) and row.counts["persons"] == 5
    assert folder(writes.snapshots_place).names() == [f"{row.snapshot}.lmdb"]
    truth = by_person(winners(entries, row.topics))
    t = row.as_of_ms
    with Reader(serves) as reader:
        found = {record.person: record for record in reader.records(at=t)}
        assert reader.snapshot == row
    assert found.keys() == truth.keys()
    for person, record in found.items():
        assert record.values == record_of(person, truth[person], t)["values"]
        assert record.freshness.state == "batch_only" and not record.sendable.ok


def test_a_second_driver_is_refused_and_a_fenced_one_publishes_nothing(on_s3, lake, monkeypatch) -> None:
    writes, other = lake("writes"), lake("other")
    before = rows(writes.table("manifest"))
    # The archive stream of this process still holds its table.
    with pytest.raises(SecondWriter, match="another archive is running on s3a://"):
        take_writer(other, "archive")
    with take_writer(writes, "batch"), pytest.raises(RebuildRunning, match="another rebuild is running on s3a://"):
        rebuild(on_s3, other)

    def overtaken(step: str) -> None:
        if step == "state":
            monkeypatch.setattr(one_writer, "_age_ms", lambda _answer: 1e9)
            take_writer(other, "batch").close()

    with pytest.raises(WriterFenced, match="another rebuild has taken over"):
        rebuild(on_s3, writes, report=overtaken)
    assert rows(writes.table("manifest")) == before


def test_rollback_and_vacuum_where_only_spark_may_write(on_s3, lake) -> None:
    writes = lake("writes")
    (first,) = rows(writes.table("manifest"))
    append_row(on_s3, writes.table("manifest"), replace(first, seq=2, snapshot="s00000002-bad", parent=1))
    with pytest.raises(StoreError, match="written by Spark only"):
        roll_back(writes, 1, VERSION, 77)
    row = maintain.roll_back(on_s3, writes, 1)
    assert row == replace(first, seq=3, parent=2, published_ms=row.published_ms) == current(writes.table("manifest"))
    state = folder(writes.table("state"))
    state.write("part-dead.parquet", b"half")
    names = {name for name in state.walk() if name.endswith(".parquet")}
    now_ms = row.published_ms
    assert {one.place: one.files for one in vacuum(writes, now_ms)}["state"] == 0
    later_ms = now_ms + writes.retention.orphan_hours * HOUR_MS + DAY_MS
    assert {one.place: one.files for one in vacuum(writes, later_ms)}["state"] == 1
    assert {name for name in state.walk() if name.endswith(".parquet")} == names - {"part-dead.parquet"}
    check_whole(writes.table("state"), row.tables["state"])

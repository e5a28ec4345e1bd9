"""Rollback, vacuum and the archive's door on tables that Spark writes: alone, and all at once with readers beside them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from dataclasses import replace

import pytest
from deltalake import DeltaTable

from tests.spark.test_batch import TOPIC, archive_row, assert_published, commit, offsets, page
from twofold.catalogue import CATALOGUE, CONSENT_PRIMARIES
from twofold.errors import PublishConflict, PublishRefused, TwofoldError, UsageError
from twofold.events import FactBody
from twofold.features import Catalogue
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.spark.archive_door import ArchiveDoor
from twofold.spark.batch import rebuild
from twofold.spark.cut import chained_cut
from twofold.spark.maintain import compact_archive, compact_manifest
from twofold.spark.published import append_row
from twofold.stores.archive_entries import archive_entries
from twofold.stores.archive_log import archive_end, committed_ranges
from twofold.stores.archive_requests import answered, ask_compact, ask_delete, waiting
from twofold.stores.home_log import HomeLog, read_home_log, write_home_log
from twofold.stores.manifest import append_without_spark, current, rows
from twofold.stores.readable import readable
from twofold.stores.rollback import roll_back
from twofold.stores.snapshot_file import snapshot_path
from twofold.stores.table_files import check_whole, stored_files
from twofold.stores.vacuum import vacuum
from twofold.testing.strategies import NOW_MS
from twofold.timeline import PartitionKey, Position

pytestmark = pytest.mark.spark

_NAMES = ("orders_lifetime", *CONSENT_PRIMARIES)
FEW = Catalogue([CATALOGUE.primaries[name] for name in _NAMES], [CATALOGUE.features["orders_lifetime"]])
T = NOW_MS + 1


def new_home(folder, **settings) -> Settings:
    home = Settings.model_validate({"home": str(folder), "segments": {"file": ""}, **settings})
    write_home_log(home.home_path, HomeLog(TOPIC, offsets(0, 0, 0), 1))
    return home


def order(offset: int):
    return page(offset, facts=(FactBody("order", amount_minor=1, currency="USD"),))


def archive_one(spark, home: Settings, offset: int) -> None:
    commit(spark, home, [archive_row(order(offset))], offsets(offset, 0, 0), offsets(offset + 1, 0, 0))


def orders_below(row) -> int:
    return row.cut[PartitionKey(TOPIC, 0)]


# --- rollback ---------------------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def nights(spark, tmp_path_factory) -> Settings:
    """A home with two nights."""
    home = new_home(tmp_path_factory.mktemp("nights"), batch={"wide_tables": False})
    for offset in range(2):
        archive_one(spark, home, offset)
        rebuild(spark, home, catalogue=FEW)
    return home


def test_back_to_a_snapshot_whose_file_is_gone_and_on_from_there(spark, nights):
    first, _second = rows(nights.table("manifest"))
    snapshot_path(nights.snapshots_path, first.snapshot).unlink()
    row = roll_back(nights, 1, FEW.version, 77)
    assert row == replace(first, seq=3, parent=2, published_ms=77)
    assert_published(nights, row, [order(0)], FEW)
    with Reader(nights, catalogue=FEW) as reader:
        assert reader.record("user:1", T).values["orders_lifetime"] == 1
        archive_one(spark, nights, 2)
        later = rebuild(spark, nights, catalogue=FEW)
        assert (later.seq, later.parent) == (4, 3) and later.cut == offsets(3, 0, 0)
        assert_published(nights, later, [order(n) for n in range(3)], FEW)
        reader.refresh()
        assert reader.record("user:1", T).values["orders_lifetime"] == 3


def test_one_of_two_writers_of_a_number_wins_whoever_writes(spark, nights):
    """Spark's publish and the one without Spark, at the same moment: one row a number, and only its writer is told so."""
    manifest = nights.table("manifest")
    winners = Counter()
    for seq in range(5, 11):
        row = replace(current(manifest), seq=seq, parent=seq - 1, published_ms=seq)
        start, won = threading.Barrier(2), {}

        def write(name: str, append, row=row, start=start, won=won) -> None:
            start.wait()
            with contextlib.suppress(PublishConflict):
                won[name] = append(replace(row, snapshot=f"{name}-{row.seq}"))

        writers = {"spark": lambda row: append_row(spark, manifest, row), "plain": lambda row: append_without_spark(manifest, row)}
        threads = [threading.Thread(target=write, args=writer) for writer in writers.items()]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert list(won.values()) == [current(manifest)]
        winners.update(won.keys())
    assert [row.seq for row in rows(manifest)] == list(range(1, 11))


def test_the_manifest_is_compacted_and_read_on(spark, nights):
    before = rows(nights.table("manifest"))
    done = compact_manifest(spark, nights)
    assert done["removed"] > done["added"] == 1
    assert rows(nights.table("manifest")) == before
    row = append_row(spark, nights.table("manifest"), replace(before[-1], seq=11, published_ms=11))
    assert rows(nights.table("manifest")) == [*before, row]


# --- the archive's door -----------------------------------------------------------------------------------------------------------
def test_the_door_serves_beside_an_appending_stream(spark, tmp_path):
    """Every DELETE succeeds, whatever is appended meanwhile; the chain of offsets and streams over the table go on."""
    home = new_home(tmp_path)
    location = home.table("archive")
    door = ArchiveDoor(spark, home, lambda: None)
    for offset in range(2):
        archive_one(spark, home, offset)
    read: list[int] = []

    def stream_on() -> None:
        source = spark.readStream.format("delta").option("skipChangeCommits", "true").load(location)
        query = (
            source.writeStream.foreachBatch(lambda frame, _batch: read.extend(r.offset for r in frame.select("offset").collect()))
            .option("checkpointLocation", str(tmp_path / "stream"))
            .trigger(availableNow=True)
            .start()
        )
        query.awaitTermination()

    stream_on()
    appended = 2
    serving = threading.Event()

    def append() -> None:
        nonlocal appended
        while not serving.is_set():
            with door.changing():
                archive_one(spark, home, appended)
            appended += 1

    appender = threading.Thread(target=append)
    appender.start()
    try:
        answers = []
        for offset in range(2):
            request = ask_delete(home.home_path, [Position(TOPIC, 0, offset), Position(TOPIC, 1, offset)])
            compaction = ask_compact(home.home_path) if offset == 1 else None
            assert door.serve() == (2 if compaction else 1)
            answers.append(answered(home.home_path, request))
            if compaction:
                assert answered(home.home_path, compaction)["removed"] > 1
    finally:
        serving.set()
        appender.join()
    assert answers == [{"deleted": 1}] * 2 and not list(waiting(home.home_path))
    assert appended > 2
    left = sorted(entry.offset for entry in archive_entries(location, "1/x"))
    assert left == list(range(2, appended))
    log = read_home_log(home.home_path)
    assert chained_cut(committed_ranges(location), log) == offsets(appended, 0, 0) == archive_end(location)
    stream_on()
    assert sorted(read) == list(range(appended))
    kinds = Counter(commit["operation"] for commit in DeltaTable(location).history())
    assert kinds["DELETE"] == 2 and kinds["OPTIMIZE"] == 1
    # What the door cannot do, the one who asked hears.
    request = ask_delete(home.home_path, [Position(TOPIC, 0, 4)])
    fenced = ArchiveDoor(spark, home, lambda: (_ for _ in ()).throw(UsageError("another has taken over")))
    assert fenced.serve() == 1
    with pytest.raises(TwofoldError, match="another has taken over"):
        answered(home.home_path, request)
    # Without a stream the same requests are served by a job.
    archive_one(spark, home, appended)
    assert compact_archive(spark, home)["removed"] > 1
    assert chained_cut(committed_ranges(location), log) == archive_end(location)


# --- all at once ------------------------------------------------------------------------------------------------------------------
class Race:
    """Threads over one home until the last night is published; what a reader of a readable row could not read is kept."""

    def __init__(self, spark, home: Settings, nights: int) -> None:
        self.spark, self.home, self.nights = spark, home, nights
        self.over = threading.Event()
        self.lost: list[str] = []
        self.done = Counter()

    def run(self) -> None:
        work = (self.batches, self.rollbacks, self.vacuums, self.read_records, self.read_tables)
        threads = [threading.Thread(target=self._guarded, args=(one,)) for one in work]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _guarded(self, work) -> None:
        try:
            work()
        except BaseException as error:
            self.lost.append(f"{work.__name__}: {type(error).__name__}: {error}")
            self.over.set()

    def batches(self) -> None:
        offset = 1
        while self.done["published"] < self.nights and not self.over.is_set():
            archive_one(self.spark, self.home, offset)
            offset += 1
            try:
                rebuild(self.spark, self.home, catalogue=FEW)
                self.done["published"] += 1
            except PublishRefused:
                self.done["refused"] += 1
        self.over.set()

    def rollbacks(self) -> None:
        """After every other night, at whatever the next one is doing then."""
        seen = current(self.home.table("manifest")).seq
        # A pace only: the processors are the batch's.
        while not self.over.wait(0.1):
            published = rows(self.home.table("manifest"))
            if published[-1].seq < seen + 2:
                continue
            with contextlib.suppress(PublishRefused, UsageError):
                seen = roll_back(self.home, published[-2].seq, FEW.version, seen).seq
                self.done["rolled back"] += 1

    def vacuums(self) -> None:
        while not self.over.wait(0.1):
            self.done["removed"] += sum(one.files for one in vacuum(self.home, NOW_MS))

    def read_records(self) -> None:
        with Reader(self.home, catalogue=FEW) as reader:
            while not self.over.is_set():
                held = reader.snapshot
                self._read(held, lambda: reader.record("user:1", T).values["orders_lifetime"], "record")
                with self._may_be_gone(current(self.home.table("manifest"))):
                    reader.refresh()

    def read_tables(self) -> None:
        while not self.over.is_set():
            for row in self._readable():
                with self._may_be_gone(row):
                    self._read(row, lambda row=row: self._orders_in_state(row), "table")

    def _orders_in_state(self, row) -> int:
        state = DeltaTable(self.home.table("state"), version=row.tables["state"]).to_pyarrow_table(columns=["recent"])
        return sum(len(recent) for recent in state["recent"].to_pylist())

    def _read(self, row, value, what: str) -> None:
        found = value()
        if found != orders_below(row):
            self.lost.append(f"{what} of row {row.seq}: {found} instead of {orders_below(row)}")
        self.done[what] += 1

    def _readable(self):
        return readable(rows(self.home.table("manifest")), self.home.batch.keep_snapshots)

    @contextlib.contextmanager
    def _may_be_gone(self, row):
        """Only what is not readable any more by now may have been removed."""
        try:
            yield
        except Exception as error:
            if row.seq in {kept.seq for kept in self._readable()}:
                self.lost.append(f"row {row.seq} is readable and was not read: {error}")


def test_batch_rollback_and_vacuum_beside_readers_lose_nothing(spark, tmp_path):
    home = new_home(tmp_path, batch={"keep_snapshots": 2, "wide_tables": False})
    archive_one(spark, home, 0)
    rebuild(spark, home, catalogue=FEW)
    race = Race(spark, home, nights=4)
    race.run()
    assert not race.lost
    assert all(race.done[what] for what in ("published", "rolled back", "removed", "record", "table")), race.done
    published = rows(home.table("manifest"))
    assert [row.seq for row in published] == list(range(1, 2 + race.done["published"] + race.done["rolled back"]))
    vacuum(home, NOW_MS)
    kept = readable(published, 2)
    for row in kept:
        check_whole(home.table("state"), row.tables["state"])
    # Nothing is left but what they name, and what the last rebuild that was refused wrote.
    assert len({file.stem for file in home.snapshots_path.glob("*.lmdb")} - {row.snapshot for row in kept}) <= 1
    assert len(stored_files(home.table("state"))) <= 2 * (len(kept) + 1)

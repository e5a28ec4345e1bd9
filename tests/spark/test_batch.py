"""The nightly rebuild on archive tables written by hand: what it publishes equals plain Python, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import DeltaTable
from filelock import FileLock
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings

from twofold.catalogue import CATALOGUE
from twofold.columns import FactColumns, facts_of, id_hash
from twofold.errors import ArchiveError, CutRefused, EmptyArchiveError, PublishConflict, RebuildRunning
from twofold.events import ADMISSION_VERSION, Entry, FactBody, admit, make_entry
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark.batch import rebuild
from twofold.spark.published import append_row, write_version
from twofold.spark.tables import ARCHIVE_COLUMNS, create_archive
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.manifest import current, rows
from twofold.stores.snapshot_file import SnapshotFile, snapshot_path
from twofold.testing.strategies import NOW_MS, histories, log_end, raw_lines
from twofold.timeline import DAY_MS, Offsets, PartitionKey, Position

pytestmark = pytest.mark.spark

TOPIC = "topic-a"
SCHEMA = ",".join(f"{name} {type_}" for name, type_, _comment in ARCHIVE_COLUMNS)
#: For what does not depend on the features: compiling the whole catalogue is most of a small rebuild.
FEW = Catalogue([CATALOGUE.primaries[name] for name in ("orders_lifetime", "revenue_lifetime", "last_order")], [])
BODY = ("kind", "product", "category", "campaign", "amount_minor", "currency", "quantity", "key", "value")


def offsets(*ends: int, topic: str = TOPIC) -> Offsets:
    return Offsets({PartitionKey(topic, partition): end for partition, end in enumerate(ends)})


@pytest.fixture
def home(tmp_path) -> Settings:
    write_home_log(tmp_path, HomeLog(TOPIC, offsets(0, 0, 0), 1))
    # The wide tables and the gate have tests of their own; here they would only take time.
    return Settings(home=str(tmp_path), batch={"wide_tables": False}, gate={"mode": "off"})


def archive_row(entry: Entry, value: bytes = b"{}", version: int = ADMISSION_VERSION) -> tuple:
    facts = [tuple(getattr(fact, name) for name in BODY) for fact in entry.facts] if entry.verdict == "ok" else None
    columns = {
        **{name: getattr(entry, name) for name, _t, _c in ARCHIVE_COLUMNS if hasattr(entry, name)},
        **{"facts": facts, "value": value, "admission_version": version, "key": None, "headers": []},
    }
    return tuple(columns[name] for name, _type, _comment in ARCHIVE_COLUMNS)


def commit(spark, home: Settings, archived: list[tuple], start: Offsets, end: Offsets) -> None:
    """One commit of the archive stream; the transaction makes an empty one a commit too."""
    create_archive(spark, home.table("archive"))
    metadata = json.dumps({"start": start.to_json(), "end": end.to_json(), "app": "archive-test", "batch": 0})
    frame = spark.createDataFrame(archived, SCHEMA).coalesce(1)
    # Under an application id, as the stream writes: without one Delta leaves out a commit without rows.
    writer = frame.write.format("delta").mode("append").option("userMetadata", metadata).option("txnAppId", "archive-test")
    writer.option("txnVersion", DeltaTable(home.table("archive")).version()).save(home.table("archive"))


def page(offset: int, person: str = "user:1", partition: int = 0, **changes) -> Entry:
    entry = Entry(
        "1/x",
        TOPIC,
        partition,
        offset,
        NOW_MS + offset,
        "ok",
        person,
        f"e{offset}",
        NOW_MS,
        "web",
        None,
        (FactBody("page", key="/"),),
    )
    return Entry(**{**{name: getattr(entry, name) for name in entry.__struct_fields__}, **changes})


# --- the plain recomputation --------------------------------------------------------------------------------------------------
def plain_state(entries: list[Entry], horizon_ms: int, topics=(TOPIC,), catalogue=CATALOGUE) -> dict[str, tuple]:
    """person -> (older states that are not zero, sorted hashes, recent winners by (event time, id), retracted hashes)."""
    best: dict[tuple, Entry] = {}
    for entry in sorted(entries, key=lambda e: (e.broker_ms, topics.index(e.topic_id), e.partition, e.offset)):
        if entry.verdict == "ok":
            best.setdefault((entry.person, entry.event_id), entry)
    gone: dict[str, set[str]] = {}
    for entry in entries:
        if entry.verdict == "ok" and entry.target is not None:
            gone.setdefault(entry.person, set()).add(entry.target)
    people: dict[str, list[Entry]] = {}
    for (person, event_id), entry in best.items():
        won = people.setdefault(person, [])
        if event_id not in gone.get(person, ()):
            won.append(entry)
    out = {}
    for person, won in people.items():
        old = [entry for entry in won if entry.at_ms < horizon_ms]
        facts = [fact for entry in old for fact in facts_of(entry)]
        states = {p.name: p.state.fold(filter(p.select.holds, facts)) for p in catalogue.lifetime}
        older = {p.name: states[p.name] for p in catalogue.lifetime if states[p.name] != p.state.zero()}
        new = sorted((entry for entry in won if entry.at_ms >= horizon_ms), key=lambda e: (e.at_ms, e.event_id))
        out[person] = (older, sorted(id_hash(e.event_id) for e in old), new, sorted(map(id_hash, gone.get(person, ()))))
    return out


def decoded(older: dict) -> dict:
    return {name: CATALOGUE.primaries[name].state.decode(data) for name, data in older.items()}


def entry_of(element: dict, person: str) -> Entry:
    facts = tuple(FactBody(**fact) for fact in element["facts"])
    plain = {name: element[name] for name in ("event_id", "at_ms", "broker_ms", "partition", "offset", "channel", "device")}
    return Entry(version="1/x", topic_id=TOPIC, verdict="ok", person=person, facts=facts, **plain)


def assert_published(home: Settings, row, entries: list[Entry], catalogue: Catalogue = CATALOGUE) -> None:
    """`state` and the snapshot file hold exactly what plain Python makes of the entries."""
    expected = plain_state(entries, row.horizon_ms, catalogue=catalogue)
    table = DeltaTable(home.table("state"), version=row.tables["state"]).to_pyarrow_table()
    assert sorted(table["person"].to_pylist()) == sorted(expected)
    snapshot = SnapshotFile(snapshot_path(home.snapshots_path, row.snapshot), row)
    assert list(snapshot.persons()) == sorted(expected, key=str.encode)
    for found in table.select(["person", "older_json", "older_ids", "retracted_ids", "recent"]).to_pylist():
        person = found["person"]
        older, ids, recent, retracted = expected[person]
        assert found["retracted_ids"] == retracted == snapshot.person(person).retracted_ids.tolist()
        assert decoded(json.loads(found["older_json"])) == older
        assert found["older_ids"] == ids
        as_drawn = [Entry(**{**{n: getattr(e, n) for n in e.__struct_fields__}, "version": "1/x"}) for e in recent]
        assert [entry_of(element, person) for element in found["recent"]] == as_drawn
        assert {element["topic"] for element in found["recent"]} <= {0}
        part = snapshot.person(person)
        assert decoded(part.older) == older and part.older_ids.tolist() == ids
        assert part.recent.facts() == FactColumns.of_entries([(entry, 0) for entry in recent]).facts()
    snapshot.close()
    won = [entry for _older, _ids, recent, _retracted in expected.values() for entry in recent]
    winners = len(won) + sum(len(ids) for _older, ids, _recent, _retracted in expected.values())
    ok = len({entry.position for entry in entries if entry.verdict == "ok"})
    targets = {(entry.person, entry.target) for entry in entries if entry.verdict == "ok" and entry.target is not None}
    nothing = targets - {(entry.person, entry.event_id) for entry in entries if entry.verdict == "ok"}
    assert (row.counts["retractions"], row.counts["retractions_of_nothing"]) == (len(targets), len(nothing))
    winners += row.counts["retracted"]
    assert row.counts["entries"] == len({entry.position for entry in entries})
    assert row.counts["ok"] == ok and row.counts["duplicates"] == ok - winners and row.counts["persons"] == len(expected)
    for reason in {entry.verdict for entry in entries} - {"ok"}:
        assert row.counts[f"rejected_{reason}"] == len({e.position for e in entries if e.verdict == reason})


def drawn_logs(examples: int, seed_entries: int = 25) -> list[Entry]:
    """Many generated histories as one log: persons renamed, positions renumbered, everything else as drawn."""
    log: list[Entry] = []

    @hypothesis_settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(histories(max_entries=seed_entries))
    def draw(drawn: list[Entry]) -> None:
        number = len(log)
        ends = log_end(log)
        for entry in drawn:
            offset = ends.next(PartitionKey(entry.topic_id, entry.partition)) + entry.offset
            person = None if entry.person is None else f"{entry.person}/{number}"
            log.append(Entry(**{**{n: getattr(entry, n) for n in entry.__struct_fields__}, "offset": offset, "person": person}))

    draw()
    return log


# --- what is published --------------------------------------------------------------------------------------------------------
def test_random_histories_twice(spark, home):
    log = drawn_logs(60)
    middle = Offsets({key: end // 2 for key, end in log_end(log).items()})
    first = [entry for entry in log if middle.holds(entry.position)]
    rest = [entry for entry in log if not middle.holds(entry.position)]
    start = offsets(0, 0, 0)
    steps: list[str] = []
    commit(spark, home, [archive_row(e) for e in first], start, start.join(middle))

    row = rebuild(spark, home, report=steps.append, now_ms=lambda: 77)
    assert steps == ["pin", "state", "snapshot", "manifest", "done"]
    assert (row.seq, row.parent, row.published_ms, row.version) == (1, None, 77, CATALOGUE.version)
    assert row.cut == start.join(middle) and row.topics == (TOPIC,)
    assert row.as_of_ms == row.cut_time_ms == max(entry.broker_ms for entry in first)
    assert row.horizon_ms == CATALOGUE.horizon(row.as_of_ms, home.batch.late_grace_days)
    assert_published(home, row, first)

    # A second night: more entries, an entry archived twice, another instant; the first snapshot stays as it was.
    commit(spark, home, [archive_row(e) for e in rest[:-3]] + [archive_row(rest[0])], start.join(middle), start.join(log_end(log)))
    later = rebuild(spark, home, as_of_ms=NOW_MS)
    assert (later.seq, later.parent, later.as_of_ms) == (2, 1, NOW_MS)
    assert current(home.table("manifest")) == later
    assert_published(home, later, [*first, *rest[:-3]])
    assert_published(home, row, first)


def test_rows_of_another_admission_version_are_judged_again(spark, home):
    lines: list[bytes] = [b"not json", b"{}", '{"event_id":"é","user_id":"1","type":"page","occurred_at":1735732800000}'.encode()]

    @hypothesis_settings(max_examples=20, suppress_health_check=list(HealthCheck))
    @given(raw_lines())
    def draw(drawn: list[bytes]) -> None:
        lines.extend(line.rstrip(b"\n") for line in drawn)

    draw()
    broker_ms = NOW_MS + 6 * DAY_MS
    true = [make_entry("1/x", Position(TOPIC, 0, n), broker_ms, line) for n, line in enumerate(lines)]
    assert {"ok", "malformed"} <= {entry.verdict for entry in true}
    wrong = [page(n, "user:wrong", broker_ms=broker_ms) for n in range(len(lines))]
    archived = [
        archive_row(true[n], line) if n % 2 else archive_row(wrong[n], line, version=ADMISSION_VERSION - 1)
        for n, line in enumerate(lines)
    ]
    commit(spark, home, archived, offsets(0, 0, 0), offsets(len(lines), 0, 0))
    row = rebuild(spark, home)
    assert_published(home, row, true)
    assert admit(lines[2], broker_ms).person == "user:1"


def test_only_what_lies_below_the_cut(spark, home):
    entries = [page(n) for n in range(5)]
    commit(spark, home, [archive_row(e) for e in entries], offsets(0, 0, 0), offsets(3, 0, 0))
    row = rebuild(spark, home, catalogue=FEW)
    assert_published(home, row, entries[:3], FEW)
    assert row.cut_time_ms == NOW_MS + 2


def test_the_horizon_splits_at_its_millisecond(spark, home):
    horizon = CATALOGUE.horizon(NOW_MS, home.batch.late_grace_days)
    entries = [page(n, at_ms=horizon + n - 1) for n in range(3)]
    entries.append(page(3, "user:only-old", at_ms=horizon - 1, facts=(FactBody("order", amount_minor=0, currency="USD"),)))
    entries.append(page(4, "user:only-new", at_ms=horizon))
    commit(spark, home, [archive_row(e) for e in entries], offsets(0, 0, 0), offsets(5, 0, 0))
    row = rebuild(spark, home, as_of_ms=NOW_MS)
    assert_published(home, row, entries)
    state = {r["person"]: r for r in DeltaTable(home.table("state")).to_pyarrow_table().to_pylist()}
    assert state["user:only-new"]["older_json"] == "{}" and state["user:only-new"]["older_ids"] == []
    assert json.loads(state["user:only-old"]["older_json"])["revenue_lifetime"] == {"USD": 0}
    assert state["user:only-old"]["recent"] == []


def test_state_is_typed_and_readable_without_spark(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    rebuild(spark, home)
    schema = DeltaTable(home.table("state")).to_pyarrow_table().schema
    older = schema.field("older").type
    assert [older.field(i).name for i in range(older.num_fields)] == [p.name for p in CATALOGUE.lifetime]
    assert older.field("revenue_lifetime").type == pa.map_(pa.string(), pa.decimal128(38, 0))
    protocol = DeltaTable(home.table("state")).protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)


def test_a_table_without_rows_is_a_version_too(spark, home):
    nothing = spark.createDataFrame([], "person string")
    versions = [write_version(nothing, home.table("nothing"), f"s{number}") for number in range(3)]
    assert versions == [0, 1, 2]


# --- refusals -----------------------------------------------------------------------------------------------------------------
def refused(spark, home, error, match) -> None:
    before = rows(home.table("manifest"))
    with pytest.raises(error, match=match):
        rebuild(spark, home, catalogue=FEW)
    assert rows(home.table("manifest")) == before


def test_an_empty_archive_publishes_nothing(spark, home):
    refused(spark, home, EmptyArchiveError, "no archive")
    create_archive(spark, home.table("archive"))
    refused(spark, home, EmptyArchiveError, "no entry")
    commit(spark, home, [], offsets(0, 0, 0), offsets(0, 0, 0))
    refused(spark, home, EmptyArchiveError, "no entry")
    assert EmptyArchiveError.exit_code == 1


def test_ranges_that_do_not_chain(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    commit(spark, home, [archive_row(page(2))], offsets(2, 0, 0), offsets(3, 0, 0))
    refused(spark, home, ArchiveError, "does not chain: partition 0 of version 2 starts at 2, the end of version 1 is 1")


def test_ranges_that_overlap(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(2, 0, 0))
    commit(spark, home, [archive_row(page(1))], offsets(1, 0, 0), offsets(3, 0, 0))
    refused(spark, home, ArchiveError, "does not chain")


def test_a_chain_that_begins_after_the_log_start(spark, home):
    commit(spark, home, [archive_row(page(1))], offsets(1, 0, 0), offsets(2, 0, 0))
    refused(spark, home, ArchiveError, "starts at 1, the log start is 0")


def test_another_topic(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    commit(spark, home, [], offsets(0, 0, 0, topic="topic-b"), offsets(1, 0, 0, topic="topic-b"))
    refused(spark, home, CutRefused, "recreated")
    assert CutRefused.exit_code == 3


def test_a_partition_that_vanished(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    commit(spark, home, [], offsets(1, 0), offsets(1, 0))
    refused(spark, home, CutRefused, "lacks partition 2")


def test_what_is_refused_writes_no_state(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    commit(spark, home, [archive_row(page(2))], offsets(2, 0, 0), offsets(3, 0, 0))
    refused(spark, home, ArchiveError, "does not chain")
    assert not DeltaTable.is_deltatable(home.table("state")) and not home.snapshots_path.exists()
    assert ArchiveError.exit_code == 1


def test_a_cut_that_goes_backwards(spark, home):
    commit(spark, home, [archive_row(page(n)) for n in range(3)], offsets(0, 0, 0), offsets(3, 0, 0))
    row = rebuild(spark, home, catalogue=FEW)
    append_row(spark, home.table("manifest"), replace(row, seq=2, snapshot="ahead", cut=offsets(4, 0, 0)))
    refused(spark, home, CutRefused, "goes backwards: partition 0 is at 3, the last snapshot at 4")
    append_row(spark, home.table("manifest"), replace(row, seq=3, snapshot="wider", cut=offsets(1, 0, 0, 0)))
    refused(spark, home, CutRefused, "lacks partition 3")


def test_new_partitions_and_maintenance_commits_are_no_break(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    commit(spark, home, [archive_row(page(1))], offsets(1, 0, 0), offsets(2, 0, 0))
    spark.sql(f"OPTIMIZE delta.`{home.table('archive')}`")
    entries = [page(0), page(1), page(2), page(0, "user:2", 3)]
    commit(spark, home, [archive_row(e) for e in entries[2:]], offsets(2, 0, 0, 0), offsets(3, 0, 0, 1))
    commit(spark, home, [], offsets(3, 0, 0, 1), offsets(3, 0, 0, 1))
    row = rebuild(spark, home, catalogue=FEW)
    assert row.cut == offsets(3, 0, 0, 1)
    assert_published(home, row, entries, FEW)


def test_one_rebuild_at_a_time(spark, home):
    with FileLock(str(home.home_path / "batch.lock")):
        refused(spark, home, RebuildRunning, "another rebuild is running")
    assert RebuildRunning.exit_code == 3


def test_another_writer_of_the_manifest(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    first = rebuild(spark, home, catalogue=FEW)
    other = replace(first, seq=2, snapshot="other", published_ms=5)

    def publish_first(step: str) -> None:
        if step == "manifest":
            append_row(spark, home.table("manifest"), other)

    with pytest.raises(PublishConflict, match="row 2 is another writer's"):
        rebuild(spark, home, report=publish_first, catalogue=FEW)
    assert current(home.table("manifest")) == other and PublishConflict.exit_code == 3


# --- crashes ------------------------------------------------------------------------------------------------------------------
class Crash(Exception):
    pass


def test_a_crash_at_every_step(spark, home):
    """A rebuild that dies publishes nothing unless its row was there; the next one clears away what it left."""
    end = 1
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    serving = [rebuild(spark, home, catalogue=FEW)]
    for crash_at in ("pin", "state", "snapshot", "manifest", "done"):
        commit(spark, home, [archive_row(page(end))], offsets(end, 0, 0), offsets(end + 1, 0, 0))
        end += 1

        def crash(step: str, at: str = crash_at) -> None:
            if step == at:
                raise Crash

        with pytest.raises(Crash):
            rebuild(spark, home, report=crash, catalogue=FEW)
        published = rows(home.table("manifest"))
        assert published[: len(serving)] == serving and len(published) == len(serving) + (crash_at == "done")
        serving = published
        for row in serving:
            assert_published(home, row, [page(n) for n in range(row.cut[PartitionKey(TOPIC, 0)])], FEW)
    for left in ("s00000009-dead.partial", "s00000009-dead.partial-lock", "s00000003-dead.lmdb"):
        (home.snapshots_path / left).write_bytes(b"half")
    row = rebuild(spark, home, catalogue=FEW)
    assert row.seq == 3
    assert_published(home, row, [page(n) for n in range(end)], FEW)
    assert {file.stem for file in home.snapshots_path.iterdir()} == {old.snapshot for old in rows(home.table("manifest"))}


def test_old_snapshot_files_go_unless_a_readable_row_names_them(spark, home):
    commit(spark, home, [archive_row(page(0))], offsets(0, 0, 0), offsets(1, 0, 0))
    manifest, keep = home.table("manifest"), home.batch.keep_snapshots
    first = rebuild(spark, home, catalogue=FEW)
    again = rebuild(spark, home, catalogue=FEW)
    for seq in range(3, 3 + keep):
        append_row(spark, manifest, replace(first, seq=seq, snapshot=f"s{seq:08d}-x"))
    # A rollback: the newest row names an old snapshot.
    append_row(spark, manifest, replace(again, seq=3 + keep))
    row = rebuild(spark, home, catalogue=FEW)
    assert (row.seq, row.parent) == (4 + keep, 3 + keep)
    kept = {path.stem for path in home.snapshots_path.iterdir()}
    assert kept == {again.snapshot, row.snapshot}, "the first was in no readable row"

"""The two streams as real processes against a real broker: nothing lost, nothing doubled, whatever is thrown at them or killed."""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from deltalake import DeltaTable
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from twofold.catalogue import VERSION
from twofold.events import ADMISSION_VERSION, Entry, decode_entry, make_entry
from twofold.kafka.address import broker_address
from twofold.kafka.facts_tail import facts_tail
from twofold.kafka.home import ensure_home
from twofold.kafka.topics import create_topics, events_topic, grow_partitions, log_offsets
from twofold.local.broker import Broker, wait_until
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.settings import Settings
from twofold.stores.archive_entries import archive_entries
from twofold.stores.archive_log import archive_end, committed_ranges, quarantine
from twofold.stores.archive_requests import ask_compact, ask_delete, wait_answer
from twofold.stores.ready import read_ready, ready_file
from twofold.testing.hostile import corpus
from twofold.testing.hostile_values import event
from twofold.timeline import Offsets, Position

pytestmark = [pytest.mark.e2e, pytest.mark.spark, pytest.mark.slow]

_PARTITIONS = 3
_PATIENCE_S = 240


class System:
    """One home with a broker, and streams that are started and killed one by one."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.broker = Broker(settings)
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.sent = 0
        self.partitions = _PARTITIONS

    def start(self, job: str, **environment: str) -> None:
        log = self.settings.home_path / "logs" / f"{job}.log"
        ready_file(self.settings.home_path, job).unlink(missing_ok=True)
        command = spark_submit(job, "--home", str(self.settings.home_path))
        with log.open("ab") as out:
            self.running[job] = subprocess.Popen(
                command,
                stdout=out,
                stderr=out,
                cwd=ROOT,
                env={**child_environment(), "TWOFOLD_KAFKA__PARTITIONS": str(_PARTITIONS), **environment},
                start_new_session=True,
            )
        self.until(lambda: read_ready(self.settings.home_path, job) is not None, job)

    def stop(self, job: str, number: signal.Signals = signal.SIGTERM) -> None:
        process = self.running.pop(job)
        # It may have died by itself: that was told by whoever waited for it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        process.wait(60)

    def kill(self, job: str) -> None:
        self.stop(job, signal.SIGKILL)

    def until(self, condition: Callable[[], bool], job: str) -> None:
        process = self.running[job]
        wait_until(condition, lambda: process.poll() is None, _PATIENCE_S, job, self.settings.home_path / "logs" / f"{job}.log")

    def send(self, values: list[bytes | None]) -> None:
        """Values round robin over the partitions, as they are; waits for every acknowledgement."""
        producer = KafkaProducer(
            bootstrap_servers=broker_address(self.settings), acks="all", max_request_size=4 * 1024 * 1024, max_block_ms=60_000
        )
        futures = []
        for value in values:
            futures.append(
                producer.send(
                    self.settings.kafka.events_topic,
                    key=None if self.sent % 5 == 0 else b"k%d" % self.sent,
                    value=value,
                    headers=[("n", b"%d" % self.sent)],
                    partition=self.sent % self.partitions,
                )
            )
            self.sent += 1
        for future in futures:
            future.get(timeout=60)
        producer.close()

    def read(self, topic: str) -> Iterator[object]:
        """Every record that the topic holds now."""
        consumer = KafkaConsumer(
            bootstrap_servers=broker_address(self.settings), isolation_level="read_committed", enable_auto_commit=False
        )
        places = [TopicPartition(topic, p) for p in range(self.partitions)]
        consumer.assign(places)
        consumer.seek_to_beginning()
        ends = consumer.end_offsets(places)
        while any(consumer.position(place) < ends[place] for place in places):
            for records in consumer.poll(timeout_ms=500, max_records=5_000).values():
                yield from records
        consumer.close()

    def log_end(self) -> Offsets:
        return log_offsets(self.settings)[1]

    def expected(self) -> dict[Position, Entry]:
        """The log admitted by plain Python."""
        topic_id = ensure_home(self.settings).topic_id
        out = {}
        for record in self.read(self.settings.kafka.events_topic):
            position = Position(topic_id, record.partition, record.offset)
            out[position] = make_entry(VERSION, position, record.timestamp, record.value)
        return out

    def facts(self) -> Counter[Entry]:
        """What speed wrote, with how often; each message must be in its entry's partition."""
        out: Counter[Entry] = Counter()
        for record in self.read(self.settings.kafka.facts_topic):
            entry = decode_entry(record.value)
            assert entry.partition == record.partition
            assert (record.key or b"k")[:1] == b"k"
            out[entry] += 1
        return out

    def facts_cover(self, end: Offsets) -> bool:
        # Looks at the newest messages only; what is missing further back, the checks find.
        return facts_tail(self.settings, events_topic(self.settings), 50).covers(end)

    def archived(self) -> list[Entry]:
        return list(archive_entries(self.settings.table("archive"), VERSION))


@pytest.fixture(scope="module")
def system(tmp_path_factory) -> Iterator[System]:
    home = tmp_path_factory.mktemp("streams")
    settings = Settings.model_validate({"home": str(home), "kafka": {"partitions": _PARTITIONS}})
    system = System(settings)
    process = system.broker.start()
    system.broker.wait_ready(process, 120)
    create_topics(settings)
    ensure_home(settings)
    yield system
    for job in list(system.running):
        system.kill(job)
    Broker.stop(process)


def entries(count: int, seed: int) -> list[bytes | None]:
    rng = random.Random(seed)
    return [
        event(event_id=f"e-{seed}-{n}", user_id=f"u{rng.randrange(50)}", properties={"path": f"/{rng.randrange(9)}"})
        for n in range(count)
    ]


def hostile_values() -> list[bytes | None]:
    """The corpus in an order of its own, and entries without a value."""
    values: list[bytes | None] = [None, *(value for _name, value in corpus()), None]
    random.Random(5).shuffle(values)
    return values


def check_facts(system: System) -> None:
    expected, facts = system.expected(), system.facts()
    assert {entry.position: entry for entry in facts} == expected
    # A replay repeats an entry word for word or not at all.
    assert len(facts) == len(expected) == system.sent
    rejected = sum(entry.verdict != "ok" for entry in facts)
    assert 0 < rejected < len(facts)


def check_archive(system: System) -> None:
    expected, rows = system.expected(), system.archived()
    positions = Counter(row.position for row in rows)
    assert not [position for position, count in positions.items() if count > 1], "doubled"
    assert positions.keys() == expected.keys(), "lost or invented"
    assert {row.position: row for row in rows} == expected
    location = system.settings.table("archive")
    reached = ensure_home(system.settings).log_start
    for one in committed_ranges(location):
        assert one.start == reached
        assert one.end.covers(one.start)
        reached = one.end
    assert reached == archive_end(location) == system.log_end()
    rejected = [row for row in expected.values() if row.verdict != "ok"]
    assert sum(1 for _ in quarantine(location)) == len(rejected)
    assert {row["verdict"] for row in quarantine(location, "schema")} == {"schema"}


def archive_passes(system: System) -> None:
    end = system.log_end()
    system.until(lambda: archive_end(system.settings.table("archive")).covers(end), "archive")


def facts_pass(system: System) -> None:
    end = system.log_end()
    system.until(lambda: system.facts_cover(end), "speed")


def test_speed_through_hostile_entries_and_kill(system):
    system.send(entries(500, 1))
    system.start("speed")
    system.send(hostile_values())
    system.kill("speed")
    system.send(entries(500, 2))
    system.start("speed")
    system.send(entries(500, 3))
    facts_pass(system)
    system.stop("speed")
    check_facts(system)


def test_speed_from_a_lost_checkpoint_repeats_and_loses_nothing(system):
    system.start("speed", TWOFOLD_SPEED__START_FROM="checkpoint", TWOFOLD_SPEED__MODE="microbatch")
    system.send(entries(300, 4))
    facts_pass(system)
    system.kill("speed")
    before = sum(system.facts().values())
    shutil.rmtree(system.settings.checkpoint("speed"))
    system.send(entries(300, 5))
    system.start("speed", TWOFOLD_SPEED__START_FROM="checkpoint", TWOFOLD_SPEED__MODE="microbatch")
    facts_pass(system)
    system.stop("speed")
    check_facts(system)
    assert sum(system.facts().values()) == before + system.sent


def test_archive_through_hostile_entries_and_kill(system):
    # The log holds the corpus: the first batch is full of it.
    system.start("archive")
    system.send(entries(500, 6))
    system.kill("archive")
    system.send(entries(500, 7))
    system.start("archive")
    archive_passes(system)
    system.stop("archive")
    check_archive(system)


def test_archive_whose_newest_commit_file_is_gone_writes_nothing_twice(system):
    commits = Path(system.settings.checkpoint("archive")) / "commits"
    newest = max((file for file in commits.iterdir() if file.name.isdigit()), key=lambda file: int(file.name))
    newest.unlink()
    (commits / f".{newest.name}.crc").unlink(missing_ok=True)
    before = DeltaTable(system.settings.table("archive")).version()
    system.start("archive")
    system.until(newest.exists, "archive")
    assert DeltaTable(system.settings.table("archive")).version() == before
    system.send(entries(100, 8))
    archive_passes(system)
    system.stop("archive")
    check_archive(system)


def test_archive_whose_checkpoint_is_gone_goes_on_at_the_committed_end(system):
    shutil.rmtree(system.settings.checkpoint("archive"))
    system.send(entries(200, 9))
    system.start("archive")
    archive_passes(system)
    system.stop("archive")
    check_archive(system)
    location = system.settings.table("archive")
    assert len(set(_apps(location))) == 2


def _apps(location: str) -> list[str]:
    return [json.loads(c["userMetadata"])["app"] for c in DeltaTable(location).history() if c.get("userMetadata")]


def test_the_archive_keeps_what_was_sent_and_stays_readable(system):
    table = DeltaTable(system.settings.table("archive"))
    protocol = table.protocol()
    assert (protocol.min_reader_version, protocol.min_writer_version) == (1, 2)
    rows = table.to_pyarrow_table(columns=["partition", "offset", "key", "value", "headers", "admission_version"]).to_pylist()
    assert {row["admission_version"] for row in rows} == {ADMISSION_VERSION}
    by_place = {(row["partition"], row["offset"]): row for row in rows}
    for record in system.read(system.settings.kafka.events_topic):
        row = by_place[(record.partition, record.offset)]
        assert (row["key"], row["value"]) == (record.key, record.value)
        assert [(h["key"], h["value"]) for h in row["headers"]] == record.headers


def test_the_archive_deletes_and_compacts_when_it_is_asked_to(system):
    """From here on the archive is not the whole log any more."""
    home, location = system.settings.home_path, system.settings.table("archive")
    doomed = sorted(row.position for row in system.archived())[:2]
    system.start("archive")
    system.send(entries(300, 12))
    asked = [ask_delete(home, doomed), ask_compact(home)]
    deleted, compacted = (wait_answer(home, request, _PATIENCE_S, lambda: True) for request in asked)
    assert deleted == {"deleted": 2} and compacted["removed"] > compacted["added"]
    archive_passes(system)
    # An idle stream answers too, and what is gone is gone.
    assert wait_answer(home, ask_delete(home, doomed), _PATIENCE_S, lambda: True) == {"deleted": 0}
    system.send(entries(100, 13))
    archive_passes(system)
    system.stop("archive")
    assert {row.position for row in system.archived()} == system.expected().keys() - set(doomed)
    reached = ensure_home(system.settings).log_start
    for one in committed_ranges(location):
        assert one.start == reached
        reached = one.end
    assert reached == archive_end(location) == system.log_end()


def test_speed_reads_a_partition_that_the_topic_grew(system):
    system.start("speed")
    system.partitions += 1
    grow_partitions(system.settings, system.partitions)
    system.send(entries(80, 10))
    facts_pass(system)
    system.stop("speed")
    check_facts(system)
    assert any(entry.partition == system.partitions - 1 for entry in system.facts())

"""A home whose layers come as far as a test says, written without Spark; and drawn logs to fill it with."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from random import Random

from tests.unit.manifests import TOPIC, create_manifest, new_version, write_archive
from twofold.catalogue import CATALOGUE, VERSION
from twofold.events import ADMISSION_VERSION, Entry, encode_entry, make_entry
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.stores import snapshot_file
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.lmdb_hot import LmdbHot
from twofold.stores.manifest import append_without_spark, current
from twofold.stores.readable import survey_manifest
from twofold.testing.nights import rebuild
from twofold.testing.script import START_MS, draw_script
from twofold.timeline import Offsets, PartitionKey, Position
from twofold.views import empty_manifest

KEYS = (PartitionKey(TOPIC, 0), PartitionKey(TOPIC, 1))
START = Offsets(dict.fromkeys(KEYS, 0))
#: Largest size of a hot store; it is sparse.
_MAP_BYTES = 1 << 28


class LayeredHome:
    """A home whose layers come as far as a test says, in entries of the log: `hot`, `archive`, nights."""

    def __init__(self, folder: Path, log: list[Entry], values: dict[Position, bytes] | None = None, **settings) -> None:
        self.settings = Settings.model_validate({"home": str(folder), "segments": {"file": ""}, **settings})
        self.log, self.values = log, values or {}
        self.archived = self.followed = 0
        self.now = START_MS
        write_home_log(folder, HomeLog(TOPIC, START, START_MS))
        create_manifest(self.settings)

    def grace(self, days: int) -> None:
        batch = self.settings.batch.model_copy(update={"late_grace_days": days})
        self.settings = self.settings.model_copy(update={"batch": batch})

    def end(self, count: int) -> Offsets:
        ends = dict(START)
        for entry in self.log[:count]:
            ends[PartitionKey(TOPIC, entry.partition)] = entry.offset + 1
        return Offsets(ends)

    def follow(self, count: int) -> None:
        self.now = max(self.now, self.log[count - 1].broker_ms)
        with LmdbHot(self.settings.hot_path, _MAP_BYTES, START) as hot:
            for key, end in self.end(count).items():
                hot.raise_high(hot.partition(key), end, VERSION, self.now)
            hot.beat(self.now, self.end(count))
            hot.commit([(entry, encode_entry(entry)) for entry in self.log[self.followed : count]])
        self.followed = count

    def archive(self, count: int, admission_version: int = ADMISSION_VERSION) -> None:
        new = self.log[self.archived : count]
        said = self.end(self.archived), self.end(count), lambda entry: self.values.get(entry.position, b"")
        write_archive(self.settings, new, *said, admission_version)
        self.archived = count

    def night(self, count: int, log: list[Entry] | None = None) -> None:
        parent = current(self.settings.table("manifest")) or empty_manifest(START, VERSION)
        name = f"s{parent.seq + 1:08d}-test"
        log, grace_days = self.log if log is None else log, self.settings.batch.late_grace_days
        snapshot = rebuild(CATALOGUE, VERSION, log, self.end(count), parent, name, late_grace_days=grace_days)
        row = replace(snapshot.row, tables={"state": new_version(self.settings, "state", parent.seq + 1)}, published_ms=self.now)
        blobs = ((person, snapshot.blobs[person]) for person in snapshot.persons())
        snapshot_file.write(snapshot_file.snapshot_path(self.settings.snapshots_path, name), name, blobs)
        append_without_spark(self.settings.table("manifest"), replace(row, parent=parent.seq or None))

    def trim(self) -> None:
        cut = survey_manifest(self.settings)[0]
        assert cut is not None
        with LmdbHot(self.settings.hot_path, _MAP_BYTES, START) as hot:
            hot.trim(cut)

    def reader(self, **options) -> Reader:
        return Reader(self.settings, clock=lambda: self.now, **options)


def drawn_log(seed: int) -> tuple[list[Entry], dict[Position, bytes]]:
    """A hundred and more entries of a drawn history: late, copied, re-stamped, rejected, in two partitions."""
    rng, steps = Random(seed), draw_script(seed, 200).steps
    times = accumulate((step.wait_ms for step in steps), initial=START_MS)
    log, values, offsets = [], {}, [0, 0]
    for number, (step, at_ms) in enumerate(zip(steps, list(times)[1:], strict=True)):
        # Beside the few whom everything happens to, one who is seen once.
        once = {"type": "page", "event_id": "once", "user_id": f"once-{number}", "occurred_at": at_ms - 5_000}
        for person, value in [*step.values, *([(0, json.dumps(once).encode())] if number % 9 == 0 else [])]:
            partition = person % 2 if rng.random() < 0.7 else rng.randrange(2)
            position = Position(TOPIC, partition, offsets[partition])
            offsets[partition] += 1
            log.append(make_entry(VERSION, position, at_ms + (-1500, 700)[partition], value))
            values[position] = value
    assert len(log) > 80
    return log, values

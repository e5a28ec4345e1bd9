"""Records under a pin, written as JSON lines: from the hot store, then, once that is trimmed, from one pass over `archive`.

The home is made without Spark: a snapshot of ``--persons`` persons with 20 recent entries each, and two entries a person above its
cut. Both exports are held to each other, byte for byte. ``cpu``: the process's own time, which others on the machine do not
lengthen so much.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec

from tests.bench.people import entries
from tests.unit.manifests import create_manifest, new_version, write_archive
from twofold.catalogue import CONSENT_FEATURES, VERSION
from twofold.columns import FactColumns
from twofold.events import Entry, encode_entry
from twofold.local.record_files import write_records
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.stores.home_log import HomeLog, write_home_log
from twofold.stores.lmdb_hot import LmdbHot
from twofold.stores.manifest import append_without_spark
from twofold.stores.snapshot_file import snapshot_path, write
from twofold.timeline import DAY_MS, Offsets, PartitionKey
from twofold.views import ManifestRow, PersonSnapshot

TOPIC = "topic-a"
KEYS = [PartitionKey(TOPIC, partition) for partition in range(4)]
T = 1_780_000_000_000
RECENT, HOT = 20, 2
#: Persons of one kind: folding them costs what folding different ones does.
KINDS = 200


def _names(persons: int) -> Iterator[str]:
    return (f"user:{number:07d}" for number in range(persons))


def _hot(persons: int, cut: int) -> list[Entry]:
    """``HOT`` entries a person, at positions from ``cut`` on in each partition."""
    kinds = [entries(kind, 0, HOT, T, TOPIC) for kind in range(KINDS)]
    out: list[Entry] = []
    for number, person in enumerate(_names(persons)):
        for entry in kinds[number % KINDS]:
            place = len(out)
            out.append(msgspec.structs.replace(entry, person=person, partition=place % 4, offset=cut + place // 4))
    return out


def make_home(folder: Path, persons: int) -> tuple[Settings, Offsets, Offsets]:
    """The settings of a home, its cut and its log's end."""
    settings = Settings(home=str(folder))
    cut = Offsets(dict.fromkeys(KEYS, persons * RECENT // 4))
    log = _hot(persons, cut[KEYS[0]])
    end = Offsets({key: 1 + max(e.offset for e in log[key.partition :: 4]) for key in KEYS})
    write_home_log(folder, HomeLog(TOPIC, Offsets(dict.fromkeys(KEYS, 0)), T))
    create_manifest(settings)
    kinds = []
    for kind in range(KINDS):
        columns = FactColumns.of_entries((entry, 0) for entry in entries(1_000 + kind, 0, RECENT, T, TOPIC))
        kinds.append(PersonSnapshot({"orders_lifetime": 3}, recent=columns).pack())
    write(
        snapshot_path(settings.snapshots_path, "s00000001-bench"),
        "s00000001-bench",
        zip(_names(persons), kinds * (persons // KINDS), strict=True),
    )
    row = ManifestRow(1, "s00000001-bench", cut, VERSION, T, T - 35 * DAY_MS, T, (TOPIC,))
    append_without_spark(
        settings.table("manifest"), ManifestRow(**{**row.__dict__, "tables": {"state": new_version(settings, "state", 1)}})
    )
    with LmdbHot(settings.hot_path, 1 << 32, cut) as hot:
        for key in KEYS:
            hot.raise_high(hot.partition(key), end[key], VERSION, T)
        hot.beat(T, end)
        hot.commit((entry, encode_entry(entry)) for entry in log)
    write_archive(settings, log, cut, end)
    return settings, cut, end


def export(settings: Settings, out: Path) -> dict[str, float | int | str]:
    """Everyone's records under the pin, as `twofold records --all --pin` writes them."""
    began, own = time.perf_counter(), time.process_time()
    with Reader(settings, clock=lambda: T + 1) as reader, reader.pinned("bench") as pinned:
        chosen = pinned.persons()
        found = time.perf_counter() - began
        count = write_records(pinned.records(chosen), out, len(chosen))
    took, cpu = time.perf_counter() - began, time.process_time() - own
    with out.open() as lines:
        source = json.loads(lines.readline())["pinned"]["source"]
    seconds = {"persons_s": round(found, 1), "s": round(took, 1), "cpu_s": round(cpu, 1)}
    return {
        "from": source,
        "records": count,
        **seconds,
        "records_per_s": round(count / took),
        "records_per_cpu_s": round(count / cpu),
    }


def values(out: Path) -> Iterator[bytes]:
    for line in out.open("rb"):
        found = msgspec.json.decode(line)["values"]
        yield msgspec.json.encode({name: value for name, value in found.items() if name not in CONSENT_FEATURES})


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--persons", type=int, default=100_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings, _cut, end = make_home(folder / "home", options.persons - options.persons % KINDS)
        with Reader(settings, clock=lambda: T + 1) as reader:
            reader.pin("bench")
        print(json.dumps(export(settings, folder / "hot.jsonl")), flush=True)
        with LmdbHot(settings.hot_path, 1 << 32, end) as hot:
            hot.trim(end)
        print(json.dumps(export(settings, folder / "archive.jsonl")), flush=True)
        same = all(a == b for a, b in zip(values(folder / "hot.jsonl"), values(folder / "archive.jsonl"), strict=True))
        print(json.dumps({"values_equal": same}))
        assert same

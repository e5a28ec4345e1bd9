"""What the served-record audit costs: of a read outside of and in the sample, and records audited a second.

The home is made without Spark, of events of the simulated shop with their bytes in the archive: three quarters of them below the
cut, the others in the hot store. Everyone's record is logged some times and audited; a wrong one fails the bench. Reads and the log
are told in processor time of this process, which others on the machine do not lengthen so much; the audit in both.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

from tests.unit.layered_home import LayeredHome
from tests.unit.manifests import TOPIC
from twofold.audit import make_served
from twofold.catalogue import VERSION
from twofold.columns import id_hash
from twofold.events import make_entry
from twofold.local.convert import CONVERTERS, write_jsonl
from twofold.local.served_audit import ServedAudit
from twofold.reader import Reader
from twofold.record import Record
from twofold.settings import Settings
from twofold.stores.served_log import ServedLog, served_files
from twofold.timeline import LATEST_MS, Position
from twofold.views import ManifestRow


def shop_home(folder: Path, events: int, persons: int, audit: dict[str, float]) -> LayeredHome:
    """A home with the shop's log, nothing read of it yet; an entry's broker time is the newest event time up to it."""
    feed = folder / "shop.jsonl"
    write_jsonl(CONVERTERS["shop"](None, events=events, persons=persons), feed)
    log, values, offsets, newest_ms = [], {}, [0, 0], 0
    for line in feed.read_bytes().split(b"\n"):
        if line:
            entry = make_entry(VERSION, Position(TOPIC, 0, 0), LATEST_MS, line)
            partition = id_hash(entry.person or "") % 2
            newest_ms = max(newest_ms, entry.at_ms or 0)
            position = Position(TOPIC, partition, offsets[partition])
            offsets[partition] += 1
            log.append(make_entry(VERSION, position, newest_ms, line))
            values[position] = line
    return LayeredHome(folder / "home", log, values, audit=audit)


def log_us(settings: Settings, records: list[Record], row: ManifestRow, served_ms: int, rounds: int) -> float:
    """Microseconds of processor time that the log takes of each of these reads, writing included; the best of some rounds."""
    best = float("inf")
    for _ in range(rounds):
        log = ServedLog(settings)
        began = time.process_time()
        for record in records:
            log.tick(served_ms)
            if log.wants(record.person):
                log.add(make_served(record, row, VERSION, served_ms))
        log.close()
        best = min(best, time.process_time() - began)
    return best / len(records) * 1e6


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--events", type=int, default=40_000)
    parser.add_argument("--persons", type=int, default=2_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        home = shop_home(Path(name), options.events, options.persons, {"sample_share": 1, "max_bytes": 1 << 32})
        n = len(home.log)
        home.archive(n)
        home.night(n * 3 // 4)
        home.follow(n)
        everyone = sorted({entry.person for entry in home.log if entry.person is not None})
        unsampled = home.settings.model_copy(update={"audit": home.settings.audit.model_copy(update={"sample_share": 1e-9})})
        with Reader(unsampled, clock=lambda: home.now) as reader:
            row, began = reader.snapshot, time.process_time()
            records = [reader.record(person) for person in everyone]
            read_us = (time.process_time() - began) / len(records) * 1e6
        told: dict[str, float] = {
            "events": n,
            "persons": len(everyone),
            "read_us": read_us,
            "log_unsampled_us": log_us(unsampled, records, row, home.now, options.rounds),
            "log_sampled_us": log_us(home.settings, records, row, home.now, options.rounds),
        }
        files = served_files(home.settings.served_path)
        told["bytes_per_record"] = sum(file.size_bytes for file in files) / options.rounds / len(everyone)
        began, own = time.perf_counter(), time.process_time()
        summary = ServedAudit(home.settings, home.now).run().report.summary
        took, cpu = time.perf_counter() - began, time.process_time() - own
        assert summary.judged == summary.equal == options.rounds * len(everyone), summary
        told |= {"audited": summary.judged, "records_per_s": summary.judged / took, "records_per_cpu_s": summary.judged / cpu}
        print(json.dumps({key: round(value, 1) for key, value in told.items()}))

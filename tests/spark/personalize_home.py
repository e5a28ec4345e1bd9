"""A home whose writer of `personalization` a test drives by hand, and the library's records that its rows must equal."""

from __future__ import annotations

import json
from typing import Any, Literal

from deltalake import DeltaTable

from tests.spark.test_batch import archive_row, commit, offsets
from twofold.catalogue import CATALOGUE, CONSENT_PRIMARIES
from twofold.events import Entry, FactBody
from twofold.features import Catalogue
from twofold.merge import merge
from twofold.record import make_record
from twofold.segments import NO_SEGMENTS, Segments
from twofold.settings import BatchSettings, GateSettings, PersonalizeSettings, SegmentSettings, Settings
from twofold.spark.batch import rebuild
from twofold.spark.personalize import Personalizer
from twofold.stores.archive_entries import archive_entries
from twofold.stores.archive_log import archive_end
from twofold.stores.home_log import HomeLog, read_home_log, write_home_log
from twofold.stores.manifest import rows as manifest_rows
from twofold.stores.one_writer import process_writer
from twofold.stores.personalization import current_rows
from twofold.stores.snapshot_file import EmptySnapshot, SnapshotFile, snapshot_path
from twofold.testing.strategies import NOW_MS
from twofold.timeline import HOUR_MS, Offsets
from twofold.views import Heartbeat, HotView, empty_manifest

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
        segments: Segments = NO_SEGMENTS,
        wide_tables: bool = False,
        **more: Any,
    ) -> None:
        write_home_log(folder, HomeLog(TOPIC, offsets(0, 0, 0), 1))
        personalize = PersonalizeSettings(**{"chunk_persons": 64, "due_interval_ms": 0, **more})
        batch = BatchSettings(wide_tables=wide_tables)
        rooms = {"personalize": personalize, "batch": batch, "gate": GateSettings(mode=gate)}
        # What the shipped rules name a small catalogue has not.
        self.settings = Settings(home=str(folder), segments=SegmentSettings(file=""), **rooms)
        self.segments = segments
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
        self.writer = Personalizer(
            self.spark, self.settings, right, self.catalogue, self.clock, lambda _settings: self.end, self.segments
        )
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
        return make_record(self._home.catalogue, row["person"], snapshot.row, merged, hot, t, t, *limits, o, self._home.segments)


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
        assert record["segments"] == row["segments"] == list(want.segments), where
        assert record["segments_version"] == row["segments_version"] == want.segments_version, where
        for name in ("snapshot", "cut", "as_of", "t", "newest_event", "lag_ms", "state"):
            assert record["freshness"][name] == getattr(want.freshness, name), (where, name)
        # The first edge, and never later than what the library finds by trying edges until a value differs.
        until, change = row["valid_until"], want.next_change_at
        assert change is None or (until is not None and row["t"] < until <= change), where
        for name, value in want.values.items():
            found = dict(row[name]) if isinstance(value, dict) else row[name]
            assert found == value, (where, name)
    return rows


# --- what is written --------------------------------------------------------------------------------------------------------------
def finish(home: Home) -> None:
    while home.writer.tick():
        pass

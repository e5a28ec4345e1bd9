"""The library's edge: opens the stores of a home, reads the clock, and gives personalization records. No Spark, no Kafka."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

import msgspec

from twofold.audit import make_served
from twofold.catalogue import CATALOGUE, CONSENT_PRIMARIES, VERSION
from twofold.errors import HomeError, StoreError, UsageError
from twofold.explain import explain, with_raw
from twofold.explanation import Explanation
from twofold.features import Catalogue
from twofold.membership import Membership, membership_of
from twofold.merge import Merged, find_gap, merge, other_version
from twofold.pinned import Standing, make_standing
from twofold.pinned_reader import PinnedReader
from twofold.record import Record, lag_ms, make_record
from twofold.segments import Segment, Segments
from twofold.settings import Settings
from twofold.stores.archive_entries import archive_entries, archive_events
from twofold.stores.archive_log import archive_end
from twofold.stores.campaign_pins import CampaignPin, read_campaign_pin
from twofold.stores.home_log import shared_home_log
from twofold.stores.lmdb_hot import LmdbHotReader
from twofold.stores.manifest import rows
from twofold.stores.pin_terms import make_pin
from twofold.stores.places import table_exists
from twofold.stores.readable import grant_campaign_pin, kept
from twofold.stores.segments_file import load_segments
from twofold.stores.served_log import ServedLog
from twofold.stores.snapshot_file import EmptySnapshot, SnapshotFile
from twofold.stores.snapshot_place import fetch_snapshot, remove_fetched
from twofold.timeline import EMPTY_OFFSETS, Offsets
from twofold.views import HotView, ManifestRow, PersonSnapshot, SnapshotReader, empty_manifest


def _clock_ms() -> int:
    return time.time_ns() // 1_000_000


class Status(msgspec.Struct, frozen=True):
    """What the stores of a home hold: offsets as ``{topic id: {partition: next}}``, times in epoch ms."""

    snapshot: str
    seq: int
    as_of: int | None
    cut: dict[str, dict[str, int]]
    high: dict[str, dict[str, int]]
    low: dict[str, dict[str, int]]
    log_end: dict[str, dict[str, int]]
    lag_entries: int | None
    lag_ms: int | None
    version: str
    #: Served records that this reader could not log; ``None``: it logs nobody's (``audit.sample_share`` is 0).
    served_lost: int | None = None


class _Made(NamedTuple):
    """What a read is made of. ``high``: up to where the log was read; ``live``: the hot view that says how far behind that is."""

    row: ManifestRow
    merged: Merged
    hot: HotView | None
    live: HotView | None
    high: Offsets


class Reader:
    """Records of a home. Holds one snapshot at a time; :meth:`refresh` moves to the newest published one.

    Without a hot store (a node that only has the snapshot) records are ``batch_only``. Close it, or use it as a context.
    """

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], int] = _clock_ms,
        catalogue: Catalogue = CATALOGUE,
        seq: int | None = None,
    ) -> None:
        """``seq`` holds one published snapshot (0: the empty one) instead of following the newest."""
        self._settings, self._clock, self._catalogue, self._seq = settings, clock, catalogue, seq
        self._limits = settings.serving.fresh_max_lag_ms, settings.serving.consent_max_lag_ms
        #: The rules as they were when the reader was opened.
        self.segments: Segments = load_segments(settings, catalogue)
        if settings.tables:
            # A node that only serves: its home begins empty.
            settings.home_path.mkdir(parents=True, exist_ok=True)
        elif not settings.home_path.exists():
            raise HomeError(f"there is no home at {settings.home_path}: start one with `twofold up --home DIR`")
        self._snapshot: SnapshotReader = self._open_snapshot()
        self._polled_ms = clock()
        self._served_log = ServedLog(settings) if settings.audit.sample_share else None
        self._hot: LmdbHotReader | None = None
        self._open_hot()

    # --- stores -----------------------------------------------------------------------------------------------------------------
    def _manifest(self) -> ManifestRow:
        published = self._published = rows(self._settings.table("manifest"))
        if self._seq:
            row = next((row for row in published if row.seq == self._seq), None)
            if row is None:
                raise StoreError(f"no snapshot {self._seq} was published: the newest is {published[-1].seq if published else 0}")
        else:
            row = published[-1] if published and self._seq is None else None
        return row if row is not None else empty_manifest(shared_home_log(self._settings).log_start, VERSION)

    def _open_snapshot(self) -> SnapshotReader:
        row = self._manifest()
        if row.seq == 0:
            return EmptySnapshot(row)
        found = SnapshotFile(fetch_snapshot(self._settings, row), row)
        # A pin that cannot be read lets nothing go, and is no reason not to serve.
        with contextlib.suppress(StoreError):
            stay = kept(self._settings, self._published, self._settings.batch.keep_snapshots)
            remove_fetched(self._settings, {row.snapshot, *(old.snapshot for old in stay)})
        return found

    def _open_hot(self) -> None:
        if self._hot is None and (self._settings.hot_path / "data.mdb").exists():
            self._hot = LmdbHotReader(self._settings.hot_path, self._settings.hot.map_size_bytes)

    def refresh(self) -> None:
        """Move to the newest published snapshot, if there is a newer one."""
        self._polled_ms = self._clock()
        self._open_hot()
        row = self._manifest()
        if row.seq != self._snapshot.row.seq:
            newer = self._open_snapshot()
            self._snapshot.close()
            self._snapshot = newer

    def _poll(self) -> None:
        if self._clock() - self._polled_ms >= self._settings.serving.manifest_poll_ms:
            # A snapshot that cannot be fetched yet is no reason to stop: the held one and the hot facts say the same.
            with contextlib.suppress(StoreError):
                self.refresh()

    @property
    def snapshot(self) -> ManifestRow:
        """The manifest row that reads are answered from."""
        return self._snapshot.row

    # --- reads ------------------------------------------------------------------------------------------------------------------
    def record(self, person: str, at: int | None = None) -> Record:
        """The record of a person at ``at`` (epoch ms, default now). An unknown person gets the default record."""
        self._poll()
        return self._record(person, at)

    def explain(self, person: str, field: str, at: int | None = None, raw: bool = False) -> Explanation:
        """Why a field of a person's record has its value at ``at`` (epoch ms, default now): see :mod:`twofold.explain`.

        ``raw`` adds what the archive has of it, which takes a look through its files. Raises :class:`UsageError` for an unknown
        field.
        """
        if field not in self._catalogue.features:
            raise UsageError(f"there is no field {field!r}: `twofold record PERSON` shows them all")
        self._poll()
        now_ms = self._clock()
        t = now_ms if at is None else at
        made = self._made(person, t)
        record = self._presented(person, made, t, now_ms)
        found = explain(self._catalogue, record, field, made.row, made.merged, made.hot)
        if not raw:
            return found
        location = self._settings.table("archive")
        if not table_exists(location):
            raise StoreError("there is no archive yet: start `twofold up`, or leave out --raw")
        # The end first: an entry that comes meanwhile is told of, none is missed below it.
        end = archive_end(location)
        events = ((e, value) for e, value in archive_events(location, made.row.version, [person]) if e.person == person)
        ok = ((entry, value) for entry, value in events if entry.verdict == "ok")
        return with_raw(self._catalogue, found, made.row, made.merged.offsets, ok, end)

    def _record(self, person: str, at: int | None) -> Record:
        now_ms = self._clock()
        t = now_ms if at is None else at
        return self._served(person, self._made(person, t), t, now_ms)

    def _served(self, person: str, made: _Made, t: int, now_ms: int) -> Record:
        """The record, logged where the person belongs to the sample."""
        record = self._presented(person, made, t, now_ms)
        if self._served_log is not None:
            self._served_log.tick(now_ms)
            if self._served_log.wants(person):
                self._served_log.add(make_served(record, made.row, self._catalogue.version, now_ms))
        return record

    def _presented(self, person: str, made: _Made, t: int, now_ms: int) -> Record:
        row, merged, _hot, live, high = made
        return make_record(self._catalogue, person, row, merged, live, t, now_ms, *self._limits, high, self.segments)

    def _made(self, person: str, t: int, only: Container[str] | None = None) -> _Made:
        """Snapshot ⊕ hot facts of a person (``only``: of those primaries); below the snapshot's range, from the archive."""
        row, hot = self._snapshot.row, self._hot_view(person)
        grace_days = self._settings.batch.late_grace_days
        merged = merge(self._catalogue, row, self._snapshot.person(person), hot, t, grace_days, only)
        if merged.outcome == "archive":
            start, views = self._archived([person])
            return self._made_anew(start, views[person], t, only)
        return _Made(row, merged, hot, hot, hot.high if hot is not None and merged.outcome == "ok" else EMPTY_OFFSETS)

    def _made_anew(self, start: ManifestRow, entries: HotView, t: int, only: Container[str] | None = None) -> _Made:
        """Recomputed from all of a person's entries at O = the archive's committed end, and marked so."""
        merged = replace(merge(self._catalogue, start, None, entries, t, only=only), outcome="archive")
        return _Made(start, merged, entries, None, entries.high)

    def _hot_view(self, person: str) -> HotView | None:
        """The person's entries above the held snapshot's cut; ``None`` where there is no hot store."""
        return self._hot.view(person, self._snapshot.row.cut) if self._hot is not None else None

    def _archived(self, persons: list[str]) -> tuple[ManifestRow, dict[str, HotView]]:
        """Everything that the archive has of these persons, above the empty snapshot."""
        location = self._settings.table("archive")
        end = archive_end(location)
        row = self._snapshot.row
        start = empty_manifest(shared_home_log(self._settings).log_start, row.version)
        # Topics rank as the manifests name them, not as the first log did.
        start = replace(start, topics=row.topics)
        by_person: dict[str, list[Any]] = {person: [] for person in persons}
        for entry in archive_entries(location, row.version, persons):
            if entry.person in by_person and entry.verdict == "ok":
                by_person[entry.person].append(entry)
        return start, {person: HotView(high=end, low=start.cut, entries=tuple(entries)) for person, entries in by_person.items()}

    def records(self, persons: Iterable[str] | None = None, at: int | None = None) -> Iterator[Record]:
        """Records of many persons at one instant (default now) from one snapshot; ``None``: everyone with an ok entry."""
        self._poll()
        t = self._clock() if at is None else at
        chosen = self.persons() if persons is None else persons
        if self._below_range(t):
            start, views = self._archived(list(chosen))
            now_ms = self._clock()
            for person, entries in views.items():
                yield self._served(person, self._made_anew(start, entries, t), t, now_ms)
            return
        for person in chosen:
            yield self._record(person, t)

    def membership(self, segment: Segment, person: str, at: int | None = None, exact: bool = False) -> Membership:
        """Why a person is in a segment at ``at`` (epoch ms, default now) or is not, and since when.

        ``exact``: from every entry of the person in the archive instead of the snapshot, so that no fold bounds the look back.
        """
        self._poll()
        t = self._clock() if at is None else at
        row, snapshot, hot = self._parts(person, t, exact)
        return membership_of(self._catalogue, segment, person, row, snapshot, hot, t)

    def _parts(self, person: str, t: int, exact: bool) -> tuple[ManifestRow, PersonSnapshot | None, HotView | None]:
        """What a read at ``t`` merges; below the snapshot's range, and where asked for, all of it is hot."""
        row = self._snapshot.row
        if self._below_range(t):
            start, views = self._archived([person])
            return start, None, views[person]
        hot = self._hot_view(person)
        if not exact or row.seq == 0:
            return row, self._snapshot.person(person), hot
        # The archive has whatever lies below a cut: with the hot entries above it this is the same O as ever.
        start, views = self._archived([person])
        if hot is None or find_gap(row, hot) or other_version(row, hot):
            hot = HotView()
        high, entries = row.cut.join(hot.high), (*views[person].entries, *hot.entries)
        return start, None, HotView(high=high, low=start.cut, entries=entries)

    def _below_range(self, t: int) -> bool:
        return self._snapshot.row.below_range(t, self._settings.batch.late_grace_days)

    def persons(self) -> Iterator[str]:
        """Every person with an ok entry, ascending, once each."""
        snapshot = self._snapshot.persons()
        hot = self._hot.persons() if self._hot is not None else iter(())
        seen = set(snapshot)
        seen.update(hot)
        return iter(sorted(seen))

    # --- pins -------------------------------------------------------------------------------------------------------------------
    def pin(self, name: str, at: int | None = None) -> CampaignPin:
        """Keep the held snapshot, t = ``at`` (epoch ms, default now) and O = as far as the log was read, under a name.

        Raises :class:`UsageError` for a name that cannot be or is taken, or a t below the snapshot's range,
        :class:`DefinitionError` for a snapshot of another definition, :class:`PinError` where no layer has all that O holds.
        """
        self._poll()
        now_ms = self._clock()
        t = now_ms if at is None else at
        pin = make_pin(self._settings, name, self._snapshot.row, self.vectors(), self._catalogue, t, now_ms)
        grant_campaign_pin(self._settings, pin)
        return pin

    def pinned(self, name: str) -> PinnedReader:
        """Records under a pin. Close it before this reader. Raises :class:`UsageError` when there is no such pin,
        :class:`DefinitionError` when it is of a definition that is not installed.
        """
        return PinnedReader(self._settings, self._catalogue, self.segments, read_campaign_pin(self._settings, name), self)

    def standing(self, person: str) -> Standing:
        """What is never pinned of a person, as it is now: consent and ``sendable``, judged as those of a record."""
        self._poll()
        t = self._clock()
        row, merged, _hot, live, high = self._made(person, t, CONSENT_PRIMARIES)
        return make_standing(self._catalogue, row, merged, live, t, t, *self._limits, high)

    def hot_view(self, person: str, since: Offsets) -> HotView:
        """A person's hot entries from ``since`` on and the vectors; the empty view where there is no hot store."""
        return self._hot.view(person, since) if self._hot is not None else HotView()

    def hot_persons(self) -> Iterator[str]:
        """Every person with a hot entry, once each."""
        return self._hot.persons() if self._hot is not None else iter(())

    def offsets(self) -> Offsets:
        """O of a read now: the cut, and what the hot store adds to it where it reaches down to it."""
        row, hot = self._snapshot.row, self.vectors()
        return row.cut if find_gap(row, hot) or other_version(row, hot) else row.cut.join(hot.high)

    def vectors(self) -> HotView:
        """How far the hot store has read, without anyone's facts; the empty view where there is no hot store."""
        return self._hot.vectors() if self._hot is not None else HotView()

    def status(self) -> Status:
        """Vectors, snapshot and lag as they are now."""
        self.refresh()
        row = self._snapshot.row
        hot = self._hot.vectors() if self._hot is not None else None
        high = hot.high if hot is not None else EMPTY_OFFSETS
        log_end = hot.heartbeat.log_end if hot is not None and hot.heartbeat is not None else None
        return Status(
            snapshot=row.snapshot,
            seq=row.seq,
            as_of=row.as_of_ms,
            cut=row.cut.to_json(),
            high=high.to_json(),
            low=hot.low.to_json() if hot is not None else {},
            log_end=log_end.to_json() if log_end is not None else {},
            lag_entries=None if log_end is None else log_end.entries_since(row.cut.join(high)),
            lag_ms=lag_ms(row, hot, self._clock()),
            version=row.version,
            served_lost=self._served_log.lost if self._served_log is not None else None,
        )

    def close(self) -> None:
        if self._served_log is not None:
            self._served_log.close()
        self._snapshot.close()
        if self._hot is not None:
            self._hot.close()
            self._hot = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()


__all__ = ["Reader", "Status"]

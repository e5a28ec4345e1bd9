"""The writer of `personalization`: touched people, due people, everyone after each snapshot; each row exact at its (t, O).

A micro-batch over `archive` only says which people were touched. A row is made of ``state`` at the version that the manifest
names and of the archive's entries in ``[cut, O)``, where O is the committed end that the stream has reached; t is one instant a
batch. The same merge gives every row: the kinds of a batch differ in nothing but whom they are about.
"""

from __future__ import annotations

import json
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from kafka.errors import KafkaError
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from twofold.catalogue import CATALOGUE
from twofold.errors import ArchiveError, TwofoldError
from twofold.features import Catalogue
from twofold.kafka.topics import log_offsets
from twofold.merge import Merged
from twofold.record import Freshness, freshness_state, lag_ms
from twofold.segments import NO_SEGMENTS, Segments
from twofold.settings import Settings
from twofold.spark.cut import archive_at, slice_of
from twofold.spark.due import Due
from twofold.spark.held import Held
from twofold.spark.hot_slice import HotSlice
from twofold.spark.job import Running, has_polled
from twofold.spark.pace import Pace
from twofold.spark.personalization import SHARED, append_rows, create_personalization, personalization_rows, shared_row
from twofold.spark.sample_gate import SampleGate
from twofold.spark.set_merge import merge_people
from twofold.spark.standing import put_rows, read_anew, standing
from twofold.spark.state_lookup import StateLookup
from twofold.spark.tables import create_archive
from twofold.spark.tidy import Tidy
from twofold.spark.turns import Turns
from twofold.stores.archive_log import archive_end
from twofold.stores.files import folder
from twofold.stores.home_log import read_home_log
from twofold.stores.manifest import current
from twofold.stores.one_writer import Writer, process_writer
from twofold.stores.personalization import Commit, current_rows, newest_commit, rows_of_batch, write_told
from twofold.stores.places import open_table
from twofold.stores.refresh_request import answer, requested
from twofold.stores.segments_file import load_segments
from twofold.timeline import EMPTY_OFFSETS, MINUTE_MS, Offsets
from twofold.views import Heartbeat, HotView, ManifestRow, empty_manifest

#: How far ahead lapsing people are known; then the table is looked through again.
_DUE_AHEAD_MS = 5 * MINUTE_MS
#: Every version of the archive is read whole: what one commit holds of a person belongs to one O.
_ALL_FILES = 1_000_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


def broker_log_end(settings: Settings) -> Offsets | None:
    """The log's end now, or ``None`` when nobody can tell: then nothing may be said to be fresh."""
    try:
        return log_offsets(settings)[1]
    except (TwofoldError, KafkaError, OSError):
        return None


class Personalizer:
    """The one writer. ``on_batch`` is the stream's callback; :meth:`tick` does, a piece at a time, what no event asks for."""

    def __init__(
        self,
        spark: Any,
        settings: Settings,
        writer: Writer,
        catalogue: Catalogue = CATALOGUE,
        now_ms: Callable[[], int] = _wall_ms,
        log_end: Callable[[Settings], Offsets | None] | None = None,
        segments: Segments = NO_SEGMENTS,
        pace: Pace | None = None,
    ) -> None:
        self._pace = pace or Pace()
        self._spark, self._settings, self._writer, self._catalogue = spark, settings, writer, catalogue
        self._now_ms, self._log_end = now_ms, log_end or broker_log_end
        self._segments = segments
        self._table, self._archive = settings.table("personalization"), settings.table("archive")
        #: The named error that the stream's callback died of.
        self.died_of: TwofoldError | None = None
        self._turns = Turns()
        root = settings.checkpoint("personalize")
        # A start begins at the archive's newest version and looks up itself whom it missed: see `_open`.
        self.checkpoint = root / "stream"
        folder(root).remove("stream")
        self._slice = HotSlice(spark, root, settings.home_path / "hot-slice")
        self._lookup = StateLookup(spark, root, settings.home_path / "state-rows")
        self._held = Held(spark, root, catalogue)
        self._shared = root / "shared"
        #: The snapshot's queries: with people who were held, and without.
        self._prepared: dict[bool, DataFrame] = {}
        self._due = Due()
        self._due_ms = 0
        self._chunks: deque[pa.Array] = deque()
        self._refreshing: tuple[int, int | None] = (-1, None)
        self._tidy = Tidy(spark, self._table, settings.personalize)
        self._gate = SampleGate(spark, settings)
        self._open()

    # --- where it stands --------------------------------------------------------------------------------------------------------
    def _open(self) -> None:
        create_archive(self._spark, self._archive)
        # Who waits for this table from now on waits for this writer.
        write_told(self._settings.home_path, EMPTY_OFFSETS)
        last = newest_commit(self._table)
        self._batch, self._told = last.batch, last.told
        # Rows of other rules hold no more: everyone is due, as after a snapshot.
        self._refreshed = last.refreshed if last.segments == self._segments.version else -1
        #: The number of the first batch of the era: tidying may rewrite earlier ones.
        self._era = self._batch + 1
        self._created = False
        self._row = self._published()
        self._look_up()
        #: The archive's version at which the stream begins: what lies below is in the slice.
        self.version = self._slice_anew()
        if self._refreshed != self._row.seq:
            return
        missed = self._slice.persons(since=self._told)
        if len(missed) > self._settings.personalize.chunk_persons:
            self._refreshed = -1
        else:
            self._emit("missed", missed, told=self._slice.high)

    def _published(self) -> ManifestRow:
        row = current(self._settings.table("manifest"))
        return row or empty_manifest(read_home_log(self._settings.home_path).log_start, self._catalogue.version)

    def _slice_anew(self) -> int:
        version = int(open_table(self._archive).version())
        end = archive_end(self._archive, version)
        entries = slice_of(self._spark, self._settings, archive_at(self._spark, self._settings, version), end, self._row)
        self._slice.start(entries, self._row.cut, end)
        return version

    def _move(self) -> None:
        """To the newest snapshot. An older one (a rollback) may need entries that the slice has not."""
        row = self._published()
        if row.seq == self._row.seq:
            return
        self._row = row
        self._look_up()
        if any(low > row.cut.next(key) for key, low in self._slice.low.items()):
            self._slice_anew()
        else:
            self._slice.forget(row.cut)

    def _look_up(self) -> None:
        """Have the snapshot's rows of `state` at hand."""
        row = self._row
        self._prepared.clear()
        if row.seq == 0:
            self._lookup.start_empty(self._catalogue)
        elif row.version == self._catalogue.version:
            self._lookup.start(self._settings.table("state"), row.tables["state"])
            wide = row.tables.get("wide_person")
            if wide is None or row.as_of_ms is None:
                self._held.stop()
            else:
                self._held.start(self._settings.table("wide_person"), wide, row.as_of_ms)

    def _end_of(self, batch_id: int) -> Offsets:
        """The archive's committed end that a micro-batch has reached."""
        written = folder(self.checkpoint).read(f"offsets/{batch_id}")
        if written is None:
            raise ArchiveError(f"the checkpoint {self.checkpoint} has no offsets of batch {batch_id}: start the job again")
        # The source's offset names the version that comes next.
        return archive_end(self._archive, json.loads(written.splitlines()[2])["reservoirVersion"] - 1)

    # --- one batch --------------------------------------------------------------------------------------------------------------
    def on_batch(self, frame: DataFrame, batch_id: int) -> None:
        """A micro-batch over the archive: its people are emitted at the end that it reached."""
        try:
            with self._turns.live():
                self._move()
                end = self._end_of(batch_id)
                touched = self._slice.add(frame, end)
                # Whose row has lapsed for long goes along: a batch of their own would cost what every batch costs.
                along = self._lapsed(self._settings.personalize.due_interval_ms) if len(touched) else touched
                self._emit("live", pc.unique(pa.concat_arrays([touched, along])), told=end)
                self._tell()
            self._pace.taken(end)
        except TwofoldError as error:
            self.died_of = error
            raise

    def _emit(self, kind: str, whom: pa.Array, told: Offsets = EMPTY_OFFSETS, refreshed: int | None = None) -> int:
        """Rows of some people, each once, at one (t, O); returns how many. None where the snapshot cannot be read at t.

        ``told``: whoever has an entry below has a row now; ``refreshed``: everyone has one of this snapshot.
        """
        row, serving = self._row, self._settings.serving
        asked_ms = self._now_ms()
        end = self._log_end(self._settings)
        t = self._now_ms()
        if not self._can_be_read(t):
            return 0
        self._told = self._told.join(told)
        if not len(whom) and refreshed is None:
            return 0
        if not self._created:
            self._created = True
            if create_personalization(self._spark, self._table, self._catalogue):
                self._refreshed = -1
        high = self._slice.high
        hot = None if end is None else HotView(high=high, heartbeat=Heartbeat(asked_ms, end), high_broker_ms=self._slice.broker_ms)
        lag = lag_ms(row, hot, t)
        o = row.cut.join(high)
        state = freshness_state(Merged("ok", o, {}), hot, lag, serving.fresh_max_lag_ms)
        freshness = Freshness(row.snapshot, row.cut.to_json(), high.to_json(), row.as_of_ms, t, None, lag, state)
        self._batch += 1
        put_rows(self._shared, shared_row(row, freshness, o, self._batch, self._era, serving.consent_max_lag_ms))
        touched = self._slice.find(whom)
        # Of people who are touched, or whose row lapsed, nothing of the night holds any more.
        held = self._held.find(whom, touched, t) if kind == "refresh" else whom.slice(0, 0)
        self._lookup.find(whom.filter(pc.invert(pc.is_in(whom, held))), touched)
        rows = self._rows(bool(len(held)))
        if self._gate.is_due(row, t):
            self._gate.look(rows, row, o, self._archived, t)
        self._refreshed = self._refreshed if refreshed is None else refreshed
        commit = Commit(self._batch, self._refreshed, self._told, self._segments.version)
        self._writer.confirm()
        append_rows(rows, self._table, {**commit.to_json(), "kind": kind, "t": t})
        written = rows_of_batch(self._table, self._batch, ["person", "valid_until"])
        self._due.put(zip(written["person"].to_pylist(), written["valid_until"].to_pylist(), strict=True))
        return len(written)

    def _archived(self) -> DataFrame:
        return archive_at(self._spark, self._settings, int(open_table(self._archive).version()))

    def _tell(self) -> None:
        """Say how far the table is, for who waits for it: whoever was touched below has a row."""
        if self._refreshed >= 0:
            write_told(self._settings.home_path, self._told)

    def _can_be_read(self, t: int) -> bool:
        """Not a snapshot of other definitions, nor one whose range begins after t: until the next one nothing is emitted."""
        row, grace_days = self._row, self._settings.batch.late_grace_days
        return row.version == self._catalogue.version and not row.below_range(t, grace_days)

    def _rows(self, with_held: bool) -> DataFrame:
        """Rows of the people who were looked up, and of those who were held: the same queries for any, built once a snapshot."""
        if with_held not in self._prepared:
            shared = standing(self._spark, self._shared, SHARED)
            instant = F.broadcast(shared.select("t"))
            state, entries = self._lookup.rows().crossJoin(instant), self._slice.entries(self._row).crossJoin(instant)
            people = merge_people(state, entries, self._row, self._catalogue, F.col("t"), edges=True, whole=True)
            people = people.unionByName(self._held.people(instant)) if with_held else people
            consent_max_lag_ms = self._settings.serving.consent_max_lag_ms
            rows = personalization_rows(people, shared, self._catalogue, consent_max_lag_ms, self._segments)
            self._prepared[with_held] = rows
        return read_anew(self._prepared[with_held])

    # --- between batches --------------------------------------------------------------------------------------------------------
    def tick(self) -> bool:
        """One piece of what is due: lapsed people, a chunk of a refresh, tidying. Whether more of it waits."""
        self._notice()
        self._emit_due()
        if self._chunks:
            self._refresh_chunk()
        self._tidy_up()
        return bool(self._chunks)

    def _tidy_up(self) -> None:
        if self._created and self._tidy.is_due(self._now_ms()):
            # Every row of the eras before is committed: a turn is a whole batch.
            with self._turns.background():
                self._era, old = self._batch + 1, self._batch
            self._tidy.start(old)

    def _notice(self) -> None:
        """Plan a refresh of everyone where a snapshot is new or somebody asked."""
        asked = requested(self._settings.home_path)
        if self._chunks or (asked is None and self._published().seq == self._refreshed):
            return
        with self._turns.background():
            self._move()
            if not self._can_be_read(self._now_ms()):
                return
            if asked is not None:
                self._slice_anew()
            self._refreshing = (self._row.seq, asked)
            self._chunks.extend(self._everyone())

    def _everyone(self) -> Iterator[pa.Array]:
        """Everyone, in the order of their keys, so many at a time: what a file of the table holds is then a range of them."""
        known = pc.unique(pa.concat_arrays([self._lookup.persons(), self._slice.persons()]))
        persons, at_once = known.take(pc.sort_indices(known)), self._settings.personalize.chunk_persons
        return (persons.slice(first, at_once) for first in range(0, max(1, len(persons)), at_once))

    def _refresh_chunk(self) -> None:
        with self._turns.background():
            self._move()
            whom = self._chunks.popleft()
            seq, asked = self._refreshing
            last = not self._chunks
            self._emit("refresh", whom, self._slice.high if last else EMPTY_OFFSETS, seq if last else None)
        if not self._chunks:
            self._tell()
            if asked is not None:
                answer(self._settings.home_path, asked)

    def _emit_due(self) -> None:
        """Lapsed people whom no live batch has taken along."""
        now, every = self._now_ms(), self._settings.personalize.due_interval_ms
        if self._refreshed < 0 or (now < self._due_ms + every and now + every <= self._due.horizon_ms):
            return
        with self._turns.background():
            if now + every > self._due.horizon_ms:
                self._look_ahead(now)
            if now >= self._due_ms + every:
                lapsed = self._lapsed()
                if len(lapsed):
                    self._move()
                    self._emit("due", lapsed)

    def _lapsed(self, for_ms: int = 0) -> pa.Array:
        """People whose row has lapsed so long ago, of whom nobody else has to think from now on."""
        self._due_ms = self._now_ms()
        return pa.array(self._due.take(self._due_ms - for_ms, self._settings.personalize.chunk_persons), pa.string())

    def _look_ahead(self, now: int) -> None:
        self._due = Due(now + _DUE_AHEAD_MS)
        rows = current_rows(self._table, now, columns=["valid_until"])
        soon = rows.filter(pc.less(rows["valid_until"], self._due.horizon_ms))
        self._due.put(zip(soon["person"].to_pylist(), soon["valid_until"].to_pylist(), strict=True))


def start_personalize(spark: Any, settings: Settings, catalogue: Catalogue = CATALOGUE, pace: Pace | None = None) -> Running:
    """Open the table's writer and start its stream over the archive. Raises :class:`SecondWriter`, :class:`SegmentError`.

    ``pace``: who writes the archive in this very application waits for it.
    """
    segments = load_segments(settings, catalogue)
    writer = Personalizer(spark, settings, process_writer(settings, "personalize"), catalogue, segments=segments, pace=pace)
    source = (
        spark.readStream.format("delta")
        .option("startingVersion", writer.version)
        # A deletion rewrites files of entries that were read before: nothing in it is new.
        .option("skipChangeCommits", "true")
        .option("maxFilesPerTrigger", _ALL_FILES)
        .load(settings.table("archive"))
    )
    query = (
        source.writeStream.queryName("personalize")
        .foreachBatch(writer.on_batch)
        .option("checkpointLocation", writer.checkpoint)
        .trigger(processingTime=f"{settings.personalize.trigger_ms} milliseconds")
        .start()
    )
    return Running(query, lambda: has_polled(query), writer.tick, lambda: writer.died_of)

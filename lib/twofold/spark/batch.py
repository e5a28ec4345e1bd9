"""The nightly rebuild: `archive` at a pinned version and its cut -> `state`, the snapshot file, one appended manifest row.

Until that row is there nothing has happened: a crash at any step leaves the snapshot before it serving, and whatever the dead
rebuild left behind is overwritten or removed by a later one.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

from deltalake import DeltaTable
from filelock import FileLock, Timeout
from pyspark.sql import DataFrame, Observation
from pyspark.sql import functions as F

from twofold.catalogue import CATALOGUE
from twofold.errors import ArchiveError, CutRefused, EmptyArchiveError, RebuildRunning
from twofold.events import ADMISSION_VERSION, REASONS
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark.admission import ADMITTED, admit
from twofold.spark.published import append_row, write_state
from twofold.spark.session import cores
from twofold.spark.state_rows import ENTRY, STATE, state_rows
from twofold.stores import snapshot_file
from twofold.stores.archive_log import CommittedRange, committed_ranges
from twofold.stores.home_log import HomeLog, read_home_log
from twofold.stores.manifest import current, rows
from twofold.stores.readable import readable
from twofold.timeline import Offsets
from twofold.views import ManifestRow, empty_manifest

#: Entries of one task: its sort then stays in memory.
ENTRIES_PER_TASK = 250_000
_POSITION = ("topic_id", "partition", "offset", "broker_ms")


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


# --- the cut ------------------------------------------------------------------------------------------------------------------
def chained_cut(ranges: list[CommittedRange], log: HomeLog) -> Offsets:
    """The committed end of ranges that chain from the log start.

    Raises :class:`ArchiveError` for a hole or an overlap, :class:`CutRefused` for another topic or a partition that vanished.
    """
    end = log.log_start
    for number, found in enumerate(ranges):
        strangers = {key.topic_id for key in (*found.start, *found.end)} - {log.topic_id}
        if strangers:
            raise CutRefused(
                f"the archive's version {found.version} is of topic {min(strangers)}, the home is of {log.topic_id}: "
                "the topic was recreated; use a new home, or adopt the topic"
            )
        missing = [key for key in end if key not in found.end]
        if missing:
            raise CutRefused(
                f"the archive's version {found.version} lacks partition {missing[0].partition}: the topic lost partitions"
            )
        for key in found.end:
            # A partition that is new in this commit began at its log start, which is 0 for one that came later.
            if found.start.next(key) != end.next(key):
                what = "the log start" if number == 0 else f"the end of version {ranges[number - 1].version}"
                raise ArchiveError(
                    f"the archive does not chain: partition {key.partition} of version {found.version} starts at "
                    f"{found.start.next(key)}, {what} is {end.next(key)}; rebuild the archive from the log"
                )
            if found.end[key] < found.start.next(key):
                raise ArchiveError(f"the archive's version {found.version} ends before it starts in partition {key.partition}")
        end = found.end
    return end


def follow_parent(cut: Offsets, parent: ManifestRow) -> None:
    """Raises :class:`CutRefused` when a cut goes backwards from its parent's or lacks one of its partitions."""
    missing = sorted(key for key in parent.cut if key not in cut)
    if missing:
        raise CutRefused(
            f"the cut lacks partition {missing[0].partition} of topic {missing[0].topic_id}, which the last snapshot has"
        )
    behind = cut.behind(parent.cut)
    if behind:
        key = behind[0]
        raise CutRefused(
            f"the cut goes backwards: partition {key.partition} is at {cut[key]}, the last snapshot at {parent.cut[key]}; "
            "the archive was replaced by an older one"
        )


# --- rows below the cut ---------------------------------------------------------------------------------------------------------
def judged_entries(archive: DataFrame, cut: Offsets) -> DataFrame:
    """Archive rows below the cut, positions and ``ADMITTED``; rows of another admission version judged again from their bytes."""
    below = F.lit(False)
    for topic in sorted({key.topic_id for key in cut}):
        ends = {key.partition: end for key, end in cut.items() if key.topic_id == topic}
        by_partition = F.array(*(F.lit(ends.get(p, 0)).cast("bigint") for p in range(max(ends) + 1)))
        below = below | ((F.col("topic_id") == topic) & (F.col("offset") < F.get(by_partition, F.col("partition"))))
    entries = archive.where(below)
    same = F.coalesce(F.col("admission_version") == ADMISSION_VERSION, F.lit(False))
    judged = entries.where(same).select(*_POSITION, *ADMITTED)
    others = entries.where(~same).select(*_POSITION, "value")
    if others.isEmpty():
        return judged
    return judged.unionByName(admit(others).drop("value"))


class Survey(NamedTuple):
    """What lies below a cut: distinct positions by verdict, and the largest broker time."""

    by_verdict: dict[str, int]
    newest_ms: int

    @property
    def entries(self) -> int:
        return sum(self.by_verdict.values())


def survey(judged: DataFrame) -> Survey | None:
    """``None`` when nothing lies there. Counts positions, not rows: a bit a position, 64 to a word."""
    offset = F.col("offset")
    words = judged.groupBy("topic_id", "partition", F.shiftright(offset, 6).alias("word"), "verdict").agg(
        F.bit_or(F.call_function("shiftleft", F.lit(1).cast("bigint"), (offset % 64).cast("int"))).alias("seen"),
        F.max("broker_ms").alias("newest_ms"),
    )
    found = (
        words.groupBy("verdict").agg(F.sum(F.bit_count("seen")).alias("positions"), F.max("newest_ms").alias("newest_ms")).collect()
    )
    if not found:
        return None
    return Survey({row.verdict: row.positions for row in found}, max(row.newest_ms for row in found))


def _counts(found: Survey, people: dict[str, Any]) -> dict[str, int]:
    ok = found.by_verdict.get("ok", 0)
    rejected = {f"rejected_{reason}": found.by_verdict.get(reason, 0) for reason in REASONS}
    return {
        "entries": found.entries,
        "ok": ok,
        "rejected": found.entries - ok,
        **{name: count for name, count in rejected.items() if count},
        "duplicates": ok - (people["entries"] or 0),
        "persons": people["persons"],
        "facts": people["facts"] or 0,
    }


# --- the rebuild ------------------------------------------------------------------------------------------------------------------
def rebuild(
    spark: Any,
    settings: Settings,
    as_of_ms: int | None = None,
    report: Callable[[str], None] = lambda _step: None,
    now_ms: Callable[[], int] = _wall_ms,
    catalogue: Catalogue = CATALOGUE,
) -> ManifestRow:
    """Rebuild from the archive and publish; ``report`` gets each step as it begins: pin, state, snapshot, manifest, done.

    ``as_of_ms`` (default: the largest broker time below the cut) only places the horizon.
    Raises :class:`RebuildRunning`, :class:`EmptyArchiveError`, :class:`ArchiveError`, :class:`CutRefused`,
    :class:`PublishConflict`; nothing is published then.
    """
    settings.home_path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(settings.home_path / "batch.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as error:
        raise RebuildRunning(
            f"another rebuild is running on {settings.home_path}: wait for it, then run the batch again"
        ) from error
    try:
        return _rebuild(spark, settings, as_of_ms, report, now_ms, catalogue)
    finally:
        lock.release()


class Pinned(NamedTuple):
    """What one rebuild reads: the archive's judged entries below the cut, what is there, and the row it will publish."""

    judged: DataFrame
    found: Survey
    row: ManifestRow
    catalogue: Catalogue


def pin(spark: Any, settings: Settings, as_of_ms: int | None = None, catalogue: Catalogue = CATALOGUE) -> Pinned:
    """Pin the archive's version and its cut. Raises as :func:`rebuild` does for what it refuses."""
    log = read_home_log(settings.home_path)
    archive = settings.table("archive")
    parent = current(settings.table("manifest")) or empty_manifest(log.log_start, catalogue.version)
    if not DeltaTable.is_deltatable(archive):
        raise EmptyArchiveError(
            f"there is no archive at {archive} yet: start it with `twofold up`, send events, then run the batch"
        )
    archive_version = DeltaTable(archive).version()
    cut = chained_cut(committed_ranges(archive, archive_version), log)
    follow_parent(cut, parent)
    judged = judged_entries(spark.read.format("delta").option("versionAsOf", archive_version).load(archive), cut)
    found = survey(judged)
    if found is None:
        raise EmptyArchiveError("the archive holds no entry yet: send events, `twofold wait`, then run the batch")
    seq = parent.seq + 1
    as_of = found.newest_ms if as_of_ms is None else as_of_ms
    row = ManifestRow(
        seq=seq,
        snapshot=f"s{seq:08d}-{secrets.token_hex(4)}",
        cut=cut,
        version=catalogue.version,
        as_of_ms=as_of,
        horizon_ms=catalogue.horizon(as_of, settings.batch.late_grace_days),
        cut_time_ms=found.newest_ms,
        topics=(*parent.topics, *sorted({key.topic_id for key in cut} - set(parent.topics))),
        parent=parent.seq or None,
        archive_version=archive_version,
    )
    return Pinned(judged, found, row, catalogue)


def tasks_of(entries: int) -> int:
    """Tasks of the shuffle by person: at least one a core, each with entries that sort in memory."""
    return max(cores(), -(-entries // ENTRIES_PER_TASK))


def fold_state(pinned: Pinned, location: str) -> ManifestRow:
    """Write the snapshot's persons as a new version of `state`; the row, with that version and the counts."""
    row = pinned.row
    assert row.horizon_ms is not None
    topic = F.array_position(F.array(*map(F.lit, row.topics)), F.col("topic_id")).cast("int") - 1
    ok = pinned.judged.where(F.col("verdict") == "ok").withColumn("topic", topic).select(*ENTRY)
    people = Observation()
    observed = state_rows(ok, pinned.catalogue, row.horizon_ms, tasks_of(pinned.found.entries)).observe(
        people,
        F.count(F.lit(1)).alias("persons"),
        F.sum("_entries").alias("entries"),
        F.sum("_facts").alias("facts"),
    )
    version = write_state(observed.select(*STATE), location, row.snapshot)
    return replace(row, tables={"state": version}, counts=_counts(pinned.found, people.get))


def _rebuild(
    spark: Any,
    settings: Settings,
    as_of_ms: int | None,
    report: Callable[[str], None],
    now_ms: Callable[[], int],
    catalogue: Catalogue,
) -> ManifestRow:
    report("pin")
    pinned = pin(spark, settings, as_of_ms, catalogue)
    report("state")
    state = settings.table("state")
    row = fold_state(pinned, state)
    report("snapshot")
    _remove_leftovers(settings, row)
    snapshot_file.build(snapshot_file.snapshot_path(settings.snapshots_path, row.snapshot), state, row.tables["state"], row)
    report("manifest")
    published = append_row(spark, settings.table("manifest"), replace(row, published_ms=now_ms()))
    report("done")
    return published


def _remove_leftovers(settings: Settings, row: ManifestRow) -> None:
    """Remove files of rebuilds that died, and of snapshots that will no longer be readable once ``row`` is published."""
    kept = {old.snapshot for old in readable([*rows(settings.table("manifest")), row], settings.batch.keep_snapshots + 1)}
    folder = settings.snapshots_path
    for file in (*folder.glob("s*.partial*"), *folder.glob("s*.lmdb")) if folder.exists() else ():
        if file.suffix != ".lmdb" or file.stem not in kept:
            file.unlink(missing_ok=True)

"""What a rebuild reads: the archive at a pinned version, the cut that its committed ranges chain to, the entries below it."""

from __future__ import annotations

import secrets
from typing import Any, NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.catalogue import CATALOGUE
from twofold.errors import ArchiveError, CutRefused, EmptyArchiveError
from twofold.events import ADMISSION_VERSION, REASONS
from twofold.features import Catalogue
from twofold.settings import Settings
from twofold.spark.admission import ADMITTED, admit
from twofold.stores.archive_log import CommittedRange, committed_ranges
from twofold.stores.home_log import HomeLog, shared_home_log
from twofold.stores.manifest import current
from twofold.stores.places import open_table, table_exists
from twofold.timeline import EMPTY_OFFSETS, Offsets
from twofold.views import ManifestRow, empty_manifest

_POSITION = ("topic_id", "partition", "offset", "broker_ms")


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
def below(cut: Offsets) -> Column:
    """Whether a row's position lies below a cut."""
    holds = F.lit(False)
    for topic in sorted({key.topic_id for key in cut}):
        ends = {key.partition: end for key, end in cut.items() if key.topic_id == topic}
        by_partition = F.array(*(F.lit(ends.get(p, 0)).cast("bigint") for p in range(max(ends) + 1)))
        end = F.coalesce(F.get(by_partition, F.col("partition")), F.lit(0))
        holds = holds | ((F.col("topic_id") == topic) & (F.col("offset") < end))
    return holds


def judged(entries: DataFrame) -> DataFrame:
    """Archive rows with positions and ``ADMITTED``; another admission version is judged again from its raw bytes."""
    same = F.coalesce(F.col("admission_version") == ADMISSION_VERSION, F.lit(False))
    known = entries.where(same).select(*_POSITION, *ADMITTED)
    others = entries.where(~same).select(*_POSITION, "value")
    if others.isEmpty():
        return known
    return known.unionByName(admit(others).drop("value"))


def judged_entries(archive: DataFrame, cut: Offsets, since: Offsets = EMPTY_OFFSETS) -> DataFrame:
    """:func:`judged` rows in ``[since, cut)``."""
    entries = archive.where(below(cut))
    if since:
        entries = entries.where(~below(since))
    return judged(entries)


class Survey(NamedTuple):
    """What lies below a cut: distinct positions by verdict, and the largest broker time."""

    by_verdict: dict[str, int]
    newest_ms: int

    @property
    def entries(self) -> int:
        return sum(self.by_verdict.values())

    def counts(self) -> dict[str, int]:
        """As a manifest row counts them: ``entries``, ``ok``, ``rejected``, and the rejected by reason."""
        ok = self.by_verdict.get("ok", 0)
        rejected = {f"rejected_{reason}": self.by_verdict.get(reason, 0) for reason in REASONS}
        return {
            "entries": self.entries,
            "ok": ok,
            "rejected": self.entries - ok,
            **{name: count for name, count in rejected.items() if count},
        }

    @classmethod
    def of_row(cls, row: ManifestRow) -> Survey:
        """What a published row says that lay below its cut."""
        rejected = {reason: row.counts.get(f"rejected_{reason}", 0) for reason in REASONS}
        return cls({"ok": row.counts["ok"], **rejected}, row.cut_time_ms)

    def plus(self, other: Survey | None) -> Survey:
        """Both of two disjoint ranges."""
        if other is None:
            return self
        verdicts = {**self.by_verdict, **other.by_verdict}
        added = {verdict: self.by_verdict.get(verdict, 0) + other.by_verdict.get(verdict, 0) for verdict in verdicts}
        return Survey(added, max(self.newest_ms, other.newest_ms))


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


# --- the pin -------------------------------------------------------------------------------------------------------
class Span(NamedTuple):
    """Where a rebuild begins and ends, before an entry is read.

    ``parent`` is the snapshot before (``seq`` 0: none), ``archive`` the table at its pinned version, ``cut`` what it has committed.
    """

    parent: ManifestRow
    archive: DataFrame
    archive_version: int
    cut: Offsets


class Pinned(NamedTuple):
    """What one rebuild reads: the archive's judged entries below the cut, what is there, and the row it will publish.

    ``archive`` is the table at its pinned version; ``parent`` the snapshot before (``seq`` 0: none).
    """

    judged: DataFrame
    found: Survey
    row: ManifestRow
    catalogue: Catalogue
    archive: DataFrame
    parent: ManifestRow


def archive_at(spark: Any, settings: Settings, version: int) -> DataFrame:
    """The archive as it was at a version."""
    return spark.read.format("delta").option("versionAsOf", version).load(settings.table("archive"))


def pin_span(spark: Any, settings: Settings, catalogue: Catalogue) -> Span:
    """Raises :class:`EmptyArchiveError`, :class:`ArchiveError`, :class:`CutRefused`."""
    log = shared_home_log(settings)
    archive = settings.table("archive")
    parent = current(settings.table("manifest")) or empty_manifest(log.log_start, catalogue.version)
    if not table_exists(archive):
        raise EmptyArchiveError(
            f"there is no archive at {archive} yet: start it with `twofold up`, send events, then run the batch"
        )
    version = open_table(archive).version()
    cut = chained_cut(committed_ranges(archive, version), log)
    follow_parent(cut, parent)
    return Span(parent, archive_at(spark, settings, version), version, cut)


def pinned_span(
    span: Span, judged: DataFrame, found: Survey, settings: Settings, catalogue: Catalogue, as_of_ms: int | None
) -> Pinned:
    """The pin with the row that will be published, without tables and counts; ``as_of_ms`` defaults to the newest broker time."""
    parent, seq = span.parent, span.parent.seq + 1
    as_of = found.newest_ms if as_of_ms is None else as_of_ms
    row = ManifestRow(
        seq=seq,
        snapshot=f"s{seq:08d}-{secrets.token_hex(4)}",
        cut=span.cut,
        version=catalogue.version,
        as_of_ms=as_of,
        horizon_ms=catalogue.horizon(as_of, settings.batch.late_grace_days),
        cut_time_ms=found.newest_ms,
        topics=(*parent.topics, *sorted({key.topic_id for key in span.cut} - set(parent.topics))),
        parent=parent.seq or None,
        archive_version=span.archive_version,
    )
    return Pinned(judged, found, row, catalogue, span.archive, parent)


def pin(spark: Any, settings: Settings, as_of_ms: int | None = None, catalogue: Catalogue = CATALOGUE) -> Pinned:
    """Pin the archive's version and its cut. Raises as :func:`rebuild` does for what it refuses."""
    span = pin_span(spark, settings, catalogue)
    judged = judged_entries(span.archive, span.cut)
    found = survey(judged)
    if found is None:
        raise EmptyArchiveError("the archive holds no entry yet: send events, `twofold wait`, then run the batch")
    return pinned_span(span, judged, found, settings, catalogue, as_of_ms)


def slice_of(spark: Any, settings: Settings, archive: DataFrame, cut: Offsets, parent: ManifestRow) -> DataFrame:
    """Judged entries in ``[parent.cut, cut)``, read from the files that the archive has since the parent's version.

    A file that was there already holds nothing of the slice: a commit's entries lie in the range that the commit names. Files
    that maintenance wrote anew are read too, and their old entries left out by position.
    """
    if parent.archive_version is None:
        return judged_entries(archive, cut, parent.cut)
    known = set(archive_at(spark, settings, parent.archive_version).inputFiles())
    files = [file for file in archive.inputFiles() if file not in known]
    # Plain Parquet: the archive has neither deletion vectors nor column mapping nor partitions.
    since = spark.read.schema(archive.schema).parquet(*files) if files else archive.limit(0)
    return judged_entries(since, cut, parent.cut)

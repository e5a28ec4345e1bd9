"""Rollback: one more manifest row that names an old snapshot. Nothing is rewritten; readers move to it as to any publish.

Only a readable snapshot can be current again: its tables and file are kept, and the hot store still reaches down to its cut,
whatever is published, trimmed or removed meanwhile. If something is published between the look and the row, the row's number is
taken and the rollback is refused.
"""

from __future__ import annotations

from dataclasses import replace

from twofold.errors import RebuildRunning, RollbackRefused, StoreError, UsageError
from twofold.merge import find_gap
from twofold.settings import Settings
from twofold.stores.lmdb_hot import LmdbHotReader
from twofold.stores.manifest import append_without_spark, rows
from twofold.stores.one_writer import take_writer
from twofold.stores.pins import read_pins
from twofold.stores.readable import readable
from twofold.stores.snapshot_file import build, snapshot_path
from twofold.stores.snapshot_place import is_published, publish_snapshot
from twofold.stores.table_files import check_whole
from twofold.views import ManifestRow


def rollback_row(settings: Settings, seq: int, version: str, now_ms: int) -> ManifestRow:
    """The row that makes snapshot ``seq`` current again under the running definition ``version``.

    Raises :class:`UsageError` for a number that means nothing, :class:`RollbackRefused` for a snapshot that cannot serve.
    """
    published = rows(settings.table("manifest"))
    old = next((row for row in published if row.seq == seq), None)
    if old is None:
        raise UsageError(f"there is no snapshot {seq}: `twofold snapshots` shows what was published")
    current = published[-1]
    if old.snapshot == current.snapshot:
        raise UsageError(f"snapshot {old.snapshot} of row {seq} is the current one already")
    # A topic that was named since stays named: its place among the topics is for ever.
    topics = max(old.topics, current.topics, key=len)
    row = replace(old, seq=current.seq + 1, parent=current.seq, topics=topics, published_ms=now_ms)
    _check(settings, old, published, version)
    _check_hot(settings, old.seq, row)
    return row


def roll_back(settings: Settings, seq: int, version: str, now_ms: int) -> ManifestRow:
    """Publish :func:`rollback_row` without Spark, for tables on local disk. Raises :class:`PublishConflict` too."""
    row = rollback_row(settings, seq, version, now_ms)
    if not is_published(settings, row.snapshot):
        # A rebuild clears away half-written files: not while this one is written.
        with take_writer(settings, "batch", RebuildRunning, "rebuild"):
            restore_file(settings, row)
    return append_without_spark(settings.table("manifest"), row)


def restore_file(settings: Settings, row: ManifestRow) -> None:
    """Build the snapshot file of a row again from `state`, if it is gone. The caller is the one writer `batch`."""
    if not is_published(settings, row.snapshot):
        build(snapshot_path(settings.snapshots_path, row.snapshot), settings.table("state"), row.tables["state"], row)
        publish_snapshot(settings, row.snapshot)


def _refused(seq: int, why: str) -> RollbackRefused:
    return RollbackRefused(f"snapshot {seq} cannot be current again: {why}")


def _check(settings: Settings, old: ManifestRow, published: list[ManifestRow], version: str) -> None:
    kept = [row.seq for row in readable(published, settings.batch.keep_snapshots, read_pins(settings))]
    if old.seq not in kept:
        raise _refused(old.seq, f"it is not readable any more; readable are {', '.join(map(str, kept))}")
    if old.version != version:
        raise _refused(old.seq, f"it was made under definition {old.version}, running is {version}; run `twofold batch` instead")
    for name, table_version in old.tables.items():
        try:
            check_whole(settings.table(name), table_version)
        except StoreError as error:
            raise _refused(old.seq, str(error)) from error


def _check_hot(settings: Settings, seq: int, row: ManifestRow) -> None:
    if not (settings.hot_path / "data.mdb").exists():
        # This node reads the snapshot alone.
        return
    hot = LmdbHotReader(settings.hot_path, settings.hot.map_size_bytes)
    try:
        view = hot.vectors()
    finally:
        hot.close()
    gap = find_gap(row, view)
    if gap:
        key, cut = gap[0], row.cut.next(gap[0])
        raise _refused(
            seq,
            f"the hot store begins at {view.low.next(key)} in partition {key.partition}, its cut is {cut}: a gap for everyone",
        )

"""What nothing readable needs any more, and its removal. No Spark, and no commit: a vacuum cannot conflict with a writer.

Delta's own VACUUM goes by time, so that it may remove what a readable snapshot names and keep what none does. Here the kept rows of
the manifest decide. Published tables (those that manifest rows name): the files of the kept rows' versions stay, of the newest
version, and of every version above the newest published one, which a rebuild may be about to publish. Of the rest goes what some
commit names, because then it is no write in flight; what no commit names goes once it is older than ``retention.orphan_hours``.

Tables of streams (`archive`, `manifest`): their readers follow the log of commits, not the manifest. A file stays while it is in
the newest version, was in the table within the last ``retention.stream_days``, or is in a version of `archive` that a kept row was
made from. `personalization` is cleaned by its own writer.

The files are listed before the manifest and the logs are read: whatever is written later was not in the list.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from twofold.settings import Settings
from twofold.stores.files import Found
from twofold.stores.manifest import rows
from twofold.stores.places import file_names, open_table, table_exists, version_at
from twofold.stores.readable import kept as kept_rows
from twofold.stores.snapshot_place import let_go
from twofold.stores.table_files import remove_files, stored_files
from twofold.timeline import DAY_MS, HOUR_MS
from twofold.views import ManifestRow

_STREAMS = ("archive", "manifest")


class Removed(NamedTuple):
    """What went, or would go, of one place; ``kept`` are the versions whose files stay."""

    place: str
    files: int
    size_bytes: int
    kept: tuple[int, ...] = ()


def vacuum(settings: Settings, now_ms: int, dry_run: bool = False) -> list[Removed]:
    """Remove what no readable snapshot, pin, audit or stream needs; one line a table, and one of snapshot files.

    Raises :class:`StoreError`, before anything of a table is removed, where its log cannot be read.
    """
    manifest = settings.table("manifest")
    if not table_exists(manifest):
        return []
    known = {name for row in rows(manifest) for name in row.tables}
    names = [*sorted(known), *(name for name in _STREAMS if name not in known and table_exists(settings.table(name)))]
    stored = {name: stored_files(settings.table(name)) for name in names}
    published = rows(manifest)
    kept = kept_rows(settings, published, settings.batch.keep_snapshots)
    out = []
    for name in names:
        location = settings.table(name)
        if name in known:
            versions = _published_versions(location, name, published, kept)
            gone = _let_go(location, stored[name], versions, published_to(name, published), now_ms, settings)
        else:
            versions = sorted({row.archive_version for row in kept if row.archive_version is not None}) if name == "archive" else []
            gone = _outlived(location, stored[name], versions, now_ms, settings)
        if not dry_run:
            remove_files(location, sorted(gone))
        out.append(Removed(name, len(gone), sum(stored[name][file].size_bytes for file in gone), tuple(versions)))
    files, size_bytes = let_go(settings, {row.snapshot for row in kept}, published[-1].seq, dry_run)
    return [*out, Removed("snapshots", files, size_bytes, tuple(row.seq for row in kept))]


# --- published tables -------------------------------------------------------------------------------------------------------------
def published_to(name: str, published: Collection[ManifestRow]) -> int:
    """The newest version of a table that any row names."""
    return max(row.tables[name] for row in published if name in row.tables)


def _published_versions(location: str, name: str, published: Collection[ManifestRow], kept: Collection[ManifestRow]) -> list[int]:
    newest = int(open_table(location).version())
    unpublished = range(published_to(name, published) + 1, newest + 1)
    return sorted({*(row.tables[name] for row in kept if name in row.tables), *unpublished, newest})


def _let_go(
    location: str, stored: dict[str, Found], versions: list[int], published: int, now_ms: int, settings: Settings
) -> set[str]:
    candidates = stored.keys() - set().union(*(file_names(location, version) for version in versions))
    old_ms = now_ms - settings.retention.orphan_hours * HOUR_MS
    gone = {file for file in candidates if stored[file].written_ms < old_ms}
    young = candidates - gone
    # Newest first: what was let go last is found at once, and the oldest versions have nothing left to find.
    for version in sorted(set(range(published + 1)) - set(versions), reverse=True):
        if not young:
            break
        named = file_names(location, version) & young
        gone |= named
        young -= named
    return gone


# --- tables of streams ------------------------------------------------------------------------------------------------------------
def _outlived(location: str, stored: dict[str, Found], versions: list[int], now_ms: int, settings: Settings) -> set[str]:
    window_ms = now_ms - settings.retention.stream_days * DAY_MS
    # A file that came into the table within the window was written in it, or up to one long write before it.
    old = {file for file, found in stored.items() if found.written_ms < window_ms - settings.retention.orphan_hours * HOUR_MS}
    for version in (None, *versions):
        old -= file_names(location, version) if old else set()
    return old - file_names(location, version_at(location, window_ms)) if old else set()

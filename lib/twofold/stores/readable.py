"""Which snapshots are still readable, and so how far down the hot store must reach."""

from __future__ import annotations

from collections.abc import Sequence

from twofold.stores.manifest import rows
from twofold.timeline import Offsets
from twofold.views import ManifestRow


def readable(published: Sequence[ManifestRow], keep: int) -> list[ManifestRow]:
    """The newest ``keep`` rows by sequence number; a rollback's row names an old snapshot and counts as one."""
    return sorted(published, key=lambda row: row.seq)[-keep:]


def lowest_cut(published: Sequence[ManifestRow], keep: int) -> Offsets | None:
    """Partition-wise lowest cut of the readable snapshots; ``None`` while there are fewer than ``keep`` (the empty one counts)."""
    newest = readable(published, keep)
    if len(newest) < keep:
        return None
    return Offsets({key: min(row.cut.next(key) for row in newest) for row in newest for key in row.cut})


def survey_manifest(manifest: str, keep: int) -> tuple[Offsets | None, str | None]:
    """(:func:`lowest_cut`, version of the current snapshot) of a manifest table; ``None`` where nothing says so yet."""
    published = rows(manifest)
    return lowest_cut(published, keep), published[-1].version if published else None

"""Which snapshots are still readable, and so how far down the hot store must reach and which files must stay.

Readable are the newest rows of the manifest and those that are pinned by number. A campaign's pin keeps its snapshot's files and no
hot facts. Whoever decides by it reads the manifest first and the
pins after it, whoever pins writes the pin first: so a pin that was granted is seen by all who would have let its snapshot go.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from twofold.errors import UsageError
from twofold.settings import Settings
from twofold.stores.campaign_pins import (
    CampaignPin,
    create_campaign_pin,
    kept_seqs,
    read_campaign_pins,
    remove_campaign_pin,
)
from twofold.stores.manifest import rows
from twofold.stores.pins import read_pins, remove_pin, write_pin
from twofold.timeline import Offsets
from twofold.views import ManifestRow


def readable(published: Sequence[ManifestRow], keep: int, pinned: Collection[int] = ()) -> list[ManifestRow]:
    """The newest ``keep`` rows by sequence number and the pinned ones. A rollback's row names an old snapshot and counts as one."""
    ordered = sorted(published, key=lambda row: row.seq)
    return [row for row in ordered[:-keep] if row.seq in pinned] + ordered[-keep:]


def lowest_cut(published: Sequence[ManifestRow], keep: int, pinned: Collection[int] = ()) -> Offsets | None:
    """Partition-wise lowest cut of the readable snapshots; ``None`` while there are fewer than ``keep`` (the empty one counts)."""
    if len(published) < keep:
        return None
    kept = readable(published, keep, pinned)
    return Offsets({key: min(row.cut.next(key) for row in kept) for row in kept for key in row.cut})


def survey_manifest(settings: Settings) -> tuple[Offsets | None, str | None]:
    """(:func:`lowest_cut`, version of the current snapshot) of a home; ``None`` where nothing says so yet."""
    published = rows(settings.table("manifest"))
    cut = lowest_cut(published, settings.batch.keep_snapshots, read_pins(settings))
    return cut, published[-1].version if published else None


def pin_readable(settings: Settings, seq: int) -> None:
    """Pin a snapshot that is readable. Raises :class:`UsageError` when it is not: then what it needs may be gone already."""
    if seq in read_pins(settings):
        return
    write_pin(settings, seq)
    if seq not in {row.seq for row in readable(rows(settings.table("manifest")), settings.batch.keep_snapshots)}:
        remove_pin(settings, seq)
        raise UsageError(f"snapshot {seq} is not readable any more: `twofold snapshots` shows what is")


def kept(settings: Settings, published: Sequence[ManifestRow], keep: int) -> list[ManifestRow]:
    """Rows whose tables and snapshot file stay: the newest ``keep``, and those that a pin of either kind names.

    ``published`` was read before, as the order above asks.
    """
    return readable(published, keep, kept_seqs(settings))


def grant_campaign_pin(settings: Settings, pin: CampaignPin) -> None:
    """Store a pin, if its snapshot is kept then. Raises :class:`UsageError` when it is not, or when the name is taken."""
    create_campaign_pin(settings, pin)
    others = read_pins(settings) | {other.seq for other in read_campaign_pins(settings) if other.name != pin.name}
    if pin.seq not in {row.seq for row in readable(rows(settings.table("manifest")), settings.batch.keep_snapshots, others)}:
        remove_campaign_pin(settings, pin.name)
        raise UsageError(f"snapshot {pin.seq} is not kept any more: `twofold snapshots` shows what is")

"""What was published, as `twofold snapshots` shows it."""

from __future__ import annotations

from typing import NamedTuple

from twofold.settings import Settings
from twofold.stores.campaign_pins import read_campaign_pins
from twofold.stores.manifest import rows
from twofold.stores.pins import read_pins
from twofold.stores.readable import readable
from twofold.views import ManifestRow


class Listed(NamedTuple):
    """A manifest row and what it is now. ``back_to``: the row whose snapshot a rollback made current again.

    ``pinned``: by its number; ``campaigns``: names of the pins that rest on it.
    """

    row: ManifestRow
    current: bool
    readable: bool
    pinned: bool
    back_to: int | None
    campaigns: tuple[str, ...] = ()


def back_to(row: ManifestRow, published: list[ManifestRow]) -> int | None:
    """The number under which a rollback's snapshot was first published; ``None`` for a row of a batch."""
    first = min((old.seq for old in published if old.snapshot == row.snapshot), default=row.seq)
    return first if first < row.seq else None


def listing(settings: Settings) -> list[Listed]:
    """Every row of the manifest, the newest first."""
    published = rows(settings.table("manifest"))
    pins = read_pins(settings)
    kept = {row.seq for row in readable(published, settings.batch.keep_snapshots, pins)}
    newest = published[-1].seq if published else 0
    campaigns: dict[int, list[str]] = {}
    for pin in read_campaign_pins(settings):
        campaigns.setdefault(pin.seq, []).append(pin.name)
    return [
        Listed(
            row,
            row.seq == newest,
            row.seq in kept,
            row.seq in pins,
            back_to(row, published),
            tuple(campaigns.get(row.seq, ())),
        )
        for row in reversed(published)
    ]

"""Snapshots pinned by number: they stay readable, whatever is published after them, until they are let go.

A pin is one empty file ``pins/SEQ`` beside the tables, so that every home of these tables sees it. While a snapshot is pinned, its
tables, its file and the hot facts above its cut stay.
"""

from __future__ import annotations

from twofold.settings import Settings
from twofold.stores.files import Folder, folder


def _pins(settings: Settings) -> Folder:
    return folder(settings.tables_place / "pins")


def read_pins(settings: Settings) -> frozenset[int]:
    """Sequence numbers that are pinned."""
    return frozenset(int(name) for name in _pins(settings).names() if name.isdigit())


def write_pin(settings: Settings, seq: int) -> None:
    _pins(settings).write(str(seq), b"")


def remove_pin(settings: Settings, seq: int) -> None:
    """Nothing when it was not pinned."""
    _pins(settings).remove(str(seq))

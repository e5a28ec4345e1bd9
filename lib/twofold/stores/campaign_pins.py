"""Pins of campaigns: a name for (snapshot, t, O, definition), under which records keep their values.

A pin is one JSON file ``pins/NAME`` beside the tables, so that every home of these tables reads the same under it; it never
changes. While it is there the tables and the file of its snapshot stay. Hot facts do not: what was trimmed is in `archive`.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from twofold.errors import StoreError, UsageError
from twofold.settings import Settings
from twofold.stores.files import Folder, folder
from twofold.stores.pins import read_pins
from twofold.timeline import Offsets

#: Lower case, because not every disk tells cases apart; digits alone are the number of a snapshot.
_NAME = re.compile(r"(?![0-9]+\Z)[a-z0-9][a-z0-9_-]{0,63}\Z")


class CampaignPin(msgspec.Struct, frozen=True):
    """A snapshot by number and id, the instant t, O as ``high``, the version ``<admission>/<definition>``; times in epoch ms."""

    name: str
    seq: int
    snapshot: str
    t: int
    high: dict[str, dict[str, int]]
    version: str
    pinned_ms: int

    @property
    def offsets(self) -> Offsets:
        return Offsets.from_json(self.high)


_DECODER = msgspec.json.Decoder(CampaignPin)


def _pins(settings: Settings) -> Folder:
    return folder(settings.tables_place / "pins")


def check_name(name: str) -> None:
    """Raises :class:`UsageError` for what cannot be a pin's name."""
    if not _NAME.match(name):
        raise UsageError(
            f"{name!r} cannot be a pin's name: take lower-case letters, digits, - and _, at most 64, a letter or digit first, "
            "and not digits alone"
        )


def read_campaign_pins(settings: Settings) -> list[CampaignPin]:
    """Every pin, by name. Raises :class:`StoreError` where one cannot be read: nobody may let go what it holds."""
    found: Any = (_read(settings, name) for name in _pins(settings).names() if _NAME.match(name))
    return [pin for pin in found if pin is not None]


def _read(settings: Settings, name: str) -> CampaignPin | None:
    data = _pins(settings).read(name)
    if data is None:
        return None
    try:
        return _DECODER.decode(data)
    except msgspec.MsgspecError as error:
        raise StoreError(f"pin {name} is damaged ({error}): let it go with `twofold unpin {name}` and pin again") from error


def read_campaign_pin(settings: Settings, name: str) -> CampaignPin:
    """A pin by its name. Raises :class:`UsageError` when there is none."""
    check_name(name)
    pin = _read(settings, name)
    if pin is None:
        raise _unknown(name)
    return pin


def create_campaign_pin(settings: Settings, pin: CampaignPin) -> None:
    """Raises :class:`UsageError` when the name is taken: what was read under a pin must not move."""
    check_name(pin.name)
    if not _pins(settings).create(pin.name, msgspec.json.encode(pin)):
        raise UsageError(f"pin {pin.name} is there already: take another name, or let it go first with `twofold unpin {pin.name}`")


def remove_campaign_pin(settings: Settings, name: str) -> None:
    """Let a pin go. Raises :class:`UsageError` when there is none."""
    check_name(name)
    if name not in _pins(settings).names():
        raise _unknown(name)
    _pins(settings).remove(name)


def _unknown(name: str) -> UsageError:
    return UsageError(f"there is no pin {name}: `twofold pins` shows what there is")


def kept_seqs(settings: Settings) -> frozenset[int]:
    """Numbers of the snapshots whose tables and file stay for a pin of either kind."""
    return read_pins(settings) | {pin.seq for pin in read_campaign_pins(settings)}

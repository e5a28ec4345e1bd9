"""Pins in a simulated history: what a pin held when it was made must be answered under it however the history goes on.

The right answer is the oracle's at the pinned (t, O); consent and permission are those of a read of now, which is held to its own.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

import msgspec

from twofold.catalogue import CONSENT_FEATURES
from twofold.events import Entry
from twofold.pinned import PinnedAt, PinnedRecord, Source, Standing, reaches, read_pinned
from twofold.record import Record
from twofold.testing.naive_segments import SEGMENTS
from twofold.testing.world import CATALOGUES, World
from twofold.timeline import Offsets
from twofold.views import ManifestRow

#: A history that pins more lets go of its oldest pin.
MOST_PINS = 3


class Pin(NamedTuple):
    """A pin as the world notes it: the row as it was read then, the instant, and the end of what was read."""

    name: str
    row: ManifestRow
    t: int
    high: Offsets

    @property
    def offsets(self) -> Offsets:
        return self.row.cut.join(self.high)


class Pinning:
    """The pins of one history, and what they answered first."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.pins: list[Pin] = []
        self._made = 0
        #: (pin, person) -> values and field states of the first read, consent apart
        self._first: dict[tuple[str, str], bytes] = {}

    def pin(self, row: ManifestRow, high: Offsets, t: int) -> Pin:
        """Pin what a read of the snapshot ``row`` up to ``high`` at ``t`` was answered from."""
        self._made += 1
        made = Pin(f"pin{self._made}", self._world.manifest(row), t, row.cut.join(high))
        self.pins = [*self.pins, made][-MOST_PINS:]
        return made

    def pick(self, rng: Random) -> Pin | None:
        """One that may be read: its definition is the one that the newest row was made under, so installed."""
        installed = self._world.rows[-1].version
        may = [pin for pin in self.pins if pin.row.version == installed]
        return rng.choice(may) if may else None

    def read(self, pin: Pin, person: str, standing: Standing, between: Callable[[], None] | None) -> PinnedRecord:
        """What the product answers: entries from the hot store while that reaches down to the cut, else from the archive."""
        world, row = self._world, pin.row
        hot = world.read_hot(person, between)
        source: Source = "hot" if reaches(hot, row.cut, pin.high, row.version) else "archive"
        entries = hot.entries if source == "hot" else self._archived(pin, person)
        at = PinnedAt(
            pin.name, row.snapshot, row.cut.to_json(), pin.high.to_json(), row.as_of_ms, pin.t, row.version, source=source
        )
        snapshot = world.person(row, person)
        return read_pinned(CATALOGUES[row.version], person, at, row, snapshot, pin.high, entries, standing, SEGMENTS)

    def _archived(self, pin: Pin, person: str) -> tuple[Entry, ...]:
        """The archive's slice, admitted again from its raw bytes."""
        world, cut, high = self._world, pin.row.cut, pin.high
        within = (m for m in world.arrivals if high.holds(m.position) and not cut.holds(m.position))
        admitted = (world.admit(pin.row.version, message) for message in within)
        return tuple(entry for entry in admitted if entry.verdict == "ok" and entry.person == person)

    def what_moved(self, pin: Pin, record: PinnedRecord, now: Record) -> str | None:
        """What is wrong beside the values: consent that is not the one of ``now``, or another answer than the first."""
        if record.sendable != now.sendable:
            return f"sendable is {record.sendable}, now it is {now.sendable}"
        for name in CONSENT_FEATURES:
            if (record.values[name], record.fields[name]) != (now.values[name], now.fields[name]):
                return f"{name} is {record.values[name]!r} ({record.fields[name]}), now it is {now.values[name]!r}"
        said = msgspec.json.encode(pinned_parts(record))
        first = self._first.setdefault((pin.name, record.person), said)
        return None if said == first else f"values were {first!r} and are {said!r}"


def pinned_parts(record: PinnedRecord) -> tuple[dict[str, Any], dict[str, Any]]:
    """Values and field states without what is never pinned."""
    values = {name: value for name, value in record.values.items() if name not in CONSENT_FEATURES}
    return values, {name: record.fields[name] for name in values}

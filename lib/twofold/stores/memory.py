"""Stores in memory: the simulator's, and the smallest example of what a store must offer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from twofold.events import Entry
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey, Position
from twofold.views import Heartbeat, HotView, ManifestRow, PersonSnapshot, VersionRange


@dataclass(frozen=True)
class MemorySnapshot:
    """A snapshot whose persons are packed byte strings, as in a snapshot file."""

    row: ManifestRow
    blobs: Mapping[str, bytes] = field(default_factory=dict)

    def person(self, person: str) -> PersonSnapshot | None:
        blob = self.blobs.get(person)
        return None if blob is None else PersonSnapshot.unpack(blob)

    def persons(self) -> Iterator[str]:
        return iter(sorted(self.blobs))

    def close(self) -> None:
        """Nothing to release."""


class MemoryHot:
    """A hot store in memory: entries by person and position, and the vectors that bound them."""

    def __init__(self, start: Offsets = EMPTY_OFFSETS) -> None:
        self.low: dict[PartitionKey, int] = dict(start)
        self.high: dict[PartitionKey, int] = dict(start)
        self.high_broker_ms: dict[PartitionKey, int] = {}
        self.versions: dict[PartitionKey, list[VersionRange]] = {}
        self.heartbeat: Heartbeat | None = None
        self._entries: dict[str, dict[Position, Entry]] = {}

    def put(self, entries: Iterable[Entry]) -> None:
        """Store ok entries (rejected ones carry no facts); ``advance`` makes them visible."""
        for entry in entries:
            if entry.verdict == "ok" and entry.person is not None:
                self._entries.setdefault(entry.person, {})[entry.position] = entry

    def advance(self, key: PartitionKey, high: int, version: str, broker_ms: int | None = None) -> None:
        """Raise ``high`` of a partition, recording the version that the new positions were admitted under."""
        start = self.high.setdefault(key, 0)
        self.low.setdefault(key, start)
        if high > start:
            self.versions[key] = extend_ranges(self.versions.get(key, ()), VersionRange(start, high, version))
            self.high[key] = high
        if broker_ms is not None:
            self.high_broker_ms[key] = broker_ms

    def trim(self, cut: Offsets) -> None:
        """Raise ``low`` first, then delete what lies below it."""
        for key in self.low:
            self.low[key] = max(self.low[key], cut.next(key))
        for entries in self._entries.values():
            for position in [p for p in entries if p.offset < self.low[PartitionKey(p.topic_id, p.partition)]]:
                del entries[position]

    def view(self, person: str, since: Offsets = EMPTY_OFFSETS) -> HotView:  # noqa: ARG002
        high = Offsets(self.high)
        entries = tuple(self._entries.get(person, {}).values())
        low = Offsets(self.low)
        versions = {key: tuple(ranges) for key, ranges in self.versions.items()}
        return HotView(high, low, entries, versions, self.heartbeat, dict(self.high_broker_ms))

    def persons(self) -> Iterator[str]:
        return iter(sorted(self._entries))

    def close(self) -> None:
        """Nothing to release."""


def extend_ranges(ranges: Iterable[VersionRange], added: VersionRange) -> list[VersionRange]:
    """Ranges with one appended, joined to the last when it continues it under the same version."""
    out = list(ranges)
    if out and out[-1].version == added.version and out[-1].end == added.start:
        out[-1] = VersionRange(out[-1].start, added.end, added.version)
    else:
        out.append(added)
    return out

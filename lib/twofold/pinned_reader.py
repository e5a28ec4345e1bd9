"""Reading under a campaign's pin: the pinned snapshot merged with the entries from its cut up to the pinned O.

The entries come from the hot store while that reaches down to the cut, else from `archive`. Nothing is lost between the two: the
hot store lets go only of what lies below the cut of a newer snapshot, and a snapshot's cut is what `archive` had committed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, Protocol

import msgspec

from twofold.events import Entry
from twofold.features import Catalogue
from twofold.pinned import PinnedAt, PinnedRecord, Source, Standing, reaches, read_pinned
from twofold.segments import Segments
from twofold.settings import Settings
from twofold.stores.archive_slice import ArchiveSlice
from twofold.stores.campaign_pins import CampaignPin
from twofold.stores.pin_terms import check_definition, not_there_yet, pinned_row
from twofold.stores.snapshot_file import SnapshotFile
from twofold.stores.snapshot_place import fetch_snapshot
from twofold.timeline import Offsets
from twofold.views import HotView

_CHUNK_PERSONS = 1_000


class Layers(Protocol):
    """The current layers of a home, as :class:`twofold.reader.Reader` has them."""

    def standing(self, person: str) -> Standing: ...

    def hot_view(self, person: str, since: Offsets) -> HotView: ...

    def hot_persons(self) -> Iterator[str]: ...

    def vectors(self) -> HotView: ...

    def persons(self) -> Iterator[str]: ...

    def offsets(self) -> Offsets: ...


class PinnedReader:
    """Records under one pin: the same (t, O) whenever they are read; consent and ``sendable`` are the current ones.

    Close it, or use it as a context.
    """

    def __init__(self, settings: Settings, catalogue: Catalogue, segments: Segments, pin: CampaignPin, layers: Layers) -> None:
        """``layers`` are not closed with it. See :meth:`twofold.reader.Reader.pinned`."""
        check_definition(pin, catalogue)
        self.pin = pin
        self._settings, self._catalogue, self._segments, self._layers = settings, catalogue, segments, layers
        row = pinned_row(settings, pin)
        self._row, self._high = row, pin.offsets
        self._at = PinnedAt(
            pin=pin.name,
            snapshot=row.snapshot,
            cut=row.cut.to_json(),
            high=pin.high,
            as_of=row.as_of_ms,
            t=pin.t,
            version=pin.version,
            source="hot",
        )
        #: The slice of everyone, once it was needed.
        self._everyone: ArchiveSlice | None = None
        self._snapshot = SnapshotFile(fetch_snapshot(settings, row), row)

    def record(self, person: str) -> PinnedRecord:
        """The record of a person; of someone unknown at (t, O) the default one.

        From `archive` each call is a pass over the slice: ask :meth:`records` for many.
        """
        return next(self.records([person]))

    def records(self, persons: Iterable[str] | None = None) -> Iterator[PinnedRecord]:
        """Records in the order of ``persons`` (default: :meth:`persons`), with one pass over the archive's slice at most for all.

        Raises :class:`PinError` where entries are neither in the hot store nor, yet, in `archive`.
        """
        chosen = self.persons() if persons is None else list(persons)
        archived: ArchiveSlice | None = None
        left = iter(chosen)
        while chunk := list(islice(left, _CHUNK_PERSONS)):
            # The hot store may be trimmed while this goes on.
            entries = self._from_hot(chunk) if archived is None else None
            source: Source = "hot"
            if entries is None:
                archived = archived or self._slice(chosen)
                entries, source = self._from_archive(archived, chunk), "archive"
            at = msgspec.structs.replace(self._at, source=source)
            for person in chunk:
                yield self._record(person, entries.get(person, ()), at)

    def persons(self) -> list[str]:
        """Every person with an ok entry in O who was not erased since, sorted."""
        found = set(self._snapshot.persons())
        all_hot = self._reached(self._layers.vectors(), self._row.cut)
        if not all_hot:
            self._everyone = self._everyone or self._slice(None)
            found |= self._everyone.persons()
        if all_hot or not (self._everyone and self._everyone.reached.covers(self._high)):
            strangers = (person for person in self._layers.hot_persons() if person not in found)
            found.update([person for person in strangers if self._in_range(self._hot_view(person))])
        if self._layers.offsets().covers(self._high):
            found.intersection_update(self._layers.persons())
        return sorted(found)

    # --- entries in [cut, high) -------------------------------------------------------------------------------------------------
    def _hot_view(self, person: str) -> HotView:
        return self._layers.hot_view(person, self._row.cut)

    def _reached(self, hot: HotView, start: Offsets) -> bool:
        return reaches(hot, start, self._high, self.pin.version)

    def _in_range(self, hot: HotView) -> bool:
        return any(self._high.holds(entry.position) for entry in hot.entries)

    def _from_hot(self, persons: list[str]) -> Mapping[str, Sequence[Entry]] | None:
        """``None`` where the hot store does not hold them all."""
        found: dict[str, Sequence[Entry]] = {}
        for person in persons:
            view = self._hot_view(person)
            if not self._reached(view, self._row.cut):
                return None
            found[person] = view.entries
        return found

    def _slice(self, persons: list[str] | None) -> ArchiveSlice:
        if self._everyone is not None:
            return self._everyone
        wanted = None if persons is None else set(persons)
        return ArchiveSlice(self._settings.table("archive"), self.pin.version, self._row.cut, self._high, wanted)

    def _from_archive(self, archived: ArchiveSlice, persons: list[str]) -> Mapping[str, Sequence[Entry]]:
        found = archived.entries(persons)
        if archived.reached.covers(self._high):
            return found
        # The archive is behind: what it lacks is still hot.
        start = self._row.cut.join(archived.reached)
        for person in persons:
            view = self._hot_view(person)
            if not self._reached(view, start):
                raise not_there_yet(self.pin, start, self._high)
            found.setdefault(person, []).extend(entry for entry in view.entries if not start.holds(entry.position))
        return found

    def _record(self, person: str, entries: Iterable[Entry], at: PinnedAt) -> PinnedRecord:
        snapshot, standing = self._snapshot.person(person), self._layers.standing(person)
        return read_pinned(self._catalogue, person, at, self._row, snapshot, self._high, entries, standing, self._segments)

    def close(self) -> None:
        self._snapshot.close()

    def __enter__(self) -> PinnedReader:
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()


__all__ = ["Layers", "PinnedReader"]

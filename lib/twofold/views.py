"""What the merge reads: a manifest row, a person's part of a snapshot, a person's hot view; and what a store must offer."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec
import numpy as np

from twofold.columns import EMPTY_COLUMNS, I8, FactColumns
from twofold.errors import StoreError
from twofold.events import Entry
from twofold.timeline import DAY_MS, EMPTY_OFFSETS, Offsets, PartitionKey


@dataclass(frozen=True)
class ManifestRow:
    """One published snapshot. ``cut_time_ms`` is the largest broker time below the cut; times in epoch ms.

    The empty snapshot (before the first batch) has ``seq`` 0, no ``as_of_ms``, and the log start as its cut.
    """

    seq: int
    snapshot: str
    cut: Offsets
    version: str
    as_of_ms: int | None = None
    horizon_ms: int | None = None
    cut_time_ms: int = -1
    topics: tuple[str, ...] = ()
    parent: int | None = None
    archive_version: int | None = None
    tables: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)
    validation: Mapping[str, Any] = field(default_factory=dict)
    audit: Mapping[str, Any] = field(default_factory=dict)
    published_ms: int | None = None

    def earliest_ms(self, late_grace_days: int) -> int | None:
        """The first instant of the range that reads of this snapshot are exact in; ``None``: they always are."""
        return None if self.as_of_ms is None else self.as_of_ms - late_grace_days * DAY_MS

    def below_range(self, t: int, late_grace_days: int) -> bool:
        """Whether facts that a read at ``t`` counts may be folded together with ones that it does not."""
        earliest_ms = self.earliest_ms(late_grace_days)
        return earliest_ms is not None and t < earliest_ms

    def topic_ordinal(self, topic_id: str) -> int:
        """Place of a topic by first appearance in the manifests; a topic they do not name comes last."""
        return self.topics.index(topic_id) if topic_id in self.topics else len(self.topics)


def empty_manifest(log_start: Offsets, version: str) -> ManifestRow:
    """The snapshot before the first batch: nothing folded, its cut the log start seen when the home was created."""
    topics = tuple(dict.fromkeys(key.topic_id for key in log_start))
    return ManifestRow(seq=0, snapshot="empty", cut=log_start, version=version, topics=topics)


_NO_IDS: I8 = np.empty(0, dtype=np.int64)
_BLOB = struct.Struct("<4sIII")
_BLOB_MAGIC = b"TFP2"
#: Before retractions: the same layout, whose fourth field was always zero.
_BLOB_MAGICS = (_BLOB_MAGIC, b"TFP1")


@dataclass(frozen=True)
class PersonSnapshot:
    """One person in one snapshot: states of the facts before the horizon, hashes of their event ids, and the facts since.

    ``older`` maps lifetime primaries to encoded states (JSON values; an absent one is zero). ``older_ids`` and ``retracted_ids``
    are sorted; the latter are of all targets of the person's retractions below the cut, of whose facts nothing is here.
    """

    older: Mapping[str, Any] = field(default_factory=dict)
    older_ids: I8 = field(default_factory=lambda: _NO_IDS)
    recent: FactColumns = EMPTY_COLUMNS
    retracted_ids: I8 = field(default_factory=lambda: _NO_IDS)

    def pack(self) -> bytes:
        """One byte string: header, both lists of id hashes (int64), ``older`` as JSON padded to 8 bytes, the packed columns."""
        return pack_person(msgspec.json.encode(self.older), self.older_ids, self.retracted_ids, self.recent.pack())

    @classmethod
    def unpack(cls, blob: bytes | memoryview) -> PersonSnapshot:
        if len(blob) < _BLOB.size or bytes(blob[:4]) not in _BLOB_MAGICS:
            raise StoreError("a person of the snapshot is damaged (no TFP2 header): rebuild it with `twofold batch`")
        _magic, n_ids, n_older, n_retracted = _BLOB.unpack_from(blob)
        start_retracted = _BLOB.size + 8 * n_ids
        start_older = start_retracted + 8 * n_retracted
        older = msgspec.json.decode(blob[start_older : start_older + n_older]) if n_older else {}
        ids = np.frombuffer(blob, dtype="<i8", count=n_ids, offset=_BLOB.size) if n_ids else _NO_IDS
        retracted = np.frombuffer(blob, dtype="<i8", count=n_retracted, offset=start_retracted) if n_retracted else _NO_IDS
        return cls(older, ids, FactColumns.unpack(blob[start_older + n_older + (-n_older) % 8 :]), retracted)


def pack_person(older_json: bytes, older_ids: I8, retracted_ids: I8, columns: bytes) -> bytes:
    """The byte layout of :class:`PersonSnapshot`."""
    header = _BLOB.pack(_BLOB_MAGIC, len(older_ids), len(older_json), len(retracted_ids))
    ids = (hashes.astype("<i8", copy=False).tobytes() for hashes in (older_ids, retracted_ids))
    return b"".join((header, *ids, older_json, b"\0" * (-len(older_json) % 8), columns))


@dataclass(frozen=True)
class VersionRange:
    """Positions ``[start, end)`` of one partition that the hot store holds as admitted under one version."""

    start: int
    end: int
    version: str


@dataclass(frozen=True)
class Heartbeat:
    """What the follower last saw: the log end, when (epoch ms, its clock), and partitions with an unhealed jump."""

    at_ms: int
    log_end: Offsets
    jumped: tuple[PartitionKey, ...] = ()


@dataclass(frozen=True)
class HotView:
    """One consistent look at a hot store for one person: every fact of every entry in ``[low, high)`` is present.

    ``entries`` are the person's ok entries, in any order, some perhaps outside the range. ``high_broker_ms`` is the broker
    time of the last entry below ``high`` per partition.
    """

    high: Offsets = EMPTY_OFFSETS
    low: Offsets = EMPTY_OFFSETS
    entries: tuple[Entry, ...] = ()
    versions: Mapping[PartitionKey, tuple[VersionRange, ...]] = field(default_factory=dict)
    heartbeat: Heartbeat | None = None
    high_broker_ms: Mapping[PartitionKey, int] = field(default_factory=dict)


class SnapshotReader(Protocol):
    """One open snapshot, held for a whole read."""

    @property
    def row(self) -> ManifestRow: ...

    def person(self, person: str) -> PersonSnapshot | None: ...

    def persons(self) -> Iterator[str]: ...

    def close(self) -> None: ...


class HotReader(Protocol):
    """A hot store that answers with one transaction: ``high`` before the facts, ``low`` after them."""

    def view(self, person: str, since: Offsets = EMPTY_OFFSETS) -> HotView:
        """Entries below ``since`` (the snapshot's cut) may be left out."""
        ...

    def persons(self) -> Iterator[str]: ...

    def close(self) -> None: ...

"""A person's facts as dictionary-coded columns: what a snapshot stores and the merge folds without decoding rows.

Layout: one table of entries sorted by id hash (for the look-up of hot copies), one table of facts sorted by
(kind, event time, event id, ordinal), so that a kind is one slice, a window is one range of it, and the last row of a
range is its latest fact. Text columns hold codes into ``names``, the person's distinct texts in code-point order.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import xxhash
from msgspec.structs import astuple

from twofold.errors import StoreError
from twofold.events import FACT_KINDS, Entry, FactBody

I8 = npt.NDArray[np.int64]
I4 = npt.NDArray[np.int32]

NULL_CODE = -1
NULL_AMOUNT = -(2**63)
NULL_QUANTITY = -(2**31)
HASH_SEED = 42
_FEW_NAMES = 4_096

KIND_CODE = {kind: code for code, kind in enumerate(FACT_KINDS)}
TEXT_COLUMNS = ("product", "category", "campaign", "currency", "key", "value")


def id_hash(event_id: str) -> int:
    """The pinned hash of an event id: xxhash64, seed 42, of its UTF-8 bytes, as a signed 64-bit integer (Spark's ``xxhash64``)."""
    unsigned = xxhash.xxh64_intdigest(event_id.encode("utf-8"), seed=HASH_SEED)
    return unsigned - 2**64 if unsigned >= 2**63 else unsigned


class Fact(NamedTuple):
    """One fact with its envelope: the row that states lift. ``at_ms`` in epoch ms, money in minor units.

    The first three fields are its order; those from ``kind`` on are an ``events.FactBody``, in its order.
    """

    at_ms: int
    event_id: str
    ordinal: int
    channel: str | None
    device: str | None
    kind: str
    product: str | None = None
    category: str | None = None
    campaign: str | None = None
    amount_minor: int | None = None
    currency: str | None = None
    quantity: int | None = None
    key: str | None = None
    value: str | None = None


assert Fact._fields[5:] == FactBody.__struct_fields__


def _i8(values: Sequence[int]) -> I8:
    return np.array(values, dtype=np.int64)


def _i4(values: Sequence[int]) -> I4:
    return np.array(values, dtype=np.int32)


def facts_of(entry: Entry) -> list[Fact]:
    """The facts of an ok entry, ordinals by place."""
    assert entry.at_ms is not None and entry.event_id is not None
    at_ms, event_id, channel, device = entry.at_ms, entry.event_id, entry.channel, entry.device
    # Not through the class: this runs for every hot fact of every read.
    return [
        tuple.__new__(Fact, (at_ms, event_id, ordinal, channel, device, *astuple(body))) for ordinal, body in enumerate(entry.facts)
    ]


class Names:
    """Distinct texts in code-point order, kept as UTF-8 until one is asked for."""

    __slots__ = ("_ascii", "_ends", "_list", "_utf8")

    def __init__(self, utf8: bytes | memoryview, ends: I4) -> None:
        self._utf8, self._ends = utf8, ends
        self._ascii: str | None = None
        self._list: list[int] | None = None

    @classmethod
    def of(cls, texts: Iterable[str]) -> Names:
        encoded = [text.encode("utf-8") for text in sorted(texts)]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int32) if encoded else np.empty(0, np.int32)
        return cls(b"".join(encoded), ends.astype(np.int32))

    def __len__(self) -> int:
        return len(self._ends)

    def _whole(self) -> tuple[str, list[int]]:
        """The texts as one string ("" unless all are ASCII) and their ends, made at the first use."""
        if self._list is None or self._ascii is None:
            whole = bytes(self._utf8)
            self._ascii = whole.decode("ascii") if whole.isascii() else ""
            self._list = self._ends.tolist()
        return self._ascii, self._list

    def __getitem__(self, code: int) -> str:
        if len(self._ends) > _FEW_NAMES:
            # Many names: slicing the stored bytes costs less than turning all ends into a list.
            start = int(self._ends[code - 1]) if code else 0
            return bytes(self._utf8[start : int(self._ends[code])]).decode("utf-8")
        text, ends = self._whole()
        start, end = (ends[code - 1] if code else 0), ends[code]
        return text[start:end] if text else bytes(self._utf8[start:end]).decode("utf-8")

    def find(self, text: str) -> int:
        """Code of a text, or ``NULL_CODE``."""
        code = bisect_left(self, text)
        return code if code < len(self) and self[code] == text else NULL_CODE

    def many(self, codes: Sequence[int] | I4 | I8) -> list[str]:
        """Texts of many codes at once."""
        if len(codes) <= 256 and len(self._ends) <= _FEW_NAMES:
            text, ends = self._whole()
            listed = codes if isinstance(codes, list) else np.asarray(codes).tolist()
            if text:
                return [text[ends[code - 1] if code else 0 : ends[code]] for code in listed]
            return [self[code] for code in listed]
        at = np.asarray(codes)
        stops = self._ends[at].tolist()
        starts = np.where(at > 0, self._ends[at - 1], 0).tolist()
        # To decode everything pays where much of it is asked for.
        if len(codes) >= len(self._ends) // 8:
            utf8 = bytes(self._utf8)
            if utf8.isascii():
                text = utf8.decode("ascii")
                return [text[a:b] for a, b in zip(starts, stops, strict=True)]
        return [str(self._utf8[a:b], "utf-8") for a, b in zip(starts, stops, strict=True)]

    @property
    def parts(self) -> tuple[bytes | memoryview, I4]:
        return self._utf8, self._ends


_HEADER = struct.Struct("<4sIIIIIII")
_MAGIC = b"TFC1"
_I8_ENTRY = ("id_hash", "broker_ms", "offset")
_I8_FACT = ("at_ms", "amount_minor")
_I4_ENTRY = ("event", "topic", "partition", "entry_channel", "entry_device")
_I4_FACT = ("entry", "ordinal", "product", "category", "campaign", "currency", "quantity", "key", "value")


class FactColumns:
    """Dictionary-coded facts of one person. Arrays are read-only views; never mutated.

    Entries (n_entries): ``id_hash`` sorted, ``event`` (code of the event id), ``broker_ms``, ``topic`` (ordinal), ``partition``,
    ``offset``, ``entry_channel``, ``entry_device``. Facts (n_facts): ``at_ms``, ``entry`` (row of its entry), ``ordinal``, text
    codes (``channel`` and ``device`` are their entry's), ``amount_minor`` (``NULL_AMOUNT``), ``quantity`` (``NULL_QUANTITY``).
    ``kind_ends[c]`` is the end of kind ``c``'s slice.
    """

    __slots__ = (
        "amount_minor",
        "at_ms",
        "broker_ms",
        "campaign",
        "category",
        "currency",
        "entry",
        "entry_channel",
        "entry_device",
        "event",
        "id_hash",
        "key",
        "kind_ends",
        "names",
        "offset",
        "ordinal",
        "partition",
        "product",
        "quantity",
        "topic",
        "value",
    )
    names: Names
    kind_ends: list[int]
    id_hash: I8
    broker_ms: I8
    offset: I8
    event: I4
    topic: I4
    partition: I4
    entry_channel: I4
    entry_device: I4
    at_ms: I8
    amount_minor: I8
    entry: I4
    ordinal: I4
    product: I4
    category: I4
    campaign: I4
    currency: I4
    quantity: I4
    key: I4
    value: I4

    @property
    def n_facts(self) -> int:
        return len(self.at_ms)

    @property
    def n_entries(self) -> int:
        return len(self.id_hash)

    @property
    def channel(self) -> I4:
        return self.entry_channel[self.entry]

    @property
    def device(self) -> I4:
        return self.entry_device[self.entry]

    def kind_range(self, kind: str) -> tuple[int, int]:
        code = KIND_CODE[kind]
        ends = self.kind_ends
        if code >= len(ends):
            return 0, 0
        return (ends[code - 1] if code else 0), ends[code]

    def event_id(self, row: int) -> str:
        return self.names[int(self.event[int(self.entry[row])])]

    def entry_row(self, event_id: str) -> int | None:
        """The entry row of an event id, or ``None``."""
        wanted = id_hash(event_id)
        return self.entry_row_from(int(np.searchsorted(self.id_hash, wanted)), wanted, event_id)

    def entry_row_from(self, place: int, wanted: int, event_id: str) -> int | None:
        """As :meth:`entry_row`, from the first row of its hash. Different ids may share a hash, so ids are compared."""
        while place < len(self.id_hash) and self.id_hash[place] == wanted:
            if self.names[int(self.event[place])] == event_id:
                return place
            place += 1
        return None

    def text(self, column: str, row: int) -> str | None:
        code = int(getattr(self, column)[row])
        return None if code == NULL_CODE else self.names[code]

    def fact(self, row: int) -> Fact:
        """One row as a fact (for tie-breaks and explanation)."""
        kind = next(kind for kind in FACT_KINDS if (r := self.kind_range(kind))[0] <= row < r[1])
        entry = int(self.entry[row])
        amount, quantity = int(self.amount_minor[row]), int(self.quantity[row])
        return Fact(
            int(self.at_ms[row]),
            self.names[int(self.event[entry])],
            int(self.ordinal[row]),
            self.text("channel", row),
            self.text("device", row),
            kind,
            self.text("product", row),
            self.text("category", row),
            self.text("campaign", row),
            None if amount == NULL_AMOUNT else amount,
            self.text("currency", row),
            None if quantity == NULL_QUANTITY else quantity,
            self.text("key", row),
            self.text("value", row),
        )

    def facts_of_kind(self, kind: str, rows: slice | npt.NDArray[np.intp]) -> list[Fact]:
        """Many rows of one kind as facts, for explanation: a text is decoded once, however many rows have it."""
        entry = self.entry[rows]
        codes = {name: getattr(self, name)[rows] for name in TEXT_COLUMNS}
        codes |= {"channel": self.entry_channel[entry], "device": self.entry_device[entry], "event": self.event[entry]}
        distinct = sorted({code for column in codes.values() for code in np.unique(column).tolist()} - {NULL_CODE})
        texts: dict[int, str | None] = dict(zip(distinct, self.names.many(distinct), strict=True))
        texts[NULL_CODE] = None
        text = {name: [texts[code] for code in column.tolist()] for name, column in codes.items()}
        amounts = [None if amount == NULL_AMOUNT else amount for amount in self.amount_minor[rows].tolist()]
        quantities = [None if quantity == NULL_QUANTITY else quantity for quantity in self.quantity[rows].tolist()]
        kinds = [kind] * len(entry)
        order = (self.at_ms[rows].tolist(), text["event"], self.ordinal[rows].tolist(), text["channel"], text["device"], kinds)
        named = (text["product"], text["category"], text["campaign"])
        return list(map(Fact, *order, *named, amounts, text["currency"], quantities, text["key"], text["value"]))

    def facts(self) -> list[Fact]:
        return [self.fact(row) for row in range(self.n_facts)]

    def without_entries(self, dropped: Iterable[int]) -> FactColumns:
        """The columns without the facts of some entry rows (their ids stay known)."""
        keep = ~np.isin(self.entry, np.fromiter(dropped, dtype=np.int32))
        out = FactColumns()
        for name in FactColumns.__slots__:
            setattr(out, name, getattr(self, name))
        for name in (*_I8_FACT, *_I4_FACT):
            setattr(out, name, getattr(self, name)[keep])
        kept = np.concatenate(([0], np.cumsum(keep)))
        out.kind_ends = [int(kept[end]) for end in self.kind_ends]
        return out

    @classmethod
    def of_entries(cls, entries: Iterable[tuple[Entry, int]]) -> FactColumns:
        """Columns of ok entries (one per event id), each with its topic ordinal."""
        rows = sorted(((id_hash(entry.event_id or ""), entry, topic) for entry, topic in entries), key=lambda row: row[0])
        facts = [(KIND_CODE[f.kind], f, e) for e, (_h, entry, _t) in enumerate(rows) for f in facts_of(entry)]
        facts.sort(key=lambda row: (row[0], row[1].at_ms, row[1].event_id, row[1].ordinal))
        texts: set[str | None] = {t for _h, entry, _t in rows for t in (entry.event_id, entry.channel, entry.device)}
        for _code, fact, _e in facts:
            texts.update(getattr(fact, column) for column in TEXT_COLUMNS)
        texts.discard(None)
        names = Names.of(t for t in texts if t is not None)
        codes: dict[str | None, int] = {text: code for code, text in enumerate(sorted(t for t in texts if t is not None))}
        codes[None] = NULL_CODE
        out = cls()
        out.names = names
        out.id_hash = _i8([h for h, _e, _t in rows])
        out.broker_ms = _i8([entry.broker_ms for _h, entry, _t in rows])
        out.offset = _i8([entry.offset for _h, entry, _t in rows])
        out.event = _i4([codes[entry.event_id] for _h, entry, _t in rows])
        out.topic = _i4([topic for _h, _e, topic in rows])
        out.partition = _i4([entry.partition for _h, entry, _t in rows])
        out.entry_channel = _i4([codes[entry.channel] for _h, entry, _t in rows])
        out.entry_device = _i4([codes[entry.device] for _h, entry, _t in rows])
        out.at_ms = _i8([fact.at_ms for _c, fact, _e in facts])
        out.amount_minor = _i8([NULL_AMOUNT if fact.amount_minor is None else fact.amount_minor for _c, fact, _e in facts])
        out.quantity = _i4([NULL_QUANTITY if fact.quantity is None else fact.quantity for _c, fact, _e in facts])
        out.entry = _i4([e for _c, _f, e in facts])
        out.ordinal = _i4([fact.ordinal for _c, fact, _e in facts])
        for column in TEXT_COLUMNS:
            setattr(out, column, _i4([codes[getattr(fact, column)] for _c, fact, _e in facts]))
        counts = np.bincount(np.array([code for code, _f, _e in facts], dtype=np.int64), minlength=len(FACT_KINDS))
        out.kind_ends = np.cumsum(counts).tolist()
        return out

    def pack(self) -> bytes:
        """The columns as one byte string (little-endian, 8-byte aligned); :meth:`unpack` reads it without copying."""
        utf8, ends = self.names.parts
        ints8 = [getattr(self, name) for name in (*_I8_ENTRY, *_I8_FACT)]
        ints4 = [getattr(self, name) for name in (*_I4_ENTRY, *_I4_FACT)]
        return pack_columns(self.n_entries, self.n_facts, self.kind_ends, ints8, ints4, ends, bytes(utf8))

    @classmethod
    def unpack(cls, blob: bytes | memoryview) -> FactColumns:
        """Read-only views over a packed byte string. Raises :class:`StoreError` when it is not one."""
        if len(blob) < _HEADER.size or bytes(blob[:4]) != _MAGIC:
            raise StoreError("a person's columns are damaged (no TFC1 header): rebuild the snapshot with `twofold batch`")
        _magic, n_entries, n_facts, n_kinds, n_names, n_utf8, _spare, _spare2 = _HEADER.unpack_from(blob)
        out = cls()
        n8 = 3 * n_entries + 2 * n_facts
        n4 = 5 * n_entries + 9 * n_facts + n_names + n_kinds
        start4 = _HEADER.size + 8 * n8
        start_names = start4 + 4 * n4
        if len(blob) < start_names + n_utf8:
            raise StoreError("a person's columns are damaged (cut short): rebuild the snapshot with `twofold batch`")
        ints8 = np.frombuffer(blob, dtype="<i8", count=n8, offset=_HEADER.size)
        ints4 = np.frombuffer(blob, dtype="<i4", count=n4, offset=start4)
        at, e, f = 0, n_entries, n_facts
        out.id_hash, out.broker_ms, out.offset = ints8[:e], ints8[e : 2 * e], ints8[2 * e : 3 * e]
        out.at_ms, out.amount_minor = ints8[3 * e : 3 * e + f], ints8[3 * e + f :]
        for name in _I4_ENTRY:
            setattr(out, name, ints4[at : at + e])
            at += e
        for name in _I4_FACT:
            setattr(out, name, ints4[at : at + f])
            at += f
        out.kind_ends = ints4[at + n_names :].tolist()
        out.names = Names(blob[start_names : start_names + n_utf8], ints4[at : at + n_names])
        return out


def pack_columns(
    n_entries: int, n_facts: int, kind_ends: Sequence[int], ints8: Sequence[I8], ints4: Sequence[I4], name_ends: I4, utf8: bytes
) -> bytes:
    """The byte layout of :class:`FactColumns`: arrays in the order of ``_I8_ENTRY + _I8_FACT`` and ``_I4_ENTRY + _I4_FACT``."""
    header = _HEADER.pack(_MAGIC, n_entries, n_facts, len(kind_ends), len(name_ends), len(utf8), 0, 0)
    arrays8 = [a.astype("<i8", copy=False).tobytes() for a in ints8]
    arrays4 = [a.astype("<i4", copy=False).tobytes() for a in (*ints4, name_ends, np.array(kind_ends, dtype=np.int32))]
    return b"".join((header, *arrays8, *arrays4, utf8))


EMPTY_COLUMNS = FactColumns.of_entries(())

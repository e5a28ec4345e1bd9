"""The hot store: ok entries since the lowest readable cut, by person, in LMDB. One writer (the follower), many readers.

Keys of ``facts``: length-prefixed person key, topic ordinal, partition, offset (big-endian), so that a person is one range and
an offset filters before anything is decoded. The value is the ``facts`` message as it came. ``state`` is one JSON value written in
the same transaction as the entries it bounds, so one read transaction sees vectors and facts of one moment.

The store is derived: it is flushed every so often, not at every commit. A killed process loses nothing (the operating system
has the pages); after a crash of the machine (another boot id) the store is made anew from the log.
"""

from __future__ import annotations

import shutil
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import lmdb
import msgspec

from twofold.errors import StoreError
from twofold.events import Entry, decode_entries, decode_entry, encode_entry
from twofold.stores.lmdb_env import close_shared, open_shared
from twofold.stores.memory import extend_ranges
from twofold.timeline import EMPTY_OFFSETS, Offsets, PartitionKey
from twofold.views import Heartbeat, HotView, VersionRange

FORMAT = 1
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_LENGTH = struct.Struct(">H")
_POSITION = struct.Struct(">HIQ")
_OFFSET_BYTES = 8
_STATE = b"state"


class PartitionState(msgspec.Struct, omit_defaults=True):
    """One partition of the log in the hot store; ``facts_next`` is where the follower resumes in the topic ``facts``."""

    topic: int
    partition: int
    low: int
    high: int
    broker_ms: int | None = None
    facts_next: int = 0
    jumped: bool = False
    versions: list[tuple[int, int, str]] = []


class HotState(msgspec.Struct, omit_defaults=True):
    """Everything about the store but the facts."""

    format: int = FORMAT
    boot_id: str = ""
    topics: list[str] = []
    partitions: list[PartitionState] = []
    heartbeat_ms: int | None = None
    log_end: list[tuple[int, int, int]] = []


_DECODER = msgspec.json.Decoder(HotState)


def _boot_id() -> str:
    return _BOOT_ID.read_text().strip() if _BOOT_ID.exists() else ""


def person_prefix(person: str) -> bytes:
    """Length-prefixed UTF-8: no person's range can fall into another's."""
    utf8 = person.encode("utf-8")
    return _LENGTH.pack(len(utf8)) + utf8


def _open(path: Path, map_size: int, readonly: bool) -> lmdb.Environment:
    options: dict[str, Any] = {
        "map_size": map_size,
        "max_dbs": 2,
        "sync": False,
        "metasync": False,
        "max_readers": 512,
        "lock": True,
    }
    try:
        return open_shared(path, True, **options) if readonly else lmdb.open(str(path), **options)
    except (lmdb.Error, OSError) as error:
        raise StoreError(
            f"the hot store {path} cannot be opened: {error}; start `twofold up` or `twofold follow` on this home"
        ) from error


class LmdbHotReader:
    """Reads of the hot store. Safe in any number of processes."""

    def __init__(self, path: Path, map_size: int) -> None:
        if not (path / "data.mdb").exists():
            raise StoreError(f"there is no hot store at {path}: start `twofold up` or `twofold follow` on this home")
        self._env = _open(path, map_size, readonly=True)
        try:
            self._bind()
        except StoreError:
            close_shared(self._env)
            raise

    def _bind(self) -> None:
        try:
            self._facts = self._env.open_db(b"facts", create=False)
            self._meta = self._env.open_db(b"meta", create=False)
        except lmdb.NotFoundError as error:
            raise StoreError("the hot store is empty: the follower has not begun; wait for `twofold up` to be ready") from error

    def state(self) -> HotState:
        """The vectors as they are now."""
        with self._env.begin(db=self._meta) as txn:
            return self._state(txn)

    def _state(self, txn: lmdb.Transaction) -> HotState:
        data = txn.get(_STATE, db=self._meta)
        if data is None:
            raise StoreError("the hot store has no vectors: the follower has not begun; wait for `twofold up` to be ready")
        return _DECODER.decode(data)

    def view(self, person: str, since: Offsets = EMPTY_OFFSETS) -> HotView:
        """The person's entries in ``[since, high)`` and the vectors, from one read transaction."""
        prefix = person_prefix(person)
        size = len(prefix)
        values: list[bytes] = []
        with self._env.begin(db=self._facts) as txn:
            state = self._state(txn)
            bounds = {
                _POSITION.pack(p.topic, p.partition, 0)[:-_OFFSET_BYTES]: (
                    since.next(PartitionKey(state.topics[p.topic], p.partition)).to_bytes(_OFFSET_BYTES, "big"),
                    p.high.to_bytes(_OFFSET_BYTES, "big"),
                )
                for p in state.partitions
            }
            cursor = txn.cursor()
            if cursor.set_range(prefix):
                # Positions are stored big-endian: their bytes compare as they do.
                for key, value in cursor:
                    if not key.startswith(prefix):
                        break
                    low, high = bounds.get(key[size:-_OFFSET_BYTES], (b"", b""))
                    if low <= key[-_OFFSET_BYTES:] < high:
                        values.append(value)
        return _view(state, decode_entries(values))

    def vectors(self) -> HotView:
        """The vectors without any person's entries."""
        return _view(self.state(), ())

    def persons(self) -> Iterator[str]:
        """Every person with an entry below ``high``, once each."""
        with self._env.begin(db=self._facts) as txn:
            state = self._state(txn)
            highs = {(p.topic, p.partition): p.high for p in state.partitions}
            cursor = txn.cursor()
            more = cursor.first()
            while more:
                key = cursor.key()
                size = _LENGTH.unpack_from(key)[0]
                prefix = key[: _LENGTH.size + size]
                while more and cursor.key().startswith(prefix):
                    topic, partition, offset = _POSITION.unpack_from(cursor.key(), len(prefix))
                    if offset < highs.get((topic, partition), 0):
                        yield prefix[_LENGTH.size :].decode("utf-8")
                        break
                    more = cursor.next()
                more = cursor.set_range(prefix + b"\xff" * (_POSITION.size + 1))

    def close(self) -> None:
        close_shared(self._env)


def _view(state: HotState, entries: tuple[Entry, ...]) -> HotView:
    keys = [PartitionKey(state.topics[p.topic], p.partition) for p in state.partitions]
    pairs = list(zip(keys, state.partitions, strict=True))
    heartbeat = None
    if state.heartbeat_ms is not None:
        ends = Offsets({PartitionKey(state.topics[topic], partition): end for topic, partition, end in state.log_end})
        heartbeat = Heartbeat(state.heartbeat_ms, ends, tuple(key for key, p in pairs if p.jumped))
    return HotView(
        high=Offsets({key: p.high for key, p in pairs}),
        low=Offsets({key: p.low for key, p in pairs}),
        entries=entries,
        versions={key: tuple(VersionRange(*part) for part in p.versions) for key, p in pairs},
        heartbeat=heartbeat,
        high_broker_ms={key: p.broker_ms for key, p in pairs if p.broker_ms is not None},
    )


class LmdbHot(LmdbHotReader):
    """The writer's side. Owns the store: open it once, in the follower."""

    def __init__(self, path: Path, map_size: int, start: Offsets) -> None:
        """Open or create; a new store (or one of another boot) begins with ``low = high = start``."""
        if path.exists() and self._of_another_boot(path, map_size):
            shutil.rmtree(path)
        path.mkdir(parents=True, exist_ok=True)
        self._env = _open(path, map_size, readonly=False)
        self._facts = self._env.open_db(b"facts")
        self._meta = self._env.open_db(b"meta")
        with self._env.begin(db=self._meta) as txn:
            data = txn.get(_STATE)
        self.current = _DECODER.decode(data) if data is not None else HotState(boot_id=_boot_id())
        if data is None:
            for key in sorted(start):
                self.partition(key, start[key])
            self.commit(())

    @staticmethod
    def _of_another_boot(path: Path, map_size: int) -> bool:
        try:
            reader = LmdbHotReader(path, map_size)
        except StoreError:
            return True
        try:
            state = reader.state()
        except (StoreError, msgspec.MsgspecError):
            return True
        finally:
            reader.close()
        return state.format != FORMAT or state.boot_id != _boot_id()

    def partition(self, key: PartitionKey, start: int = 0) -> PartitionState:
        """The mutable state of a partition, added with ``low = high = start`` when it is new."""
        topic = self.topic(key.topic_id)
        for state in self.current.partitions:
            if state.topic == topic and state.partition == key.partition:
                return state
        state = PartitionState(topic, key.partition, start, start)
        self.current.partitions.append(state)
        return state

    def topic(self, topic_id: str) -> int:
        if topic_id not in self.current.topics:
            self.current.topics.append(topic_id)
        return self.current.topics.index(topic_id)

    def raise_high(self, state: PartitionState, high: int, version: str, broker_ms: int | None) -> None:
        """Claim ``[state.high, high)`` as folded under ``version``; visible at the next :meth:`commit`."""
        if high > state.high:
            ranges = extend_ranges((VersionRange(*part) for part in state.versions), VersionRange(state.high, high, version))
            state.versions = [(part.start, part.end, part.version) for part in ranges]
            state.high = high
        if broker_ms is not None:
            state.broker_ms = broker_ms

    def beat(self, at_ms: int, log_end: Offsets) -> None:
        """Record the log end as last seen at ``at_ms``."""
        self.current.heartbeat_ms = at_ms
        self.current.log_end = [(self.topic(key.topic_id), key.partition, end) for key, end in sorted(log_end.items())]

    def commit(self, entries: Iterable[tuple[Entry, bytes | None]], removed: Iterable[Entry] = ()) -> None:
        """Write ok entries (with their message bytes) and the vectors in one transaction."""
        try:
            with self._env.begin(write=True, db=self._facts) as txn:
                for entry, message in entries:
                    if entry.verdict == "ok" and entry.person is not None:
                        txn.put(self._key(entry), message if message is not None else encode_entry(entry))
                for entry in removed:
                    if entry.person is not None:
                        txn.delete(self._key(entry))
                txn.put(_STATE, msgspec.json.encode(self.current), db=self._meta)
        except lmdb.MapFullError as error:
            raise StoreError("the hot store is full: raise hot.map_size_bytes, or run a batch so that it can be trimmed") from error

    def _key(self, entry: Entry) -> bytes:
        return person_prefix(entry.person or "") + _POSITION.pack(self.topic(entry.topic_id), entry.partition, entry.offset)

    def trim(self, cut: Offsets, chunk: int = 20_000) -> int:
        """Raise ``low`` to ``cut`` (never above ``high``), then delete the facts below it; returns how many entries went."""
        raised = False
        for state in self.current.partitions:
            low = min(cut.next(PartitionKey(self.current.topics[state.topic], state.partition)), state.high)
            if low > state.low:
                state.low, raised = low, True
                state.versions = [(max(s, low), e, v) for s, e, v in state.versions if e > low]
        if not raised:
            return 0
        self.commit(())
        return self._sweep(chunk)

    def _sweep(self, chunk: int) -> int:
        lows = {(state.topic, state.partition): state.low for state in self.current.partitions}
        gone, resume = 0, b""
        while True:
            with self._env.begin(write=True, db=self._facts) as txn:
                cursor = txn.cursor()
                more, seen = cursor.set_range(resume) if resume else cursor.first(), 0
                while more and seen < chunk:
                    seen += 1
                    key = cursor.key()
                    topic, partition, offset = _POSITION.unpack_from(key, len(key) - _POSITION.size)
                    if offset < lows.get((topic, partition), 0):
                        gone += 1
                        # True after the very last one too, where no key follows.
                        more = cursor.delete() and cursor.key() != b""
                    else:
                        more = cursor.next()
                if not more:
                    return gone
                resume = cursor.key()

    def entries_between(self, key: PartitionKey, start: int, end: int) -> list[Entry]:
        """Stored entries of one partition in ``[start, end)``: a scan, for a refill only."""
        topic = self.topic(key.topic_id)
        out = []
        with self._env.begin(db=self._facts) as txn:
            for stored, value in txn.cursor():
                t, p, offset = _POSITION.unpack_from(stored, len(stored) - _POSITION.size)
                if t == topic and p == key.partition and start <= offset < end:
                    out.append(decode_entry(value))
        return out

    def close(self) -> None:
        self._env.close()

    def flush(self) -> None:
        """Flush to disk."""
        self._env.sync(True)

    def __enter__(self) -> LmdbHot:
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.flush()
        self.close()

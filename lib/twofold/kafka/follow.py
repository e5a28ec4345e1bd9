"""The follower: topic `facts` -> hot store, raising ``high`` only over positions that are really there.

A jump means stale: it waits for speed's replay, then reads the missing entries from `events` itself through the plain-Python
admission. Positions that `events` does not hold either are legal holes and are skipped; if `events` has already deleted them,
``low`` is raised past the jump: a gap, which every read reports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import msgspec
from kafka import KafkaAdminClient, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from twofold.contiguity import Contiguity
from twofold.errors import BrokerError
from twofold.events import Entry, decode_entry, make_entry
from twofold.settings import Settings
from twofold.stores.lmdb_hot import LmdbHot, PartitionState
from twofold.timeline import Offsets, PartitionKey, Position

Report = Callable[[str, dict[str, Any]], None]


@dataclass
class _Following:
    """One partition while it is followed: its durable state, what was seen, and the versions of what is held."""

    state: PartitionState
    seen: Contiguity
    stamps: dict[int, tuple[str, int]] = field(default_factory=dict)
    #: position in `facts` of the earliest message that is still held: a restart must read it again
    held_from: int | None = None
    hole_since: float | None = None
    #: (high, since when) while the log end is above high and nothing arrives
    trailing: tuple[int, float] | None = None


def _no_report(_what: str, _details: dict[str, Any]) -> None:
    pass


class Follower:
    """Follows all partitions of one topic incarnation into one hot store. Single-threaded; ``run`` until told to stop."""

    def __init__(
        self,
        settings: Settings,
        bootstrap_servers: str,
        topic_id: str,
        hot: LmdbHot,
        version: str,
        published: Callable[[], tuple[Offsets | None, str | None]] = lambda: (None, None),
        report: Report = _no_report,
    ) -> None:
        self._settings, self._servers, self._topic_id, self._hot, self._version = (
            settings,
            bootstrap_servers,
            topic_id,
            hot,
            version,
        )
        self._published, self._report = published, report
        self._following: dict[int, _Following] = {}
        self._consumer = self._connect()
        self._admin = KafkaAdminClient(bootstrap_servers=bootstrap_servers)
        self._foreign: set[str] = set()
        self._told_recreated = False
        self._adopt_partitions()

    # --- connections ----------------------------------------------------------------------------------------------------------
    def _connect(self) -> KafkaConsumer:
        try:
            return KafkaConsumer(
                bootstrap_servers=self._servers,
                isolation_level="read_committed",
                enable_auto_commit=False,
                auto_offset_reset="earliest",
                fetch_max_wait_ms=self._settings.follower.poll_ms,
                max_poll_records=self._settings.follower.max_records,
                max_partition_fetch_bytes=8 * 1024 * 1024,
            )
        except KafkaError as error:
            raise BrokerError(f"the broker at {self._servers} cannot be reached: {error}") from error

    def _adopt_partitions(self) -> None:
        """Follow partitions that are new; a partition that nobody has written to begins at its known log start."""
        facts, events = self._settings.kafka.facts_topic, self._settings.kafka.events_topic
        partitions = sorted(self._consumer.partitions_for_topic(facts) or ())
        if not partitions:
            raise BrokerError(f"topic {facts} does not exist at {self._servers}: create it with `twofold up`")
        new = [p for p in partitions if p not in self._following]
        if not new:
            return
        starts = self._consumer.beginning_offsets([TopicPartition(events, p) for p in new])
        for p in new:
            state = self._hot.partition(PartitionKey(self._topic_id, p), starts.get(TopicPartition(events, p), 0))
            self._following[p] = _Following(state, Contiguity(state.high))
        assigned = [TopicPartition(facts, p) for p in self._following]
        places = {tp: self._consumer.position(tp) for tp in self._consumer.assignment()}
        self._consumer.assign(assigned)
        for tp in assigned:
            self._consumer.seek(tp, places.get(tp, self._following[tp.partition].state.facts_next))
        self._report("partitions", {"partitions": sorted(self._following)})

    # --- the loop ---------------------------------------------------------------------------------------------------------------
    def run(self, stopped: Callable[[], bool], ready: Callable[[], None] = lambda: None) -> None:
        """Follow until ``stopped()``; ``ready()`` is called once the first heartbeat is recorded."""
        follower = self._settings.follower
        next_beat = next_sync = next_housekeeping = 0.0
        announced = False
        try:
            while not stopped():
                try:
                    self.step()
                    now = time.monotonic()
                    if now >= next_beat:
                        self.beat()
                        next_beat = now + follower.heartbeat_ms / 1000
                        if not announced:
                            announced = True
                            ready()
                    if now >= next_housekeeping:
                        self.keep_house()
                        next_housekeeping = now + follower.housekeeping_ms / 1000
                    if now >= next_sync:
                        self._hot.flush()
                        next_sync = now + follower.sync_ms / 1000
                except KafkaError as error:
                    # The heartbeat ages meanwhile, so every read says how stale it is.
                    self._report("broker", {"error": str(error)})
        finally:
            self._hot.flush()
            self._consumer.close()
            self._admin.close()

    def step(self) -> int:
        """One fetch into one transaction, then holes that have waited long enough. Returns the number of messages."""
        fetched = self._consumer.poll(timeout_ms=self._settings.follower.poll_ms, max_records=self._settings.follower.max_records)
        count = 0
        if fetched:
            writes: list[tuple[Entry, bytes | None]] = []
            for tp, messages in fetched.items():
                count += len(messages)
                writes.extend(self._take(self._following[tp.partition], messages))
            self._hot.commit(writes)
        self._heal_due()
        return count

    def _take(self, following: _Following, messages: Iterable[Any]) -> list[tuple[Entry, bytes | None]]:
        writes: list[tuple[Entry, bytes | None]] = []
        for message in messages:
            try:
                entry = decode_entry(message.value)
            except (msgspec.MsgspecError, TypeError) as error:
                # Not speed's: whatever position it stood for is then a hole, which heals from `events`.
                self._report("foreign_message", {"partition": message.partition, "offset": message.offset, "error": str(error)})
                self._advance(following, message.offset)
                continue
            if entry.topic_id != self._topic_id or entry.partition != following.state.partition:
                if entry.topic_id not in self._foreign:
                    self._foreign.add(entry.topic_id)
                    self._report("foreign_topic", {"topic_id": entry.topic_id, "following": self._topic_id})
            elif following.seen.see(entry.offset):
                writes.append((entry, message.value))
                following.stamps[entry.offset] = (entry.version, entry.broker_ms)
                if entry.offset > following.seen.high and following.held_from is None:
                    following.held_from = message.offset
            self._advance(following, message.offset)
        return writes

    def _advance(self, following: _Following, facts_offset: int | None = None) -> None:
        """Claim what has become contiguous, run by run of one version, and remember where to resume in `facts`."""
        state, seen = following.state, following.seen
        position = state.high
        while position < seen.high:
            version, broker_ms = following.stamps.pop(position, ("", 0))
            if not version:
                # A legal hole: nothing was admitted there, so it takes the version of what follows or precedes.
                version, broker_ms = (state.versions[-1][2] if state.versions else self._version), state.broker_ms or 0
            position += 1
            self._hot.raise_high(state, position, version, broker_ms or None)
        state.jumped = bool(seen.held)
        if not seen.held:
            following.held_from = following.hole_since = None
        elif following.hole_since is None:
            following.hole_since = time.monotonic()
            self._report("jump", {"partition": state.partition, "high": seen.high, "next": min(seen.held)})
        if facts_offset is not None:
            state.facts_next = min(facts_offset + 1, facts_offset + 1 if following.held_from is None else following.held_from)

    # --- healing ----------------------------------------------------------------------------------------------------------------
    def _heal_due(self) -> None:
        wait_s = self._settings.follower.heal_after_ms / 1000
        for following in self._following.values():
            hole = following.seen.hole
            if hole is not None and following.hole_since is not None and time.monotonic() - following.hole_since >= wait_s:
                self._heal(following, hole)

    def _heal(self, following: _Following, hole: range) -> None:
        """Read the missing positions from `events`; skip what it does not hold; raise ``low`` past what it has deleted."""
        state = following.state
        start, entries = self._read_events(state.partition, hole.start, hole.stop)
        if start > hole.start:
            lost = min(start, hole.stop)
            state.low = max(state.low, lost)
            self._report("gap", {"partition": state.partition, "from": hole.start, "to": lost})
            following.seen.skip_to(lost)
        writes: list[tuple[Entry, bytes | None]] = []
        for entry in entries:
            if following.seen.see(entry.offset):
                writes.append((entry, None))
                following.stamps[entry.offset] = (entry.version, entry.broker_ms)
        following.seen.skip_to(hole.stop)
        following.hole_since = None
        self._advance(following)
        self._hot.commit(writes)
        self._report("healed", {"partition": state.partition, "from": hole.start, "to": hole.stop, "entries": len(entries)})

    def _events_consumer(self) -> KafkaConsumer:
        return KafkaConsumer(
            bootstrap_servers=self._servers,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )

    def _read_events(self, partition: int, start: int, stop: int) -> tuple[int, list[Entry]]:
        """(first position that `events` still holds at or after ``start``, admitted entries of ``[start, stop)``)."""
        tp = TopicPartition(self._settings.kafka.events_topic, partition)
        consumer = KafkaConsumer(
            bootstrap_servers=self._servers,
            isolation_level="read_committed",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
        )
        try:
            consumer.assign([tp])
            begin = consumer.beginning_offsets([tp])[tp]
            first = max(start, begin)
            entries: list[Entry] = []
            consumer.seek(tp, first)
            end = min(stop, consumer.end_offsets([tp])[tp])
            while consumer.position(tp) < end:
                for record in consumer.poll(timeout_ms=500).get(tp, ()):
                    if record.offset < end:
                        position = Position(self._topic_id, partition, record.offset)
                        entries.append(make_entry(self._version, position, record.timestamp, record.value))
            return first, entries
        finally:
            consumer.close()

    # --- heartbeat and housekeeping -----------------------------------------------------------------------------------------------
    def beat(self) -> None:
        """Look the log end up and record it with the instant of asking (so that a slow answer ages it)."""
        asked_ms = time.time_ns() // 1_000_000
        events = self._settings.kafka.events_topic
        if not self._is_same_topic(events):
            # Its small new ends would look as if all were read: no heartbeat, so that every read grows stale.
            return
        self._adopt_partitions()
        partitions = sorted(self._consumer.partitions_for_topic(events) or ())
        ends = self._consumer.end_offsets([TopicPartition(events, p) for p in partitions])
        log_end = Offsets({PartitionKey(self._topic_id, tp.partition): end for tp, end in ends.items()})
        for tp, end in ends.items():
            if tp.partition in self._following:
                following = self._following[tp.partition]
                self._skip_trailing_hole(following, end)
                if following.state.high >= end:
                    # Caught up now: whatever comes next at ``high`` is not older than this question, however long it was idle.
                    following.state.broker_ms = max(following.state.broker_ms or 0, asked_ms)
        self._hot.beat(asked_ms, log_end)
        self._hot.commit(())

    def _is_same_topic(self, events: str) -> bool:
        (found,) = self._admin.describe_topics([events])
        same = not found["error_code"] and str(found["topic_id"]) == self._topic_id
        if not same and not self._told_recreated:
            self._told_recreated = True
            self._report("topic_recreated", {"following": self._topic_id, "found": str(found.get("topic_id"))})
        return same

    def _skip_trailing_hole(self, following: _Following, end: int) -> None:
        """A log may end in positions that hold no entry (a transaction's marker): nothing later will ever show that jump."""
        seen, now = following.seen, time.monotonic()
        if seen.held or seen.high >= end:
            following.trailing = None
            return
        if following.trailing is None or following.trailing[0] != seen.high:
            following.trailing = (seen.high, now)
        elif now - following.trailing[1] >= self._settings.follower.heal_after_ms / 1000:
            following.trailing = (seen.high, now)
            if self._first_entry(following.state.partition, seen.high, end) is None:
                seen.skip_to(end)
                self._advance(following)

    def _first_entry(self, partition: int, start: int, end: int) -> int | None:
        """Position of the first entry of `events` in ``[start, end)``, or ``None``."""
        tp = TopicPartition(self._settings.kafka.events_topic, partition)
        consumer = self._events_consumer()
        try:
            consumer.assign([tp])
            consumer.seek(tp, start)
            while consumer.position(tp) < end:
                for record in consumer.poll(timeout_ms=500, max_records=1).get(tp, ()):
                    return int(record.offset) if record.offset < end else None
            return None
        finally:
            consumer.close()

    def keep_house(self) -> None:
        """Trim below the lowest readable cut; admit again what a new definition needs."""
        cut, wanted = self._published()
        if cut is not None:
            gone = self._hot.trim(cut)
            if gone:
                self._report("trimmed", {"entries": gone})
        if wanted is not None and wanted == self._version:
            for following in self._following.values():
                self._refill(following)

    def _refill(self, following: _Following, chunk: int = 5_000) -> None:
        """Admit positions of another version again from `events`, chunk by chunk, each visible with its new stamp at once."""
        state = following.state
        key = PartitionKey(self._topic_id, state.partition)
        for start, end, version in list(state.versions):
            if version == self._version:
                continue
            for low in range(start, end, chunk):
                high = min(low + chunk, end)
                first, entries = self._read_events(state.partition, low, high)
                if first > low:
                    self._report("refill_blocked", {"partition": state.partition, "from": low, "log_start": first})
                    return
                fresh = {entry.offset for entry in entries if entry.verdict == "ok"}
                removed = [entry for entry in self._hot.entries_between(key, low, high) if entry.offset not in fresh]
                state.versions = restamp(state.versions, low, high, self._version)
                self._hot.commit([(entry, None) for entry in entries], removed)
            self._report("refilled", {"partition": state.partition, "from": start, "to": end, "version": self._version})


def restamp(ranges: list[tuple[int, int, str]], start: int, end: int, version: str) -> list[tuple[int, int, str]]:
    """Version ranges with ``[start, end)`` set to another version; neighbours of one version are joined."""
    cut: list[tuple[int, int, str]] = []
    for low, high, stamp in ranges:
        cut.extend(part for part in ((low, min(high, start), stamp), (max(low, end), high, stamp)) if part[0] < part[1])
    out: list[tuple[int, int, str]] = []
    for part in sorted([*cut, (start, end, version)]):
        if out and out[-1][2] == part[2] and out[-1][1] == part[0]:
            out[-1] = (out[-1][0], part[1], part[2])
        else:
            out.append(part)
    return out

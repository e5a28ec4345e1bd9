"""The world that the simulator drives: a log, speed, a follower, a batch and readers, around the real core.

Nothing here knows what a right answer is. Parts that a mutant replaces are fields of :class:`Parts`; everything else is the
product: admission, contiguity, the hot store in memory, the nightly fold, and the rule by which it is trimmed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from random import Random
from typing import NamedTuple

from twofold.catalogue import CATALOGUE, FEATURES, PRIMARIES
from twofold.contiguity import Contiguity
from twofold.errors import EmptyArchiveError
from twofold.events import ADMISSION_VERSION, Entry, decode_entry, encode_entry, make_entry
from twofold.features import Catalogue
from twofold.stores.memory import MemoryHot, MemorySnapshot
from twofold.stores.readable import lowest_cut
from twofold.testing.nights import rebuild
from twofold.timeline import DAY_MS, Offsets, PartitionKey, Position
from twofold.views import Heartbeat, HotView, ManifestRow, PersonSnapshot, empty_manifest

READABLE = 2
#: Another definition: without one feature and what it rests on.
SMALLER = Catalogue(
    [primary for primary in PRIMARIES if primary.name != "first_name"],
    [feature for feature in FEATURES if feature.name != "first_name"],
)
CATALOGUES = {CATALOGUE.version: CATALOGUE, SMALLER.version: SMALLER}
#: The next admission version: it no longer admits what a TV sends.
NEXT_ADMISSION = f"{ADMISSION_VERSION + 1}/{CATALOGUE.fingerprint}"
CATALOGUES[NEXT_ADMISSION] = CATALOGUE
VERSIONS = (CATALOGUE.version, NEXT_ADMISSION, SMALLER.version)
REJECTED_DEVICE = "tv"


class Message(NamedTuple):
    """One entry of the topic ``events``, as the broker holds it."""

    position: Position
    broker_ms: int
    value: bytes | None

    @property
    def key(self) -> PartitionKey:
        return PartitionKey(self.position.topic_id, self.position.partition)


def admit_under(version: str, message: Message, now_ms: int) -> Entry:  # noqa: ARG001  (a mutant reads the clock)
    """Admission under one of ``VERSIONS``: a pure function of the entry and the version."""
    entry = make_entry(version, message.position, message.broker_ms, message.value)
    if version == NEXT_ADMISSION and entry.device == REJECTED_DEVICE:
        return Entry(version, *message.position, message.broker_ms, "schema")
    return entry


def stored_log_start(world: World) -> Offsets:
    """The cut of the empty snapshot: the log start seen when the home was created, never re-read."""
    return world.rows[0].cut


@dataclass(frozen=True)
class Parts:
    """What a mutant may replace."""

    admit: Callable[[str, Message, int], Entry] = admit_under
    contiguity: Callable[[int], Contiguity] = Contiguity
    trim_cut: Callable[[Sequence[ManifestRow], int], Offsets | None] = lowest_cut
    log_start: Callable[[World], Offsets] = stored_log_start
    low_read_first: bool = False


@dataclass
class Partition:
    """One partition of ``events``: what is still there begins at ``start``; the archive keeps everything in ``messages``."""

    start: int
    next: int
    messages: dict[int, Message] = field(default_factory=dict)
    broker_ms: int = 0
    #: what speed wrote for it, and the first message that ``facts`` still holds
    facts: list[bytes] = field(default_factory=list)
    facts_start: int = 0
    speed_next: int = 0


@dataclass
class Following:
    """The follower's memory of one partition (lost in a crash), and where it resumes in ``facts`` (not lost)."""

    seen: Contiguity
    stamps: dict[int, tuple[str, int]] = field(default_factory=dict)
    facts_next: int = 0


class World:
    """Everything that runs. Operations draw what they need from the ``Random`` that they are given."""

    def __init__(self, partitions: int, starts: Sequence[int], now_ms: int, parts: Parts | None = None) -> None:
        self.parts = Parts() if parts is None else parts
        self.now_ms = now_ms
        self.topics = ["t0"]
        self.log: dict[PartitionKey, Partition] = {}
        for p in range(partitions):
            self._add_partition(PartitionKey("t0", p), starts[p])
        self.arrivals: list[Message] = []
        self.version = VERSIONS[0]
        start = Offsets({key: part.start for key, part in self.log.items()})
        self.rows: list[ManifestRow] = [empty_manifest(start, self.version)]
        self.snapshots: dict[str, MemorySnapshot] = {"empty": MemorySnapshot(self.rows[0])}
        self._persons: dict[tuple[str, str], PersonSnapshot | None] = {}
        self.hot = MemoryHot(start)
        self.hot_version = self.version
        self.following = {key: Following(self.parts.contiguity(part.start)) for key, part in self.log.items()}
        self._admitted: dict[tuple[str, Position], Entry] = {}
        self._built = 0
        self.follows_unadopted = False
        #: positions that the hot store claims, with the version that each was admitted under; kept apart from the store's own
        self.claimed: dict[PartitionKey, dict[int, str]] = {}
        #: how far down the hot store must reach no longer: retention beat the follower, or readable snapshots moved on
        self.lost: dict[PartitionKey, int] = dict(start)

    # --- the log ----------------------------------------------------------------------------------------------------------------
    def _add_partition(self, key: PartitionKey, start: int) -> None:
        self.log[key] = Partition(start, start, speed_next=start)

    def keys(self, topic: str | None = None) -> list[PartitionKey]:
        return [key for key in self.log if topic is None or key.topic_id == topic]

    def log_end(self) -> Offsets:
        return Offsets({key: part.next for key, part in self.log.items()})

    def send(self, rng: Random, values: Sequence[tuple[int, bytes]]) -> None:
        """Append (person number, bytes) to the newest topic: mostly to the person's partition, at a broker's skewed clock."""
        keys = self.keys(self.topics[-1])
        for person, value in values:
            key = keys[person % len(keys)] if rng.random() < 0.7 else rng.choice(keys)
            part = self.log[key]
            # A transaction's marker takes an offset and holds no entry.
            part.next += 1 if rng.random() < 0.06 else 0
            part.broker_ms = max(part.broker_ms, self.now_ms + (-1500, 0, 700)[key.partition % 3])
            message = Message(Position(*key, part.next), part.broker_ms, value)
            part.messages[part.next] = message
            part.next += 1
            self.arrivals.append(message)

    def admit(self, version: str, message: Message) -> Entry:
        if self.parts.admit is not admit_under:
            return self.parts.admit(version, message, self.now_ms)
        return self.truth(version, message)

    def truth(self, version: str, message: Message) -> Entry:
        known = self._admitted.get((version, message.position))
        if known is None:
            known = self._admitted[(version, message.position)] = admit_under(version, message, 0)
        return known

    def grow(self, rng: Random) -> None:  # noqa: ARG002
        topic = self.topics[-1]
        self._add_partition(PartitionKey(topic, len(self.keys(topic))), 0)

    def recreate(self, rng: Random) -> None:
        """The topic is deleted and made again under another id."""
        self.topics.append(f"t{len(self.topics)}")
        self.follows_unadopted = rng.random() < 0.4
        for p in range(rng.randrange(1, 4)):
            self._add_partition(PartitionKey(self.topics[-1], p), 0)

    def retain(self, rng: Random) -> None:
        """Retention deletes the oldest entries of ``events``; the archive has them."""
        part = self.log[rng.choice(self.keys())]
        part.start = rng.randrange(part.start, part.next + 1)
        if rng.random() < 0.3:
            part.facts_start = rng.randrange(part.facts_start, len(part.facts) + 1)

    # --- speed ------------------------------------------------------------------------------------------------------------------
    def speed(self, rng: Random, key: PartitionKey | None = None, whole: bool = False) -> None:
        """Admit some entries of one partition into ``facts``. A lost request leaves a hole, and the task dies uncommitted."""
        key = key if key is not None else rng.choice(self.keys())
        part = self.log[key]
        part.speed_next = max(part.speed_next, part.start)
        end = part.next if whole else min(part.next, part.speed_next + rng.randrange(1, 8))
        sent = [part.messages[o] for o in range(part.speed_next, end) if o in part.messages]
        died = not whole and rng.random() < 0.3 and len(sent) > 1
        if died:
            gone = rng.randrange(len(sent))
            sent = sent[:gone] + [m for m in sent[gone + 1 :] if rng.random() < 0.8]
        part.facts.extend(encode_entry(self.admit(self.version, message)) for message in sent)
        if not died:
            part.speed_next = end

    def restart_speed(self, rng: Random) -> None:
        """Speed starts again from an older position, or without its checkpoint."""
        for part in self.log.values():
            part.speed_next = max(part.start, rng.randrange(0, part.speed_next + 1))

    def switch_version(self, rng: Random) -> None:
        """Speed and batch move to another admission or definition; the follower's store still holds the old one."""
        self.version = rng.choice([version for version in VERSIONS if version != self.version])

    # --- the follower -----------------------------------------------------------------------------------------------------------
    def _follow_key(self, key: PartitionKey) -> Following:
        """A partition that nobody has followed begins at its log start now."""
        if key not in self.following:
            start = self.log[key].start
            self.hot.low[key] = self.hot.high[key] = start
            self.lost[key] = start
            self.following[key] = Following(self.parts.contiguity(start))
        return self.following[key]

    def follow(self, rng: Random, key: PartitionKey | None = None, whole: bool = False) -> None:
        """Take messages of ``facts``; sometimes it is killed between writing entries and raising ``high``."""
        key = key if key is not None else rng.choice(self.keys())
        if key.topic_id not in self.rows[-1].topics and not self.follows_unadopted:
            return
        part, following = self.log[key], self._follow_key(key)
        begin = max(following.facts_next, part.facts_start)
        end = len(part.facts) if whole else min(len(part.facts), begin + rng.randrange(1, 9))
        for message in part.facts[begin:end]:
            self._see(following, decode_entry(message))
        if not whole and rng.random() < 0.15:
            self._forget(key, following.facts_next)
            return
        self._advance(key, following)
        if not following.seen.held:
            following.facts_next = end
        if rng.random() < 0.5:
            self.beat(rng)

    def _see(self, following: Following, entry: Entry) -> None:
        if following.seen.see(entry.offset):
            self.hot.put([entry])
            following.stamps[entry.offset] = (entry.version, entry.broker_ms)

    def _advance(self, key: PartitionKey, following: Following) -> None:
        claimed = self.claimed.setdefault(key, {})
        last = self.hot.versions.get(key, [])
        for offset in range(self.hot.high[key], following.seen.high):
            # A hole that is legal takes the version of what precedes it.
            default = (last[-1].version if last else self.version, self.hot.high_broker_ms.get(key))
            version, broker_ms = following.stamps.pop(offset, default)
            self.hot.advance(key, offset + 1, version, broker_ms)
            claimed[offset] = version
            last = self.hot.versions[key]

    def _forget(self, key: PartitionKey, facts_next: int) -> None:
        self.following[key] = Following(self.parts.contiguity(self.hot.high[key]), {}, facts_next)

    def restart_follower(self, rng: Random) -> None:
        """The follower starts again, perhaps from older messages than it needs."""
        for key, following in list(self.following.items()):
            self._forget(key, rng.randrange(0, following.facts_next + 1) if rng.random() < 0.5 else following.facts_next)

    def heal(self, rng: Random | None = None) -> None:  # noqa: ARG002
        """Jumps are read from ``events``; what it has deleted is a gap, what it never held is legal."""
        for key, following in self.following.items():
            hole, part = following.seen.hole, self.log[key]
            if hole is not None:
                if part.start > hole.start:
                    past = min(part.start, hole.stop)
                    self.hot.low[key] = max(self.hot.low[key], past)
                    self.lost[key] = max(self.lost[key], past)
                    following.seen.skip_to(past)
                for offset in range(max(hole.start, part.start), hole.stop):
                    if offset in part.messages:
                        self._see(following, self.admit(self.version, part.messages[offset]))
                following.seen.skip_to(hole.stop)
            elif not any(offset in part.messages for offset in range(following.seen.high, part.next)):
                following.seen.skip_to(part.next)
            self._advance(key, following)

    def flow(self, rng: Random) -> None:
        """Everything sent becomes visible."""
        for key in self.keys():
            self.speed(rng, key, whole=True)
            self.follow(rng, key, whole=True)
        self.heal()
        self.beat(rng)

    def beat(self, rng: Random) -> None:  # noqa: ARG002
        jumped = tuple(key for key, following in self.following.items() if following.seen.held)
        self.hot.heartbeat = Heartbeat(self.now_ms, self.log_end(), jumped)

    def refill(self, rng: Random) -> None:  # noqa: ARG002
        """A second hot store is filled from ``events`` at the newest cut under the newest version; then readers switch."""
        row, old = self.rows[-1], self.hot
        self.hot, self.claimed, self.lost = MemoryHot(), {}, {}
        for key in self.following:
            part = self.log[key]
            start = max(part.start, row.cut.next(key))
            self.hot.low[key] = self.hot.high[key] = self.lost[key] = start
            following = self.following[key] = Following(self.parts.contiguity(start))
            for offset in range(start, max(start, old.high[key])):
                if offset in part.messages:
                    self._see(following, self.admit(self.version, part.messages[offset]))
            following.seen.skip_to(old.high[key])
            self._advance(key, following)
        self.beat(Random(0))

    def trim(self, rng: Random | None = None) -> None:  # noqa: ARG002
        """Facts below the lowest readable cut go; the same bound is worked out here a second time, plainly."""
        cut = self.parts.trim_cut(self.rows, READABLE)
        if cut is not None:
            self.hot.trim(cut)
        newest = sorted(self.rows, key=lambda row: row.seq)[-READABLE:]
        for key in self.hot.low:
            if len(newest) == READABLE:
                self.lost[key] = max(self.lost.get(key, 0), min(row.cut.next(key) for row in newest))

    # --- the batch --------------------------------------------------------------------------------------------------------------
    def night(self, rng: Random) -> None:
        """A rebuild at a random cut and as_of; it may crash before the manifest's row, and then nothing has happened."""
        parent = self.rows[-1]
        keys = [key for key in self.keys() if key.topic_id in parent.topics]
        far = rng.random() < 0.4
        cut = Offsets(
            {
                key: self.log[key].next if far else rng.randrange(parent.cut.next(key), self.log[key].next + 1)
                for key in keys
                if key in parent.cut or self.log[key].next
            }
        )
        entries = [self.admit(self.version, message) for message in self.arrivals if message.key in cut]
        as_of = self._as_of(rng, entries)
        crash = rng.randrange(12)
        self._built += 1
        name = f"n{self._built}"
        try:
            snapshot = rebuild(CATALOGUES[self.version], self.version, entries, cut, parent, name, as_of)
        except EmptyArchiveError:
            return
        if crash == 0:
            return
        self.snapshots[name] = snapshot
        if crash == 1:
            return
        self.rows.append(snapshot.row)

    def _as_of(self, rng: Random, entries: Sequence[Entry]) -> int | None:
        choice = rng.random()
        if choice < 0.45:
            return None
        if choice < 0.75 and entries:
            at = rng.choice(entries).at_ms
            if at is not None and at <= self.now_ms - 30 * DAY_MS:
                return at + 35 * DAY_MS + rng.choice((-1, 0, 1))
        return self.now_ms + rng.choice((-40, -10, -3, 0, 0, 0, 3, 5, 5, 12)) * DAY_MS + rng.choice((-1, 0, 1))

    def roll_back(self, rng: Random) -> None:
        """A new row names an old snapshot; the topics stay those of the newest row."""
        newest, old = self.rows[-1], rng.choice(self.rows)
        if old.seq:
            self.rows.append(replace(old, seq=newest.seq + 1, parent=newest.seq, topics=newest.topics))

    def adopt(self, rng: Random) -> None:  # noqa: ARG002
        """A row that names the new topic id; the old vector stays as it was."""
        newest = self.rows[-1]
        if newest.topics != tuple(self.topics):
            self.rows.append(replace(newest, seq=newest.seq + 1, parent=newest.seq, topics=tuple(self.topics)))

    # --- reading ----------------------------------------------------------------------------------------------------------------
    def person(self, row: ManifestRow, person: str) -> PersonSnapshot | None:
        """Decoded once and kept, as a reader that holds a snapshot does: whoever changes it is seen at the next read."""
        key = (row.snapshot, person)
        if key not in self._persons:
            self._persons[key] = self.snapshots[row.snapshot].person(person)
        return self._persons[key]

    def manifest(self, row: ManifestRow) -> ManifestRow:
        """The row as a reader resolves it: the empty snapshot's cut comes from the home."""
        return replace(row, cut=self.parts.log_start(self)) if row.seq == 0 else row

    def read_hot(self, person: str, between: Callable[[], None] | None = None) -> HotView:
        """``high`` before the facts, ``low`` after them, as a store without transactions must; ``between`` acts in both gaps."""
        hot = self.hot
        first = hot.view(person)
        if between is None:
            return first
        between()
        middle = hot.view(person)
        if self.parts.low_read_first:
            return replace(middle, low=first.low)
        between()
        last = hot.view(person)
        return HotView(first.high, last.low, middle.entries, last.versions, first.heartbeat, first.high_broker_ms)

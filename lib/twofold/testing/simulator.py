"""Runs histories through the real core and holds every read to the naive oracle, or to the verdict that is right for it.

A read is wrong when a value, a permission, a flag or the lack of one is wrong. What is right is worked out here from the log and
the world's own notes, never from the product's answer. Seeded: a script and its reads are the same on every machine.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from random import Random
from typing import Any, NamedTuple

from twofold.columns import facts_of
from twofold.events import Entry
from twofold.merge import Merged, merge
from twofold.pinned import make_standing
from twofold.record import Record, make_record
from twofold.testing import oracle
from twofold.testing.naive_segments import SEGMENTS, wrong_segment
from twofold.testing.nights import LATE_GRACE_DAYS
from twofold.testing.pinning import Pin, Pinning, pinned_parts
from twofold.testing.script import PERSONS, START_MS, WIDTHS_MS, Script, Step
from twofold.testing.slices import first_difference
from twofold.testing.world import CATALOGUES, Parts, World
from twofold.timeline import DAY_MS, Offsets
from twofold.views import HotView, ManifestRow

FRESH_MAX_LAG_MS = 10_000
CONSENT_MAX_LAG_MS = 60_000
LIMITS_MS = (FRESH_MAX_LAG_MS, CONSENT_MAX_LAG_MS)
READS_PER_STEP = 3
GRACE_MS = LATE_GRACE_DAYS * DAY_MS


class Wrong(AssertionError):
    """A read whose answer is not the right one."""


@dataclass
class Tally:
    """What was read: how many, by which state, how often a field was in conflict or a retraction pending, how often two snapshots
    answered alike.

    ``pinned``: reads under a pin, by where their entries came from; ``members``: how often somebody was in a segment;
    ``nights``: incremental ones, each held to the full rebuild beside it.
    """

    reads: int = 0
    states: Counter[str] = field(default_factory=Counter)
    conflicts: int = 0
    pending: int = 0
    pairs: int = 0
    nights: int = 0
    pinned: Counter[str] = field(default_factory=Counter)
    members: int = 0

    def add(self, other: Tally) -> None:
        self.reads += other.reads
        self.states.update(other.states)
        self.conflicts += other.conflicts
        self.pending += other.pending
        self.pairs += other.pairs
        self.nights += other.nights
        self.pinned.update(other.pinned)
        self.members += other.members


class Said(NamedTuple):
    """What an answer says of features: values, and the state of each; ``unfolded``: nothing above the cut has a part in it, or
    everything is above it.
    """

    values: Mapping[str, Any]
    fields: Mapping[str, str]
    unfolded: bool = False


class Read(NamedTuple):
    """One answer: under which version, up to which vector, what it said, and the hot part that it was made of."""

    version: str
    offsets: Offsets
    merged: Merged
    record: Record
    hot: HotView


class Judge:
    """The independent side: what F(person, t, O) is, and which verdict a read must carry."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._persons: dict[tuple[str, str], list[Entry]] = {}
        self._read_upto: Counter[str] = Counter()
        self._winners: dict[tuple[str, str, Offsets], list[Entry]] = {}
        self._values: dict[tuple[str, str, Offsets, int], dict[str, Any]] = {}

    def entries(self, person: str, version: str) -> list[Entry]:
        """The person's ok entries in the whole log, under one version."""
        arrivals = self.world.arrivals
        for message in arrivals[self._read_upto[version] :]:
            entry = self.world.truth(version, message)
            if entry.verdict == "ok" and entry.person is not None:
                self._persons.setdefault((version, entry.person), []).append(entry)
        self._read_upto[version] = len(arrivals)
        return self._persons.get((version, person), [])

    def winners(self, person: str, version: str, offsets: Offsets) -> list[Entry]:
        key = (person, version, offsets)
        if key not in self._winners:
            below = (entry for entry in self.entries(person, version) if offsets.holds(entry.position))
            self._winners[key] = oracle.winners(below, self.world.topics)
        return self._winners[key]

    def values(self, person: str, version: str, offsets: Offsets, t: int) -> dict[str, Any]:
        key = (person, version, offsets, t)
        if key not in self._values:
            found = oracle.values(self.winners(person, version, offsets), t)
            self._values[key] = {name: found[name] for name in CATALOGUES[version].features}
        return self._values[key]

    def outcome(self, row: ManifestRow, high: Offsets, t: int) -> str:
        """Which outcome is right, from the world's own notes."""
        world = self.world
        if row.as_of_ms is not None and t < row.as_of_ms - GRACE_MS:
            return "archive"
        if any(lost > row.cut.next(key) for key, lost in world.lost.items()) or any(k.topic_id not in row.topics for k in high):
            return "gap"
        for key, end in high.items():
            claimed = world.claimed.get(key, {})
            if any(claimed[offset] != row.version for offset in range(row.cut.next(key), end)):
                return "definition"
        return "ok"

    def folded(self, person: str, row: ManifestRow) -> list[Entry]:
        """What the snapshot has folded before the horizon."""
        return [
            e for e in self.winners(person, row.version, row.cut) if row.horizon_ms is not None and (e.at_ms or 0) < row.horizon_ms
        ]

    def above(self, person: str, row: ManifestRow, offsets: Offsets) -> list[Entry]:
        """The person's ok entries in ``[cut, O)``."""
        entries = self.entries(person, row.version)
        return [e for e in entries if offsets.holds(e.position) and not row.cut.holds(e.position)]

    def doubtful(self, person: str, row: ManifestRow, offsets: Offsets) -> bool:
        """Whether a copy above the cut may beat one that is folded: its broker time is not above the cut's. None of a retracted
        event may.
        """
        above = self.above(person, row, offsets)
        folded = {e.event_id for e in self.folded(person, row)} - {e.target for e in above}
        return any(e.event_id in folded and e.broker_ms <= row.cut_time_ms for e in above)

    def pending(self, person: str, row: ManifestRow, offsets: Offsets) -> set[str]:
        """Ids of folded events that are retracted above the cut."""
        targets = {e.target for e in self.above(person, row, offsets)}
        return {e.event_id for e in self.folded(person, row) if e.event_id is not None and e.event_id in targets}

    def until_the_batch(self, person: str, row: ManifestRow, offsets: Offsets, t: int) -> dict[str, Any]:
        """The values with pending retractions not acting yet, where no copy is doubtful."""
        pending = self.pending(person, row, offsets)
        counting = [e for e in self.winners(person, row.version, offsets) if e.event_id not in pending]
        return oracle.values([*counting, *(e for e in self.folded(person, row) if e.event_id in pending)], t)

    def behind_ms(self, offsets: Offsets, log_end: Offsets, now_ms: int) -> int | None:
        """Age of the oldest entry below the log's end that O lacks; ``None`` when it lacks none."""
        missing = [
            message.broker_ms
            for key, end in log_end.items()
            for offset, message in self.world.log[key].messages.items()
            if offsets.next(key) <= offset < end
        ]
        return now_ms - min(missing) if missing else None


class Simulation:
    """One history: the world, its judge, and the readers that hold snapshots."""

    def __init__(self, script: Script, parts: Parts | None = None) -> None:
        self.script = script
        self.world = World(script.partitions, script.starts, START_MS, parts)
        self.judge = Judge(self.world)
        self.tally = Tally()
        self.pinning = Pinning(self.world)
        #: A reader that moves to the newest snapshot at each read, and two that move when they are told.
        self.held = [self.world.rows[0], self.world.rows[0]]

    def run(self) -> Tally:
        """Every step with its reads, and all persons at the end. Raises :class:`Wrong`."""
        for number, step in enumerate(self.script.steps):
            rng = Random(step.seed)
            self._apply(step, rng)
            for _ in range(READS_PER_STEP):
                self._read_once(rng, f"after step {number} ({step.op})")
        rng = Random(self.script.seed)
        self.read_all(rng, "at the end")
        self.world.flow(rng)
        self.read_all(rng, "at the end, when everything is visible")
        return self.tally

    def _apply(self, step: Step, rng: Random) -> None:
        world = self.world
        world.now_ms += step.wait_ms
        if step.op == "send":
            world.send(rng, step.values)
        elif step.op == "refresh":
            self.held[rng.randrange(len(self.held))] = world.rows[-1]
        elif step.op == "pin":
            self._pin(rng)
        else:
            operation: Callable[[Random], None] = getattr(world, step.op)
            operation(rng)
        if step.op == "night":
            self._hold_nights()

    def _hold_nights(self) -> None:
        """An incremental night holds what the full rebuild beside it does."""
        for name, full in self.world.doubles.items():
            if name in self.world.snapshots:
                self.tally.nights += 1
                person = first_difference(self.world.snapshots[name], full)
                if person is not None:
                    raise Wrong(f"the incremental night {name} and a full rebuild differ in {person}")
        self.world.doubles.clear()

    def _pin(self, rng: Random) -> None:
        """Pin the newest snapshot as it is read; a read that has a gap, or that asks for the archive, cannot be pinned."""
        row = self.world.rows[-1]
        high, t = self.world.hot.view(PERSONS[0]).high, self._instant(rng, rng.choice(PERSONS), row)
        if self.judge.outcome(row, high, t) == "ok":
            pin = self.pinning.pin(row, high, t)
            for person in PERSONS:
                self._read_pinned(pin, person, "at once", None)

    def _instant(self, rng: Random, person: str, row: ManifestRow) -> int:
        choice = rng.random()
        if choice < 0.35:
            return self.world.now_ms + rng.choice((-1, 0, 0, 1))
        entries = self.judge.entries(person, row.version)
        if choice < 0.75 and entries:
            at = rng.choice(entries[-12:]).at_ms or 0
            t = at + rng.choice((0, *WIDTHS_MS)) + rng.choice((-1, 0, 1))
            if row.as_of_ms is None or t >= row.as_of_ms - GRACE_MS:
                return t
        if choice < 0.9 and row.as_of_ms is not None:
            return row.as_of_ms + rng.choice((0, 0, -GRACE_MS, -3 * DAY_MS, DAY_MS)) + rng.choice((-1, 0, 1))
        return self.world.now_ms + rng.choice((DAY_MS, 30 * DAY_MS, 40 * DAY_MS, -2 * DAY_MS))

    def _between(self, rng: Random) -> Callable[[], None] | None:
        """What others do while a read is under way."""
        if rng.random() >= 0.25:
            return None
        world = self.world

        def trim_and_follow() -> None:
            world.trim()
            world.follow(rng)

        return rng.choice((world.trim, world.heal, trim_and_follow))

    def _read_once(self, rng: Random, when: str) -> None:
        row = self.world.rows[-1] if rng.random() < 0.6 else rng.choice(self.held)
        person = rng.choice(PERSONS)
        pin = self.pinning.pick(rng)
        if pin is not None and rng.random() < 0.25:
            self._read_pinned(pin, person, when, self._between(rng))
        t = self._instant(rng, person, row)
        first = self.read(row, person, t, when, self._between(rng))
        if rng.random() < 0.3:
            self._agree(first, self.read(rng.choice(self.world.rows), person, t, when), when)

    def read_all(self, rng: Random, when: str) -> None:
        for person in PERSONS:
            for t in {self.world.now_ms, self._instant(rng, person, self.world.rows[-1])}:
                reads = [self.read(row, person, t, when) for row in {id(r): r for r in self.world.rows[-3:]}.values()]
                for other in reads[1:]:
                    self._agree(reads[0], other, when)

    def _read_pinned(self, pin: Pin, person: str, when: str, between: Callable[[], None] | None) -> None:
        """Answer under a pin; the oracle at the pinned (t, O) and a read of now say what is right. Raises :class:`Wrong`."""
        where = f"{when}: {person} under {pin.name} of {pin.row.snapshot} at t={pin.t}"
        row, now_ms = self.world.rows[-1], self.world.now_ms
        now = self.read(row, person, now_ms, when)
        catalogue = CATALOGUES[row.version]
        standing = make_standing(catalogue, row, now.merged, now.hot, now_ms, now_ms, *LIMITS_MS, now.offsets)
        record = self.pinning.read(pin, person, standing, between)
        self.tally.reads += 1
        self.tally.pinned[record.pinned.source] += 1
        self._hold_values(where, pin.row, person, pin.t, pin.offsets, Said(*pinned_parts(record)))
        moved = self.pinning.what_moved(pin, record, now.record)
        right = {**self.judge.values(person, pin.row.version, pin.offsets, pin.t), **standing.values}
        self._hold_segments(where, record.segments, right, record.fields, pin.t)
        if moved is not None:
            raise Wrong(f"{where}: {moved}")

    def _agree(self, first: Read, second: Read, when: str) -> None:
        """The same (t, O) from two snapshots of one version gives the same values, fields in conflict apart."""
        both = first.merged.outcome == second.merged.outcome == "ok"
        if not both or first[:2] != second[:2]:
            return
        self.tally.pairs += 1
        for name, value in first.record.values.items():
            exact = first.record.fields[name] == second.record.fields[name] == "exact"
            if exact and value != second.record.values[name]:
                rows = f"{first.record.freshness.snapshot} and {second.record.freshness.snapshot}"
                raise Wrong(f"{when}: the same (t, O) from {rows} differs in {name}: {value!r}, {second.record.values[name]!r}")

    # --- one read ---------------------------------------------------------------------------------------------------------------
    def read(self, row: ManifestRow, person: str, t: int, when: str, between: Callable[[], None] | None = None) -> Read:
        """Answer as a reader does, and hold the answer to what is right. Raises :class:`Wrong`."""
        world = self.world
        now_ms = world.now_ms
        hot = world.read_hot(person, between)
        catalogue = CATALOGUES[row.version]
        resolved = world.manifest(row)
        merged = merge(catalogue, resolved, world.person(row, person), hot, t, LATE_GRACE_DAYS)
        expected = self.judge.outcome(row, hot.high, t)
        where = f"{when}: {person} at t={t} from {row.snapshot} (seq {row.seq})"
        if merged.outcome != expected:
            raise Wrong(f"{where}: the outcome is {merged.outcome}, right is {expected}")
        if expected == "archive":
            merged, hot, offsets = self._from_archive(row, person, t)
        else:
            offsets = row.cut.join(hot.high) if expected == "ok" else row.cut
        record = make_record(catalogue, person, row, merged, hot, t, now_ms, *LIMITS_MS, offsets, SEGMENTS)
        self.tally.reads += 1
        self.tally.states[record.freshness.state] += 1
        unfolded = record.freshness.state in ("gap", "definition", "archive")
        self._hold_values(where, row, person, t, offsets, Said(record.values, record.fields, unfolded))
        right = self.judge.values(person, row.version, offsets, t)
        self._hold_segments(where, record.segments, right, record.fields, t)
        self._hold_state(where, row, person, offsets, hot, record, now_ms)
        self._hold_sendable(where, row, person, t, offsets, record)
        return Read(row.version, offsets, merged, record, hot)

    def _from_archive(self, row: ManifestRow, person: str, t: int) -> tuple[Merged, HotView, Offsets]:
        """Below the snapshot's range: everything from the archive, at its end."""
        world = self.world
        end = Offsets({key: part.next for key, part in world.log.items() if key.topic_id in row.topics})
        ok = tuple(entry for entry in self.judge.entries(person, row.version) if end.holds(entry.position))
        start = ManifestRow(0, "empty", world.rows[0].cut, row.version, topics=row.topics)
        hot = HotView(high=end, low=start.cut, entries=ok)
        merged = merge(CATALOGUES[row.version], start, None, hot, t, LATE_GRACE_DAYS)
        return replace(merged, outcome="archive"), hot, start.cut.join(end)

    def _hold_values(self, where: str, row: ManifestRow, person: str, t: int, offsets: Offsets, record: Said) -> None:
        """Raises :class:`Wrong`. What ``record`` does not say is not held."""
        everything = self.judge.values(person, row.version, offsets, t)
        right = {name: everything[name] for name in record.values}
        conflict = [name for name, state in record.fields.items() if state == "conflict"]
        pending = [name for name, state in record.fields.items() if state == "pending_retraction"]
        if record.values != right:
            for name, value in right.items():
                if record.fields[name] == "exact" and record.values[name] != value:
                    raise Wrong(f"{where}, O={offsets.to_json()}: {name} is {record.values[name]!r}, right is {value!r}")
        if record.values.get("interest") is not None and record.fields["interest"] == "exact":
            order = list(record.values["interest"])
            if order != list(right["interest"]):
                raise Wrong(f"{where}: interest is ordered {order}, right is {list(right['interest'])}")
        if conflict:
            self.tally.conflicts += 1
            if not self.judge.doubtful(person, row, offsets):
                raise Wrong(f"{where}: {conflict} are marked conflict without a cause")
        if pending:
            self.tally.pending += 1
            self._hold_pending(where, row, person, t, offsets, record, pending)

    def _hold_segments(
        self, where: str, names: tuple[str, ...], right: Mapping[str, Any], fields: Mapping[str, str], t: int
    ) -> None:
        self.tally.members += len(names)
        wrong = wrong_segment(names, right, fields, t)
        if wrong is not None:
            raise Wrong(f"{where}: {wrong}")

    def _hold_pending(
        self, where: str, row: ManifestRow, person: str, t: int, offsets: Offsets, record: Said, pending: list[str]
    ) -> None:
        """A field waits for the next batch only where a folded event is retracted and it has a part in what is folded."""
        if record.unfolded or not self.judge.pending(person, row, offsets):
            raise Wrong(f"{where}: {pending} are marked pending_retraction without a cause")
        catalogue = CATALOGUES[row.version]
        folded = [fact for entry in self.judge.folded(person, row) for fact in facts_of(entry)]
        until = self.judge.until_the_batch(person, row, offsets, t)
        doubtful = self.judge.doubtful(person, row, offsets)
        for name in pending:
            if not any(p.lifetime and p.select.holds(fact) for p in catalogue.primaries_of(name) for fact in folded):
                raise Wrong(f"{where}: {name} is marked pending_retraction, and nothing of it is folded")
            if not doubtful and record.values[name] != until[name]:
                raise Wrong(
                    f"{where}: {name} is {record.values[name]!r} and pending; until the next batch {until[name]!r} is right"
                )

    def _hold_state(
        self, where: str, row: ManifestRow, person: str, offsets: Offsets, hot: HotView, record: Record, now_ms: int
    ) -> None:
        state = record.freshness.state
        if state in ("gap", "definition", "archive"):
            return
        beat = hot.heartbeat
        if beat is None:
            if state != "batch_only":
                raise Wrong(f"{where}: the state is {state} and there has been no heartbeat")
            return
        behind_ms = self.judge.behind_ms(offsets, beat.log_end, now_ms)
        old = now_ms - beat.at_ms > FRESH_MAX_LAG_MS
        must = bool(beat.jumped) or old or (behind_ms is not None and behind_ms > FRESH_MAX_LAG_MS)
        may = must or offsets.behind(beat.log_end)
        if state == "stale" and not may:
            raise Wrong(f"{where}: stale without a cause")
        if state != "stale" and must:
            raise Wrong(f"{where}: {state}, and yet jumped={beat.jumped}, old={old}, behind by {behind_ms} ms")
        known = any(offsets.holds(entry.position) for entry in self.judge.entries(person, row.version))
        if state in ("fresh", "default") and (state == "fresh") != known:
            raise Wrong(f"{where}: {state}, and yet the person is {'known' if known else 'unknown'}")

    def _hold_sendable(self, where: str, row: ManifestRow, person: str, t: int, offsets: Offsets, record: Record) -> None:
        said, state = record.sendable, record.freshness.state
        right = oracle.sendable(self.judge.winners(person, row.version, offsets), t)
        if said.ok and not (right["ok"] and state in ("fresh", "stale")):
            raise Wrong(f"{where}: sendable in state {state}; right is {right}")
        inexact = "consent_inexact" in said.reasons
        if inexact and not (self.judge.doubtful(person, row, offsets) or self.judge.pending(person, row, offsets)):
            raise Wrong(f"{where}: {said.reasons} without a cause")
        # What only `sendable` reads is no field.
        exact = set(record.fields.values()) == {"exact"} and not inexact
        if state == "fresh" and exact and (said.ok, list(said.reasons)) != (right["ok"], right["reasons"]):
            raise Wrong(f"{where}: sendable is {said}, right is {right}")
        if said.ok and record.fields["consent_marketing"] != "exact":
            raise Wrong(f"{where}: sendable on inputs that are not exact")

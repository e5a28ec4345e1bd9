"""What a served record is held to afterwards: a fault of the merge is a *bug*, entries that it did not have yet are *lag*.

A record was served at (t, O). Recomputed from the raw log at its own (t, O) it must be equal in every field that it said to be
exact: anything else is a bug, whatever was late. Recomputed at t from everything that is known now it may differ, and differs by
the entries beyond O alone. Those that the broker had when the record was served are the system's ``lag``; those that came after
it are ``late`` events, which nobody could have known. The recomputation is passed in: nothing here reads a log or a clock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappush, heappushpop
from typing import Any, Literal

import msgspec

from twofold.events import Entry
from twofold.record import Record
from twofold.timeline import Offsets
from twofold.views import ManifestRow

#: After minus before, in the feature's own unit: a number, or one a key (money by currency, scores by category); ``None``: it is
#: another value, and no number.
Difference = int | float | dict[str, int | float] | None
#: What was found of a record: the worst of it.
Verdict = Literal["bug", "lag", "late", "equal"]

#: Records that are named one by one.
WORST = 10


class Served(msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="served"):
    """A record as it was served: values at ``t`` over everything below ``offsets``. Times in epoch ms.

    ``version``: admission and definition of the snapshot; ``installed``: of the library that read it. ``inexact``: fields that
    were not said to be exact.
    """

    person: str
    t: int
    served_ms: int
    snapshot: str
    seq: int
    cut: dict[str, dict[str, int]]
    high: dict[str, dict[str, int]]
    version: str
    installed: str
    state: str
    values: dict[str, Any]
    inexact: dict[str, str] = {}

    @property
    def offsets(self) -> Offsets:
        """O: what the record had folded."""
        return Offsets.from_json(self.cut).join(Offsets.from_json(self.high))


def make_served(record: Record, row: ManifestRow, installed: str, served_ms: int) -> Served:
    """What is remembered of a record that was read from this snapshot."""
    at = record.freshness
    return Served(
        person=record.person,
        t=at.t,
        served_ms=served_ms,
        snapshot=row.snapshot,
        seq=row.seq,
        cut=at.cut,
        high=at.high,
        version=row.version,
        installed=installed,
        state=at.state,
        values=record.values,
        inexact={name: state for name, state in record.fields.items() if state != "exact"},
    )


class Recomputation:
    """The plain recomputation: which entries count, and the values of those at an instant."""

    def __init__(
        self, winners: Callable[[Iterable[Entry]], list[Entry]], values: Callable[[Iterable[Entry], int], dict[str, Any]]
    ) -> None:
        self.winners, self.values = winners, values


class Shift(msgspec.Struct, frozen=True):
    """What entries beyond O would have changed: how many, how far in time (ms), and each feature in its own unit."""

    entries: int
    ms: int
    features: dict[str, Difference]


class Judged(msgspec.Struct, frozen=True):
    """What was found of a record. ``wrong``: field -> served minus recomputed; ``lag`` and ``late``: recomputed later minus first.

    ``lag.ms``: how long before the read the first of its entries had come; ``late.ms``: how long after it the last one came.
    """

    served: Served
    recomputed: dict[str, Any]
    wrong: dict[str, Difference]
    lag: Shift | None = None
    late: Shift | None = None

    @property
    def verdict(self) -> Verdict:
        return "bug" if self.wrong else "lag" if self.lag is not None else "late" if self.late is not None else "equal"


def difference(before: Any, after: Any) -> Difference:
    """``after - before`` of two values of one feature that are not equal."""
    if _number(before) and _number(after):
        return _rounded(after - before)
    if isinstance(before, dict) and isinstance(after, dict):
        pairs = {name: (before.get(name, 0), after.get(name, 0)) for name in sorted(before.keys() | after.keys())}
        if all(_number(value) for pair in pairs.values() for value in pair):
            return {name: _rounded(new - old) for name, (old, new) in pairs.items() if new != old}
    return None


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _rounded(number: int | float) -> int | float:
    """Scores have six decimals; their difference has no more."""
    return number if isinstance(number, int) else round(number, 6)


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Difference]:
    """Fields of which only one has a value, or which are not equal."""
    names = [*before, *(name for name in after if name not in before)]
    missing = object()
    return {
        name: difference(before.get(name), after.get(name))
        for name in names
        if before.get(name, missing) != after.get(name, missing)
    }


def judge(served: Served, entries: Sequence[Entry], counted: Sequence[Entry], recomputation: Recomputation) -> Judged:
    """Hold a record to the log. ``entries``: all ok ones of the person that are known now; ``counted``: the winners of those."""
    offsets, t = served.offsets, served.t
    within = [entry for entry in entries if offsets.holds(entry.position)]
    winners = recomputation.winners(within)
    first = recomputation.values(winners, t)
    wrong = {name: by for name, by in differences(first, served.values).items() if name not in served.inexact}
    had = [entry for entry in entries if entry.broker_ms <= served.served_ms or offsets.holds(entry.position)]
    halfway = counted if len(had) == len(entries) else winners if len(had) == len(within) else recomputation.winners(had)
    known, later = _moving(winners, halfway, had, t), _moving(halfway, counted, entries, t)
    lag = late = None
    if known or later:
        last = recomputation.values(counted, t)
        middle = first if not known else last if not later else recomputation.values(halfway, t)
        lag = _shift(known, served.served_ms - min((e.broker_ms for e in known), default=0), differences(first, middle))
        late = _shift(later, max((e.broker_ms for e in later), default=0) - served.served_ms, differences(middle, last))
    return Judged(served, first, wrong, lag, late)


def _moving(before: Sequence[Entry], after: Sequence[Entry], entries: Iterable[Entry], t: int) -> list[Entry]:
    """The entries by which the winners ``before`` became those ``after``, where that is before ``t``; ``entries``: all by then.

    A winner counts where it lies before t itself, and where the copy does whose place it takes; of the retractions of an event that
    lies before t the first one, whatever its own time.
    """
    old = {entry.position for entry in before}
    before_t = {entry.event_id for entry in before if entry.target is None and _at(entry) < t}
    gone = before_t - {entry.event_id for entry in after}
    moving = {
        entry.position: entry
        for entry in after
        if entry.position not in old and (entry.event_id in before_t or (entry.target is None and _at(entry) < t))
    }
    first: dict[str, Entry] = {}
    for entry in entries if gone else ():
        target = entry.target
        if target is not None and target in gone and (target not in first or entry.broker_ms < first[target].broker_ms):
            first[target] = entry
    moving.update((entry.position, entry) for entry in first.values())
    return list(moving.values())


def _at(entry: Entry) -> int:
    assert entry.at_ms is not None
    return entry.at_ms


def _shift(entries: Sequence[Entry], ms: int, features: dict[str, Difference]) -> Shift | None:
    """``None`` where the entries move no value."""
    return Shift(len(entries), ms, features) if features else None


# --- many records -----------------------------------------------------------------------------------------------------------------
class Spread(msgspec.Struct, frozen=True):
    """Nearest-rank percentiles."""

    p50: float
    p99: float
    max: float


class Moved(msgspec.Struct, frozen=True):
    """Records in which a feature differs, and the largest difference, of maps by key (``None``: none is a number)."""

    records: int
    largest: Difference


class Shifts(msgspec.Struct, frozen=True):
    """Records that entries beyond O would have changed: entries and seconds a record, and features."""

    records: int
    entries: Spread | None
    seconds: Spread | None
    features: dict[str, Moved]


class Summary(msgspec.Struct, frozen=True):
    """How many records were judged, equal now and then, wrong; what lag and late events hid. A record may stand in several.

    ``inexact_fields``: fields that were said to be in conflict or to wait for a retraction, and were not held to anything.
    """

    judged: int
    equal: int
    bugs: int
    bug_features: dict[str, Moved]
    lag: Shifts
    late: Shifts
    inexact_fields: int = 0


class _Features:
    def __init__(self) -> None:
        self._moved: dict[str, tuple[int, Difference]] = {}

    def add(self, features: Mapping[str, Difference]) -> None:
        for name, by in features.items():
            count, largest = self._moved.get(name, (0, None))
            self._moved[name] = (count + 1, _larger(largest, by))

    def found(self) -> dict[str, Moved]:
        ranked = sorted(self._moved.items(), key=lambda item: (-item[1][0], item[0]))
        return {name: Moved(count, largest) for name, (count, largest) in ranked}


def _larger(a: Difference, b: Difference) -> Difference:
    if isinstance(a, dict) and isinstance(b, dict):
        return {name: max(a.get(name, 0), b.get(name, 0), key=abs) for name in sorted(a.keys() | b.keys())}
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, dict) or isinstance(b, dict):
        return a
    return max(a, b, key=abs)


class _Shifts:
    def __init__(self) -> None:
        self._entries: list[int] = []
        self._ms: list[int] = []
        self._features = _Features()

    def add(self, shift: Shift) -> None:
        self._entries.append(shift.entries)
        self._ms.append(shift.ms)
        self._features.add(shift.features)

    def found(self) -> Shifts:
        seconds = [ms / 1000 for ms in self._ms]
        return Shifts(len(self._entries), spread(self._entries), spread(seconds), self._features.found())


def spread(numbers: Iterable[float]) -> Spread | None:
    """Median, 99th percentile and maximum by nearest rank; ``None`` of nothing."""
    ordered = sorted(numbers)
    if not ordered:
        return None
    p50, p99 = (ordered[-(-len(ordered) * percent // 100) - 1] for percent in (50, 99))
    return Spread(p50, p99, ordered[-1])


class Tally:
    """Adds up what was found of records, and holds on to the worst of them."""

    def __init__(self) -> None:
        self._judged = self._equal = self._bugs = self._inexact_fields = 0
        self._bug_features, self._lag, self._late = _Features(), _Shifts(), _Shifts()
        self._worst: list[tuple[tuple[int, int, int, int], Judged]] = []

    def add(self, judged: Judged) -> None:
        self._judged += 1
        self._inexact_fields += len(judged.served.inexact)
        if judged.wrong:
            self._bugs += 1
            self._bug_features.add(judged.wrong)
        if judged.lag is not None:
            self._lag.add(judged.lag)
        if judged.late is not None:
            self._late.add(judged.late)
        if judged.verdict == "equal":
            self._equal += 1
            return
        # Bugs before lag before late events; the count keeps records themselves from being compared.
        hidden = judged.lag or judged.late
        badness = (len(judged.wrong), judged.lag is not None, hidden.ms if hidden is not None else 0, -self._judged)
        push = heappush if len(self._worst) < WORST else heappushpop
        push(self._worst, (badness, judged))

    @property
    def judged(self) -> int:
        return self._judged

    def worst(self) -> list[Judged]:
        """At most ten records that are not equal, the worst first."""
        return [judged for _badness, judged in sorted(self._worst, key=lambda pair: pair[0], reverse=True)]

    def summary(self) -> Summary:
        return Summary(
            judged=self._judged,
            equal=self._equal,
            bugs=self._bugs,
            bug_features=self._bug_features.found(),
            lag=self._lag.found(),
            late=self._late.found(),
            inexact_fields=self._inexact_fields,
        )


__all__ = [
    "Difference",
    "Judged",
    "Moved",
    "Recomputation",
    "Served",
    "Shift",
    "Shifts",
    "Spread",
    "Summary",
    "Tally",
    "difference",
    "differences",
    "judge",
    "make_served",
    "spread",
]

"""What a person does with the messages that are sent to them: which they click, how soon they open."""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from twofold.columns import KIND_CODE, NULL_CODE, Fact, FactColumns, Names
from twofold.events import FactBody
from twofold.families.family import Example, Family, OwnKind, PastFact, Told
from twofold.features import Feature, Presentation, Primary, Select, divide_half_away
from twofold.states import FEW_ROWS, Rows, rows_by_kind, sooner
from twofold.timeline import DAY_MS, HOUR_MS, Window

if TYPE_CHECKING:
    from pyspark.sql import Column

#: Kind of fact -> what it tells of a message.
SLOTS = {"email_sent": "sent", "email_opened": "opened", "email_clicked": "clicked"}
_NAMES = tuple(SLOTS.values())
_SLOT_OF = {kind: place for place, kind in enumerate(SLOTS)}
_SLOT_OF_CODE = {KIND_CODE[kind]: place for kind, place in _SLOT_OF.items()}
#: Later than every event.
_NEVER = 2**63 - 1
#: When a message was first sent, opened, clicked.
Times = tuple[int | None, int | None, int | None]


class ManyMessages(Mapping[str, Times]):
    """The same mapping, of a person with many: in arrays, whose names are looked up only when they are asked for.

    ``codes``: of their names, ascending; ``first``: (3, codes), ``_NEVER`` where it is not known; ``others``: messages whose names
    are not among ``names``. Never mutated.
    """

    __slots__ = ("_codes", "_first", "_names", "_others")

    def __init__(self, names: Names, codes: npt.NDArray[np.intp], first: npt.NDArray[np.int64], others: dict[str, Times]) -> None:
        self._names, self._codes, self._first, self._others = names, codes, first, others

    def _place(self, name: str) -> int | None:
        code = self._names.find(name)
        place = int(np.searchsorted(self._codes, code))
        return place if code != NULL_CODE and place < len(self._codes) and self._codes[place] == code else None

    def _at(self, place: int) -> Times:
        sent, opened, clicked = (None if at == _NEVER else at for at in self._first[:, place].tolist())
        return sent, opened, clicked

    def __getitem__(self, name: str) -> Times:
        place = self._place(name)
        return self._others[name] if place is None else self._at(place)

    def __len__(self) -> int:
        return len(self._codes) + len(self._others)

    def __iter__(self) -> Iterator[str]:
        yield from self._names.many(self._codes)
        yield from self._others

    def items(self) -> ItemsView[str, Times]:
        """All at once: to look up each name would be a search a message."""
        sent, opened, clicked = ([None if at == _NEVER else at for at in times] for times in self._first.tolist())
        known = dict(zip(self._names.many(self._codes), zip(sent, opened, clicked, strict=True), strict=True))
        return (known | self._others).items()

    def and_few(self, few: Mapping[str, Times]) -> ManyMessages:
        first, others = self._first.copy(), dict(self._others)
        for name, times in few.items():
            place = self._place(name)
            if place is None:
                known = others.get(name)
                others[name] = times if known is None else _sooner(known, times)
            else:
                first[:, place] = _row(_sooner(self._at(place), times))
        return ManyMessages(self._names, self._codes, first, others)

    def times(self) -> npt.NDArray[np.int64]:
        """(3, messages): when each was first sent, opened, clicked, ``_NEVER`` where it is not known."""
        others = np.array([_row(times) for times in self._others.values()], np.int64).reshape(-1, len(SLOTS))
        return np.concatenate((self._first, others.T), axis=1)


def _row(times: Times) -> list[int]:
    return [_NEVER if at is None else at for at in times]


def _sooner(a: Times, b: Times) -> Times:
    return sooner(a[0], b[0]), sooner(a[1], b[1]), sooner(a[2], b[2])


@dataclass(frozen=True)
class Messages(OwnKind):
    """``{message id: (first sent, first opened, first clicked)}``, each ``None`` where it is not known. No id, no message."""

    id: ClassVar[str] = "messages"

    def zero(self) -> Mapping[str, Times]:
        return {}

    def lift(self, fact: Fact) -> dict[str, Times]:
        place = _SLOT_OF.get(fact.kind)
        return {} if place is None or fact.key is None else {fact.key: self._only(place, fact.at_ms)}

    @staticmethod
    def _only(place: int, at_ms: int) -> Times:
        return (at_ms, None, None) if place == 0 else (None, at_ms, None) if place == 1 else (None, None, at_ms)

    def plus(self, a: Mapping[str, Times], b: Mapping[str, Times]) -> Mapping[str, Times]:
        if not a or not b:
            return a or b
        many, few = (b, a) if isinstance(b, ManyMessages) else (a, b)
        if isinstance(many, ManyMessages):
            return many.and_few(few)
        out = dict(a)
        for name, times in b.items():
            known = out.get(name)
            out[name] = times if known is None else _sooner(known, times)
        return out

    def fold(self, facts: Iterable[Fact]) -> dict[str, Times]:
        out: dict[str, Times] = {}
        for fact in facts:
            place = _SLOT_OF.get(fact.kind)
            if place is not None and fact.key is not None:
                only, known = self._only(place, fact.at_ms), out.get(fact.key)
                out[fact.key] = only if known is None else _sooner(known, only)
        return out

    def fold_rows(self, columns: FactColumns, rows: Rows) -> Mapping[str, Times]:
        return self.fold_parts(columns, (rows,))

    def fold_parts(self, columns: FactColumns, parts: Sequence[Rows]) -> Mapping[str, Times]:
        taken = [
            (place, columns.key[rows], columns.at_ms[rows])
            for part in parts
            for code, rows in rows_by_kind(columns, part)
            if (place := _SLOT_OF_CODE.get(code)) is not None
        ]
        if sum(len(keys) for _place, keys, _at in taken) > FEW_ROWS:
            return self._of_many(columns, taken)
        known: dict[int, list[int | None]] = {}
        for place, keys, at in taken:
            for name, at_ms in zip(keys.tolist(), at.tolist(), strict=True):
                times = known.get(name)
                if times is None:
                    times = known[name] = [None, None, None]
                before = times[place]
                if before is None or at_ms < before:
                    times[place] = at_ms
        known.pop(NULL_CODE, None)
        return {name: (t[0], t[1], t[2]) for name, t in zip(columns.names.many(list(known)), known.values(), strict=True)}

    @staticmethod
    def _of_many(columns: FactColumns, taken: Sequence[tuple[int, Any, Any]]) -> ManyMessages:
        first = np.full((len(SLOTS), len(columns.names)), _NEVER, np.int64)
        for place, keys, at in taken:
            named = keys != NULL_CODE
            np.minimum.at(first[place], keys[named], at[named])
        seen = np.flatnonzero(first.min(axis=0) != _NEVER)
        return ManyMessages(columns.names, seen, first[:, seen], {})

    def encode(self, state: Mapping[str, Times]) -> Any:
        return {name: {slot: at for slot, at in zip(_NAMES, times, strict=True) if at is not None} for name, times in state.items()}

    def decode(self, data: Any) -> dict[str, Times]:
        if not isinstance(data, dict):
            raise self.refuse(data)
        return {name: (times.get("sent"), times.get("opened"), times.get("clicked")) for name, times in data.items()}

    def contributing(self, facts: Sequence[Fact], older: Any) -> list[int]:
        """Of each message the first event of each of the three."""
        first: dict[tuple[str, int], int] = {}
        for place, fact in enumerate(facts):
            slot = _SLOT_OF.get(fact.kind)
            if slot is None or fact.key is None:
                continue
            known = first.get((fact.key, slot))
            if known is None or fact[:3] < facts[known][:3]:
                first[fact.key, slot] = place

        def new(name: str, slot: int, at_ms: int) -> bool:
            before = older[name][slot] if name in older else None
            return before is None or at_ms < before

        return sorted(place for (name, slot), place in first.items() if new(name, slot, facts[place].at_ms))

    def native_fold(self, facts: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import field, runs

        def known(fact: Column) -> Column:
            return field(fact, "key").isNotNull() & field(fact, "kind").isin(*SLOTS)

        items = F.transform(
            F.filter(facts, known),
            lambda fact: F.struct(
                field(fact, "key").alias("name"), field(fact, "kind").alias("kind"), field(fact, "at_ms").alias("at_ms")
            ),
        )

        def run(items: Column, start: Column, end: Column) -> Column:
            part = F.slice(items, start + 1, end - start)

            def first(kind: str) -> Column:
                return F.array_min(F.transform(F.filter(part, lambda item: item["kind"] == kind), lambda item: item["at_ms"]))

            times = F.struct(*(first(kind).alias(slot) for kind, slot in SLOTS.items()))
            return F.struct(F.get(items, start)["name"].alias("key"), times.alias("value"))

        return F.map_from_entries(runs(items, ("name",), run))

    def native_plus(self, a: Column, b: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.plus import zip_maps

        return zip_maps(a, b, lambda x, y: F.struct(*(F.least(x[slot], y[slot]).alias(slot) for slot in _NAMES)))


def _native_rounded(amount: Column, count: Column, scale: int) -> Column:
    """``divide_half_away(amount, count) / scale`` of whole numbers >= 0."""
    from pyspark.sql import functions as F

    rounded = F.call_function("div", amount * 2 + count, count * 2)
    return F.when(count > 0, rounded.cast("double") / F.lit(float(scale)))


@dataclass(frozen=True)
class ShareClicked(Presentation):
    """Of the messages that were sent the share that was clicked, to three decimals; null of none."""

    id: ClassVar[str] = "share_clicked"
    type: ClassVar = "number"
    nullable: ClassVar[bool] = True

    def value(self, _t: int, *states: Any) -> float | None:
        messages, sent, clicked = states[0], 0, 0
        if isinstance(messages, ManyMessages):
            known = messages.times() != _NEVER
            sent, clicked = int(known[0].sum()), int((known[0] & known[2]).sum())
        else:
            for times in messages.values():
                if times[0] is not None:
                    sent += 1
                    clicked += times[2] is not None
        return divide_half_away(1_000 * clicked, sent) / 1_000 if sent else None

    def native_value(self, _t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        def share(sent: Column) -> Column:
            clicked = F.filter(sent, lambda times: times["clicked"].isNotNull())
            return _native_rounded(F.size(clicked).cast("bigint") * 1_000, F.size(sent).cast("bigint"), 1_000)

        return F.when(states[0].isNotNull(), let(F.filter(F.map_values(states[0]), lambda times: times["sent"].isNotNull()), share))


@dataclass(frozen=True)
class MeanHoursToOpen(Presentation):
    """Mean hours from the first sending to the first opening that is not before it, to two decimals; null of none."""

    id: ClassVar[str] = "mean_hours_to_open"
    type: ClassVar = "number"
    nullable: ClassVar[bool] = True

    def value(self, _t: int, *states: Any) -> float | None:
        count = total = 0
        if isinstance(states[0], ManyMessages):
            sent, opened, _clicked = states[0].times()
            both = (sent != _NEVER) & (opened != _NEVER) & (opened >= sent)
            count, total = int(both.sum()), int((opened - sent)[both].sum())
        else:
            for first_sent, first_opened, _first_clicked in states[0].values():
                if first_sent is not None and first_opened is not None and first_opened >= first_sent:
                    count += 1
                    total += first_opened - first_sent
        return divide_half_away(100 * total, count * HOUR_MS) / 100 if count else None

    def native_value(self, _t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        def mean(waits: Column) -> Column:
            total = F.aggregate(waits, F.lit(0).cast("bigint"), lambda total, wait: total + wait)
            return _native_rounded(total * 100, F.size(waits).cast("bigint") * HOUR_MS, 100)

        waits = F.transform(F.map_values(states[0]), lambda times: times["opened"] - times["sent"])
        return F.when(states[0].isNotNull(), let(F.filter(waits, lambda wait: F.coalesce(wait >= 0, F.lit(False))), mean))


def naive(past: Sequence[PastFact], t: int) -> dict[str, Any]:
    from fractions import Fraction

    def times(kind: str, message: str) -> list[int]:
        return [f.at_ms for f in past if f.body.kind == kind and f.body.key == message and f.at_ms >= t - 30 * DAY_MS]

    def rounded(exact: Fraction, digits: int) -> float:
        # Nothing here is negative, so away from zero is up.
        return int(exact * 10**digits + Fraction(1, 2)) / float(10**digits)

    messages = {f.body.key for f in past if f.body.kind == "email_sent" and f.body.key is not None}
    sent = [m for m in messages if m is not None and times("email_sent", m)]
    clicked = [m for m in sent if times("email_clicked", m)]
    waits = [min(times("email_opened", m)) - min(times("email_sent", m)) for m in sent if times("email_opened", m)]
    waits = [wait for wait in waits if wait >= 0]
    return {
        "ctr_30d": rounded(Fraction(len(clicked), len(sent)), 3) if sent else None,
        "hours_to_open_mean": rounded(Fraction(sum(waits), len(waits) * HOUR_MS), 2) if waits else None,
    }


def _mail(kind: str, message: str) -> FactBody:
    return FactBody(kind, key=message)


FAMILY = Family(
    primaries=(Primary("messages_30d", Messages(), Select(tuple(SLOTS)), Window(30 * DAY_MS)),),
    features=(
        Feature("ctr_30d", "Share of the messages sent in the last 30 days that was clicked", "messages_30d", show=ShareClicked()),
        Feature(
            "hours_to_open_mean",
            "Mean hours from sending to opening, messages of the last 30 days",
            "messages_30d",
            show=MeanHoursToOpen(),
        ),
    ),
    told={
        "ctr_30d": Told(
            rule="Of the messages sent in the window the share that was clicked in it, to three decimals. A message is one message "
            "id, however often it is clicked; without an id it is not counted. Null where none was sent",
            nothing=None,
            example=Example(
                facts=(
                    ("2024-11-22T09:00:00Z", _mail("email_sent", "m0")),
                    ("2024-12-29T09:00:00Z", _mail("email_sent", "m1")),
                    ("2024-12-30T09:00:00Z", _mail("email_sent", "m2")),
                    ("2024-12-30T10:00:00Z", _mail("email_clicked", "m2")),
                    ("2024-12-30T10:00:05Z", _mail("email_clicked", "m2")),
                    ("2024-12-31T09:00:00Z", _mail("email_sent", "m3")),
                    ("2024-12-31T09:30:00Z", _mail("email_clicked", "m0")),
                ),
                at="2025-01-01T12:00:00Z",
                value=0.333,
                why="of m1, m2 and m3 one was clicked; m0 was sent before the window, so its click does not count",
            ),
        ),
        "hours_to_open_mean": Told(
            rule="Mean hours from the first sending of a message to its first opening, to two decimals, over the messages that "
            "have both in the window, in that order. Null where there is none",
            nothing=None,
            example=Example(
                facts=(
                    ("2024-12-30T09:00:00Z", _mail("email_sent", "m1")),
                    ("2024-12-30T10:00:00Z", _mail("email_opened", "m1")),
                    ("2024-12-30T14:00:00Z", _mail("email_opened", "m1")),
                    ("2024-12-31T09:00:00Z", _mail("email_sent", "m2")),
                    ("2024-12-31T11:01:00Z", _mail("email_opened", "m2")),
                    ("2024-12-31T12:00:00Z", _mail("email_sent", "m3")),
                ),
                at="2025-01-01T12:00:00Z",
                value=1.51,
                why="60 and 121 minutes are 90.5 on average, that is 1.508 hours; m3 is not opened",
            ),
        ),
    },
    naive=naive,
    edges_ms=(HOUR_MS,),
)

"""The closed set of mergeable states. One class a kind; a state is an immutable plain value.

Every kind obeys the same laws (``tests/laws``): ``plus`` is associative and commutative with ``zero``; ``fold`` and
``fold_rows`` equal lifting every fact and adding; ``decode(encode(s)) == s``; no operation changes its inputs. Facts reach a
state once each: deduplication belongs to the merge. ``fold_rows`` reads a row selection of :class:`FactColumns` in time order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import itemgetter
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from twofold.columns import NULL_AMOUNT, NULL_CODE, NULL_QUANTITY, Fact, FactColumns
from twofold.errors import StateError

#: Rows of a selection: a slice of the columns, or row numbers in ascending order.
Rows = slice | npt.NDArray[np.intp]

NULLS = {"amount_minor": NULL_AMOUNT, "quantity": NULL_QUANTITY}
#: Below this many rows a sum of 64-bit amounts (at most 10^15 each) cannot overflow.
_SAFE_SUM_ROWS = 9_000
#: Up to this many rows a Python loop costs less than a handful of numpy calls.
FEW_ROWS = 64
#: With fewer rows than one to so many codes, a place for each code would cost more than to sort them.
_SPARSE = 16


def sooner(a: int | None, b: int | None) -> int | None:
    """The smaller one; ``None`` is none at all."""
    if a is None or b is None:
        return b if a is None else a
    return min(a, b)


def later(a: int | None, b: int | None) -> int | None:
    """The larger one; ``None`` is none at all."""
    if a is None or b is None:
        return b if a is None else a
    return max(a, b)


@dataclass(frozen=True)
class Kind(ABC):
    """A kind of state. ``id`` names it in encodings and documentation; parameters are dataclass fields (part of the definition)."""

    id: ClassVar[str]
    #: Whether of a state that is zero no fact, taken away, would make another state.
    zero_is_nothing: ClassVar[bool] = True

    @abstractmethod
    def zero(self) -> Any: ...

    @abstractmethod
    def lift(self, fact: Fact) -> Any: ...

    @abstractmethod
    def plus(self, a: Any, b: Any) -> Any: ...

    def fold(self, facts: Iterable[Fact]) -> Any:
        """The state of many facts: the definition every faster path must equal."""
        return reduce(self.plus, map(self.lift, facts), self.zero())

    @abstractmethod
    def fold_rows(self, columns: FactColumns, rows: Rows) -> Any: ...

    def fold_parts(self, columns: FactColumns, parts: Sequence[Rows]) -> Any:
        """The state of several selections of rows, one or more, that have no row in common."""
        return reduce(self.plus, [self.fold_rows(columns, rows) for rows in parts])

    def encode(self, state: Any) -> Any:
        """The state as JSON values; what the native Spark fold writes too."""
        return state

    def decode(self, data: Any) -> Any:
        return data

    def refuse(self, data: Any) -> StateError:
        """The error for an encoded state that cannot be read."""
        return StateError(f"an encoded {self.id} state cannot be read: {str(data)[:80]!r}")


def row_count(rows: Rows) -> int:
    """How many rows a selection has."""
    return (rows.stop - rows.start) if isinstance(rows, slice) else len(rows)


def rows_by_kind(columns: FactColumns, rows: Rows) -> list[tuple[int, Rows]]:
    """A selection by the kind of fact: (code of the kind, its rows in their order). A slice of one kind costs little."""
    if not row_count(rows):
        return []
    ends = columns.kind_ends
    if isinstance(rows, slice):
        code = bisect_right(ends, rows.start)
        if rows.stop <= ends[code]:
            return [(code, rows)]
        rows = np.arange(rows.start, rows.stop)
    codes = np.searchsorted(ends, rows, side="right")
    return [(code, rows[codes == code]) for code in np.unique(codes).tolist()]


def group_rows(
    codes: npt.NDArray[Any], weights: npt.NDArray[np.int64] | None, at: npt.NDArray[np.int64]
) -> tuple[list[int], list[int], list[int]]:
    """Distinct codes (>= 0), ascending, with their exact weight sums and last times."""
    first, end = int(codes.min()), int(codes.max()) + 1
    if end - first > _SPARSE * len(codes):
        distinct, places = np.unique(codes, return_inverse=True)
    else:
        distinct, places = np.arange(first, end), codes - first
    size = len(distinct)
    # A place for each code and one pass over the rows: sorting them by code costs ten times as much.
    counts = np.bincount(places, minlength=size)
    seen = np.flatnonzero(counts > 0)
    if weights is None:
        totals = counts
    else:
        totals = np.zeros(size, np.int64)
        np.add.at(totals, places, weights)
    last = np.full(size, np.iinfo(np.int64).min)
    np.maximum.at(last, places, at)
    return distinct[seen].tolist(), totals[seen].tolist(), last[seen].tolist()


def _exact_sum(values: npt.NDArray[np.int64]) -> int:
    if len(values) <= _SAFE_SUM_ROWS:
        return int(values.sum())
    return (int((values >> 32).sum()) << 32) + int((values & 0xFFFFFFFF).sum())


@dataclass(frozen=True)
class Count(Kind):
    """How many facts: an integer."""

    id: ClassVar[str] = "count"

    def zero(self) -> int:
        return 0

    def lift(self, fact: Fact) -> int:  # noqa: ARG002
        return 1

    def plus(self, a: int, b: int) -> int:
        return a + b

    def fold(self, facts: Iterable[Fact]) -> int:
        return len(facts) if isinstance(facts, list) else sum(1 for _ in facts)

    def fold_rows(self, columns: FactColumns, rows: Rows) -> int:  # noqa: ARG002
        return row_count(rows)

    def decode(self, data: Any) -> int:
        if type(data) is not int:
            raise self.refuse(data)
        return data


@dataclass(frozen=True)
class Sum(Kind):
    """Exact integer sum of a column over the facts that carry it."""

    column: str
    id: ClassVar[str] = "sum"
    zero_is_nothing: ClassVar[bool] = False

    def zero(self) -> int:
        return 0

    def lift(self, fact: Fact) -> int:
        return getattr(fact, self.column) or 0

    def plus(self, a: int, b: int) -> int:
        return a + b

    def fold(self, facts: Iterable[Fact]) -> int:
        return sum(getattr(fact, self.column) or 0 for fact in facts)

    def fold_rows(self, columns: FactColumns, rows: Rows) -> int:
        values, null = getattr(columns, self.column)[rows], NULLS[self.column]
        if len(values) <= FEW_ROWS:
            return sum(value for value in values.tolist() if value != null)
        return _exact_sum(values[values != null].astype(np.int64))

    def decode(self, data: Any) -> int:
        if type(data) is not int:
            raise self.refuse(data)
        return data


@dataclass(frozen=True)
class MoneySum(Kind):
    """``{currency: sum of amount_minor}`` over facts that carry an amount; a currency appears iff one does, even at sum 0.

    With ``counted`` it is the number of those facts instead: the denominator of an average.
    """

    counted: bool = False
    id: ClassVar[str] = "money_sum"

    def zero(self) -> dict[str, int]:
        return {}

    def lift(self, fact: Fact) -> dict[str, int]:
        if fact.amount_minor is None or fact.currency is None:
            return {}
        return {fact.currency: 1 if self.counted else fact.amount_minor}

    def plus(self, a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
        if not a or not b:
            return a or b
        out = dict(a)
        for currency, amount in b.items():
            out[currency] = out.get(currency, 0) + amount
        return out

    def fold(self, facts: Iterable[Fact]) -> dict[str, int]:
        out: dict[str, int] = {}
        for fact in facts:
            if fact.amount_minor is not None and fact.currency is not None:
                out[fact.currency] = out.get(fact.currency, 0) + (1 if self.counted else fact.amount_minor)
        return out

    def fold_rows(self, columns: FactColumns, rows: Rows) -> dict[str, int]:
        amounts, currencies = columns.amount_minor[rows], columns.currency[rows]
        out: dict[str, int] = {}
        if len(amounts) <= FEW_ROWS:
            sums: dict[int, int] = {}
            for amount, code in zip(amounts.tolist(), currencies.tolist(), strict=True):
                if amount != NULL_AMOUNT and code != NULL_CODE:
                    sums[code] = sums.get(code, 0) + (1 if self.counted else amount)
            return {columns.names[code]: total for code, total in sums.items()}
        carried = (amounts != NULL_AMOUNT) & (currencies != NULL_CODE)
        if not carried.all():
            amounts, currencies = amounts[carried], currencies[carried]
        if not len(amounts):
            return {}
        first = int(currencies[0])
        codes = [first] if (currencies == first).all() else np.unique(currencies).tolist()
        for code in codes:
            of_code = amounts if len(codes) == 1 else amounts[currencies == code]
            out[columns.names[code]] = len(of_code) if self.counted else _exact_sum(of_code)
        return out

    def decode(self, data: Any) -> dict[str, int]:
        if not isinstance(data, dict):
            raise self.refuse(data)
        return data


#: The order of facts: by event time, event id, ordinal.
_ORDER = itemgetter(0, 1, 2)
#: (event time, event id, ordinal, value): the order of a fact, and what is kept of it.
Mark = tuple[int, str, int, Any]


def encode_mark(mark: Mark) -> dict[str, Any]:
    """A mark as JSON values; a null value is left out."""
    encoded = {"at_ms": mark[0], "event_id": mark[1], "ordinal": mark[2]}
    return encoded if mark[3] is None else {**encoded, "value": mark[3]}


def decode_mark(kind: Kind, data: Any) -> Mark:
    """Raises :class:`StateError` naming the kind."""
    try:
        return (data["at_ms"], data["event_id"], data["ordinal"], data.get("value"))
    except (KeyError, TypeError, AttributeError) as error:
        raise kind.refuse(data) from error


@dataclass(frozen=True)
class Latest(Kind):
    """The value of the latest fact (or the first) by (event time, event id, ordinal), never by arrival. ``None`` is zero."""

    column: str
    first: bool = False
    id: ClassVar[str] = "latest"

    def zero(self) -> Mark | None:
        return None

    def lift(self, fact: Fact) -> Mark:
        return (fact.at_ms, fact.event_id, fact.ordinal, getattr(fact, self.column))

    def plus(self, a: Mark | None, b: Mark | None) -> Mark | None:
        if a is None or b is None:
            return b if a is None else a
        return a if (a[:3] < b[:3]) == self.first else b

    def fold(self, facts: Iterable[Fact]) -> Mark | None:
        best = (min if self.first else max)(facts, key=_ORDER, default=None)
        return None if best is None else self.lift(best)

    def fold_rows(self, columns: FactColumns, rows: Rows) -> Mark | None:
        if row_count(rows) == 0:
            return None
        if isinstance(rows, slice):
            row = rows.start if self.first else rows.stop - 1
        else:
            row = int(rows[0 if self.first else -1])
        at = int(columns.at_ms[row])
        value = at if self.column == "at_ms" else columns.text(self.column, row)
        return (at, columns.event_id(row), int(columns.ordinal[row]), value)

    def encode(self, state: Mark | None) -> Any:
        return None if state is None else encode_mark(state)

    def decode(self, data: Any) -> Mark | None:
        return None if data is None else decode_mark(self, data)


@dataclass(frozen=True)
class Extreme(Kind):
    """Smallest (or largest) value of a numeric column over the facts that carry it. ``None`` is zero."""

    column: str
    largest: bool = False
    id: ClassVar[str] = "extreme"

    def zero(self) -> int | None:
        return None

    def lift(self, fact: Fact) -> int | None:
        value = getattr(fact, self.column)
        assert value is None or isinstance(value, int)
        return value

    def plus(self, a: int | None, b: int | None) -> int | None:
        return later(a, b) if self.largest else sooner(a, b)

    def fold_rows(self, columns: FactColumns, rows: Rows) -> int | None:
        values = getattr(columns, self.column)[rows]
        if self.column in NULLS:
            values = values[values != NULLS[self.column]]
        if not len(values):
            return None
        return int(values.max() if self.largest else values.min())

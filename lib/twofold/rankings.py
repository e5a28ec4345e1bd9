"""Mergeable states that group facts by a name: recent, distinct, top, histogram, decayed. Laws as in :mod:`twofold.states`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import lru_cache
from math import ldexp
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from twofold.columns import NULL_CODE, Fact, FactColumns
from twofold.errors import StateError
from twofold.states import NULLS, Kind, Mark, Rows, decode_mark, encode_mark, group_rows
from twofold.timeline import DAY_MS, HOUR_MS

#: Up to this many rows a Python loop groups faster than numpy.
_FEW_ROWS = 256


@dataclass(frozen=True)
class Recent(Kind):
    """The last ``k`` distinct names, newest first by (event time, event id, ordinal): ``((at, event id, ordinal, name), …)``.

    Cutting to k in ``plus`` is exact: a name's newest mark can only grow, so what falls out never comes back.
    """

    column: str
    k: int
    id: ClassVar[str] = "recent"

    def zero(self) -> tuple[Mark, ...]:
        return ()

    def lift(self, fact: Fact) -> tuple[Mark, ...]:
        name = getattr(fact, self.column)
        return () if name is None else ((fact.at_ms, fact.event_id, fact.ordinal, name),)

    def plus(self, a: tuple[Mark, ...], b: tuple[Mark, ...]) -> tuple[Mark, ...]:
        if not a or not b:
            return a or b
        out: list[Mark] = []
        seen: set[str] = set()
        for mark in sorted(a + b, reverse=True):
            if mark[3] not in seen:
                seen.add(mark[3])
                out.append(mark)
                if len(out) == self.k:
                    break
        return tuple(out)

    def fold(self, facts: Iterable[Fact]) -> tuple[Mark, ...]:
        # Ascending, so that the last one written is a name's newest.
        newest = {mark[3]: mark for mark in sorted(mark for fact in facts for mark in self.lift(fact))}
        return tuple(sorted(newest.values(), reverse=True)[: self.k])

    def fold_rows(self, columns: FactColumns, rows: Rows) -> tuple[Mark, ...]:
        codes = getattr(columns, self.column)[rows]
        start = rows.start if isinstance(rows, slice) else 0
        seen: set[int] = set()
        out: list[Mark] = []
        # Newest first, in blocks: a person with many facts is rarely read far back.
        for stop in range(len(codes), 0, -256):
            low = max(0, stop - 256)
            block = codes[low:stop].tolist()
            for place in range(stop - 1, low - 1, -1):
                code = block[place - low]
                if code == NULL_CODE or code in seen:
                    continue
                seen.add(code)
                row = start + place if isinstance(rows, slice) else int(rows[place])
                out.append((int(columns.at_ms[row]), columns.event_id(row), int(columns.ordinal[row]), columns.names[code]))
                if len(out) == self.k:
                    return tuple(out)
        return tuple(out)

    def encode(self, state: tuple[Mark, ...]) -> Any:
        return [encode_mark(mark) for mark in state]

    def decode(self, data: Any) -> tuple[Mark, ...]:
        if not isinstance(data, list):
            raise self.refuse(data)
        return tuple(decode_mark(self, mark) for mark in data)


@dataclass(frozen=True)
class Distinct(Kind):
    """The exact set of names that occur (null names never)."""

    column: str
    id: ClassVar[str] = "distinct"

    def zero(self) -> frozenset[str]:
        return frozenset()

    def lift(self, fact: Fact) -> frozenset[str]:
        name = getattr(fact, self.column)
        return frozenset() if name is None else frozenset((name,))

    def plus(self, a: frozenset[str], b: frozenset[str]) -> frozenset[str]:
        return a | b if a and b else a or b

    def fold(self, facts: Iterable[Fact]) -> frozenset[str]:
        return frozenset(name for fact in facts if (name := getattr(fact, self.column)) is not None)

    def fold_rows(self, columns: FactColumns, rows: Rows) -> frozenset[str]:
        codes = getattr(columns, self.column)[rows]
        distinct = set(codes.tolist()) if len(codes) <= _FEW_ROWS else set(np.unique(codes).tolist())
        distinct.discard(NULL_CODE)
        return frozenset(columns.names.many(list(distinct)))

    def encode(self, state: frozenset[str]) -> Any:
        return sorted(state)

    def decode(self, data: Any) -> frozenset[str]:
        if not isinstance(data, list):
            raise self.refuse(data)
        return frozenset(data)


#: weight, event time of the last fact of the name
Weight = tuple[int, int]


def _encode_weights(weights: dict[Any, Weight]) -> dict[str, dict[str, int]]:
    return {str(name): {"weight": weight, "last_ms": last} for name, (weight, last) in weights.items()}


def _plus_weights(a: dict[Any, Weight], b: dict[Any, Weight]) -> dict[Any, Weight]:
    if not a or not b:
        return a or b
    if len(a) < len(b):
        a, b = b, a
    out = dict(a)
    for name, (weight, last) in b.items():
        known = out.get(name)
        out[name] = (weight, last) if known is None else (known[0] + weight, max(known[1], last))
    return out


@dataclass(frozen=True)
class Top(Kind):
    """``{name: (weight, last event time)}``, whole; cut only in ``present``. Weight: 1 a fact, or an integer column (null: 0)."""

    column: str
    weight: str | None = None
    id: ClassVar[str] = "top"

    def zero(self) -> dict[str, Weight]:
        return {}

    def lift(self, fact: Fact) -> dict[str, Weight]:
        name = getattr(fact, self.column)
        if name is None:
            return {}
        return {name: (1 if self.weight is None else getattr(fact, self.weight) or 0, fact.at_ms)}

    def plus(self, a: dict[str, Weight], b: dict[str, Weight]) -> dict[str, Weight]:
        return _plus_weights(a, b)

    def fold(self, facts: Iterable[Fact]) -> dict[str, Weight]:
        out: dict[str, Weight] = {}
        for fact in facts:
            name = getattr(fact, self.column)
            if name is None:
                continue
            weight = 1 if self.weight is None else getattr(fact, self.weight) or 0
            known = out.get(name)
            out[name] = (weight, fact.at_ms) if known is None else (known[0] + weight, max(known[1], fact.at_ms))
        return out

    def fold_rows(self, columns: FactColumns, rows: Rows) -> dict[str, Weight]:
        codes, at = getattr(columns, self.column)[rows], columns.at_ms[rows]
        if len(codes) <= _FEW_ROWS:
            return self._few_rows(columns, rows, codes.tolist(), at.tolist())
        weights = None
        if self.weight is not None:
            weights = getattr(columns, self.weight)[rows].astype(np.int64)
            weights[weights == NULLS[self.weight]] = 0
        named = codes != NULL_CODE
        if not named.all():
            codes, at = codes[named], at[named]
            weights = None if weights is None else weights[named]
        if not len(codes):
            return {}
        distinct, sums, last = group_rows(codes, weights, at)
        return dict(zip(columns.names.many(distinct), zip(sums, last, strict=True), strict=True))

    def _few_rows(self, columns: FactColumns, rows: Rows, codes: list[int], at: list[int]) -> dict[str, Weight]:
        # A dozen numpy calls cost more than a loop over few rows. Times ascend, so the last one written is a code's latest.
        last = dict(zip(codes, at, strict=True))
        last.pop(NULL_CODE, None)
        sums: dict[int, int]
        if self.weight is None:
            counts = Counter(codes)
            sums = {code: counts[code] for code in last}
        else:
            sums = dict.fromkeys(last, 0)
            null = NULLS[self.weight]
            for code, weight in zip(codes, getattr(columns, self.weight)[rows].tolist(), strict=True):
                if code != NULL_CODE and weight != null:
                    sums[code] += weight
        return dict(zip(columns.names.many(list(last)), zip(sums.values(), last.values(), strict=True), strict=True))

    def encode(self, state: dict[str, Weight]) -> Any:
        return _encode_weights(state)

    def decode(self, data: Any) -> dict[str, Weight]:
        if not isinstance(data, dict):
            raise self.refuse(data)
        return {name: (weight["weight"], weight["last_ms"]) for name, weight in data.items()}


#: Buckets a histogram can count by: epoch ms -> bucket. 1970-01-01 was a Thursday; bucket 0 is Monday 00h UTC.
BUCKETS: dict[str, Callable[[Any], Any]] = {"hour_of_week": lambda at_ms: (at_ms + 3 * DAY_MS) // HOUR_MS % 168}


@dataclass(frozen=True)
class Histogram(Kind):
    """``{bucket: (count, last event time)}`` over integer buckets of the event time."""

    bucket: str
    id: ClassVar[str] = "histogram"

    def zero(self) -> dict[int, Weight]:
        return {}

    def lift(self, fact: Fact) -> dict[int, Weight]:
        return {BUCKETS[self.bucket](fact.at_ms): (1, fact.at_ms)}

    def plus(self, a: dict[int, Weight], b: dict[int, Weight]) -> dict[int, Weight]:
        return _plus_weights(a, b)

    def fold(self, facts: Iterable[Fact]) -> dict[int, Weight]:
        out: dict[int, Weight] = {}
        bucket_of = BUCKETS[self.bucket]
        for fact in facts:
            at = fact.at_ms
            bucket = bucket_of(at)
            known = out.get(bucket)
            out[bucket] = (1, at) if known is None else (known[0] + 1, max(known[1], at))
        return out

    def fold_rows(self, columns: FactColumns, rows: Rows) -> dict[int, Weight]:
        return self._of(columns.at_ms[rows])

    def fold_parts(self, columns: FactColumns, parts: Sequence[Rows]) -> dict[int, Weight]:
        at = np.concatenate([columns.at_ms[rows] for rows in parts])
        if len(at) <= _FEW_ROWS:
            at.sort()
        return self._of(at)

    def _of(self, at: npt.NDArray[np.int64]) -> dict[int, Weight]:
        """Of instants; few of them ascend."""
        buckets = BUCKETS[self.bucket](at)
        if len(at) > _FEW_ROWS:
            distinct, sums, last = group_rows(buckets, None, at)
            return dict(zip(distinct, zip(sums, last, strict=True), strict=True))
        # Times ascend, so the last one written is a bucket's latest.
        listed = buckets.tolist()
        counts = Counter(listed)
        return {bucket: (counts[bucket], at_ms) for bucket, at_ms in dict(zip(listed, at.tolist(), strict=True)).items()}

    def encode(self, state: dict[int, Weight]) -> Any:
        return _encode_weights(state)

    def decode(self, data: Any) -> dict[int, Weight]:
        if not isinstance(data, dict):
            raise self.refuse(data)
        return {int(bucket): (weight["weight"], weight["last_ms"]) for bucket, weight in data.items()}


DECAY_SCALE = 2.0**40
#: Entries of each of the three factor tables of 2^fraction: their product covers a half-life at one-millisecond steps.
DECAY_BASE = 846


@lru_cache(maxsize=8)
def decay_tables(half_life_ms: int) -> tuple[list[float], list[float], list[float]]:
    """Factor tables: ``2^(r/half_life) = a[r // B²] * b[r // B % B] * c[r % B]`` for ``0 <= r < half_life_ms``, B = ``DECAY_BASE``.

    Correctly rounded constants and two IEEE multiplications give the same bits in Python, numpy and the JVM; ``pow`` does not.
    """
    if half_life_ms > DECAY_BASE**3:
        raise StateError(f"a half-life of {half_life_ms} ms is longer than the decay tables reach")
    with localcontext() as context:
        context.prec = 40
        log2 = Decimal(2).ln()
        a, b, c = (
            # Places past the half-life are never read; for a short one they would overflow.
            [float((log2 * min(place * step, half_life_ms) / half_life_ms).exp()) for place in range(DECAY_BASE)]
            for step in (DECAY_BASE**2, DECAY_BASE, 1)
        )
        return a, b, c


def _decay_factor(rest: int, half_life_ms: int) -> float:
    """``2^(rest / half_life)`` for ``0 <= rest < half_life_ms``."""
    a, b, c = decay_tables(half_life_ms)
    high, low = divmod(rest, DECAY_BASE)
    return a[high // DECAY_BASE] * b[high % DECAY_BASE] * c[low]


def decay_weight(at_ms: int, half_life_ms: int) -> tuple[int, int]:
    """(half-life index since 1970, 2^fraction in units of 2^-40 rounded half up) of an instant."""
    index, rest = divmod(at_ms, half_life_ms)
    return index, int(_decay_factor(rest, half_life_ms) * DECAY_SCALE + 0.5)


def decay_at(t: int, half_life_ms: int) -> tuple[int, float]:
    """(index, factor) of a read at ``t``: what decayed from half-life index i counts ``2^(i - index) * factor``, 1 <= factor < 2.

    Powers of two are exact and the factor comes from the tables, so that Python and the JVM score with the same bits.
    """
    index = -(-t // half_life_ms)
    return index, _decay_factor(index * half_life_ms - t, half_life_ms)


@lru_cache(maxsize=8)
def _decay_arrays(half_life_ms: int) -> tuple[npt.NDArray[np.float64], ...]:
    return tuple(np.array(table) for table in decay_tables(half_life_ms))


def half_up(score: float, digits: int) -> float:
    """Round the exact value of a float half-up; through a decimal only where a float product could go the wrong way."""
    scaled: float = score * 10**digits
    fraction = scaled % 1.0
    if abs(fraction - 0.5) > 1e-4 and scaled < 1e9:
        return int(scaled + 0.5) / float(10**digits)
    return float(Decimal(score).quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_UP))


@dataclass(frozen=True)
class Decayed(Kind):
    """``{name: {half-life index: integer}}``: each fact adds 2^(at/half-life) exactly, in units of 2^-40 of its index."""

    column: str
    half_life_ms: int
    id: ClassVar[str] = "decayed"

    def zero(self) -> dict[str, dict[int, int]]:
        return {}

    def lift(self, fact: Fact) -> dict[str, dict[int, int]]:
        name = getattr(fact, self.column)
        if name is None:
            return {}
        index, weight = decay_weight(fact.at_ms, self.half_life_ms)
        return {name: {index: weight}}

    def plus(self, a: dict[str, dict[int, int]], b: dict[str, dict[int, int]]) -> dict[str, dict[int, int]]:
        if not a or not b:
            return a or b
        out = dict(a)
        for name, sums in b.items():
            known = out.get(name)
            if known is None:
                out[name] = sums
                continue
            added = dict(known)
            for index, weight in sums.items():
                added[index] = added.get(index, 0) + weight
            out[name] = added
        return out

    def fold(self, facts: Iterable[Fact]) -> dict[str, dict[int, int]]:
        out: dict[str, dict[int, int]] = {}
        for fact in facts:
            name = getattr(fact, self.column)
            if name is not None:
                index, weight = decay_weight(fact.at_ms, self.half_life_ms)
                sums = out.setdefault(name, {})
                sums[index] = sums.get(index, 0) + weight
        return out

    def fold_rows(self, columns: FactColumns, rows: Rows) -> dict[str, dict[int, int]]:
        codes, at = getattr(columns, self.column)[rows], columns.at_ms[rows]
        named = codes != NULL_CODE
        if not named.all():
            codes, at = codes[named], at[named]
        if not len(codes):
            return {}
        index, rest = np.divmod(at, self.half_life_ms)
        a, b, c = _decay_arrays(self.half_life_ms)
        high, low = np.divmod(rest, DECAY_BASE)
        highest, middle = np.divmod(high, DECAY_BASE)
        weights = (a[highest] * b[middle] * c[low] * DECAY_SCALE + 0.5).astype(np.int64)
        if len(codes) <= _FEW_ROWS:
            few: dict[int, dict[int, int]] = {}
            for code, place, weight in zip(codes.tolist(), index.tolist(), weights.tolist(), strict=True):
                known = few.get(code)
                if known is None:
                    few[code] = {place: weight}
                else:
                    known[place] = known.get(place, 0) + weight
            return {columns.names[code]: totals for code, totals in few.items()}
        first = int(index.min())
        span = int(index.max()) - first + 1
        # 2^41 a fact: a sum of up to four million facts fits 63 bits.
        distinct, sums, _last = group_rows(codes.astype(np.int64) * span + (index - first), weights, at)
        by_code: dict[int, dict[int, int]] = {}
        for packed, total in zip(distinct, sums, strict=True):
            code, place = divmod(packed, span)
            by_code.setdefault(code, {})[first + place] = total
        return {columns.names[code]: totals for code, totals in by_code.items()}

    def encode(self, state: dict[str, dict[int, int]]) -> Any:
        return {name: {str(index): weight for index, weight in sums.items()} for name, sums in state.items()}

    def decode(self, data: Any) -> dict[str, dict[int, int]]:
        if not isinstance(data, dict):
            raise self.refuse(data)
        return {name: {int(index): weight for index, weight in sums.items()} for name, sums in data.items()}

    def scores(self, state: Mapping[str, dict[int, int]], t: int) -> dict[str, float]:
        """Decayed sums at ``t`` by name, each summed newest index first and rounded half-up to six decimals."""
        now, factor = decay_at(t, self.half_life_ms)
        out: dict[str, float] = {}
        for name, sums in state.items():
            total: float = 0.0
            for index in sorted(sums, reverse=True) if len(sums) > 1 else sums:
                total += (sums[index] * 2.0**-40) * (ldexp(1.0, index - now) * factor)
            out[name] = half_up(total, 6)
        return out

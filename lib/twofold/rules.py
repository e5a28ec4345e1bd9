"""A segment's rule as a tree: clauses over the values of a record, joined by and, or, not.

The one meaning of a rule: :func:`evaluator` gives it to Python, ``spark/segments.py`` to Spark. A clause is true or false, never
null: a comparison with null is false, and so its ``not`` is true. Ages count from the record's own t, in whole milliseconds: the
instant ``at`` is *older than w* iff ``at < t - w``, and *within w* iff ``at >= t - w``, as a window ``[t - w, t)`` has it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import msgspec

from twofold.features import ValueType
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS, SECOND_MS, show_time

#: What an operand gives: the value of a feature, or one decayed score of it.
OperandType = ValueType | Literal["score"]
Comparison = Literal["=", "!=", "<", "<=", ">", ">="]
Constant = int | float | str
#: A rule ready to be asked: (values of the record, its t in epoch ms) -> whether it holds.
Evaluator = Callable[[Mapping[str, Any], int], bool]

#: Units of a duration, longest first, as a rule is written back.
UNITS_MS = {"w": 7 * DAY_MS, "d": DAY_MS, "h": HOUR_MS, "min": MINUTE_MS, "s": SECOND_MS, "ms": 1}
_COMPARE: dict[str, Callable[[Any, Any], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


@dataclass(frozen=True)
class Operand:
    """A feature, or one part (``key``) of a feature that is a map."""

    feature: str
    type: OperandType
    key: str | None = None

    def of(self, values: Mapping[str, Any]) -> Any:
        """The value, or ``None``: what is null, and a part that the map has not."""
        value = values[self.feature]
        return value if self.key is None or value is None else value.get(self.key)

    def __str__(self) -> str:
        if self.key is None:
            return self.feature
        plain = self.key.isascii() and self.key.isidentifier()
        return f"{self.feature}.{self.key if plain else quoted(self.key)}"


@dataclass(frozen=True)
class Compare:
    operand: Operand
    by: Comparison
    constant: Constant

    def __str__(self) -> str:
        return f"{self.operand} {self.by} {constant_text(self.operand.type, self.constant)}"


@dataclass(frozen=True)
class OneOf:
    operand: Operand
    constants: tuple[Constant, ...]

    def __str__(self) -> str:
        return f"{self.operand} in ({', '.join(constant_text(self.operand.type, c) for c in self.constants)})"


@dataclass(frozen=True)
class Contains:
    operand: Operand
    constant: Constant

    def __str__(self) -> str:
        return f"{self.operand} contains {constant_text('text' if isinstance(self.constant, str) else 'integer', self.constant)}"


@dataclass(frozen=True)
class IsNull:
    operand: Operand
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.operand} is {'not ' * self.negated}null"


@dataclass(frozen=True)
class IsEmpty:
    operand: Operand
    negated: bool = False

    def __str__(self) -> str:
        return f"{self.operand} is {'not ' * self.negated}empty"


@dataclass(frozen=True)
class Age:
    """``older``: at < t - width; else within: at >= t - width. A null instant is neither."""

    operand: Operand
    older: bool
    width_ms: int

    def __str__(self) -> str:
        return f"{self.operand} {'older than' if self.older else 'within'} {duration_text(self.width_ms)}"


Clause = Compare | OneOf | Contains | IsNull | IsEmpty | Age


@dataclass(frozen=True)
class Not:
    rule: Rule

    def __str__(self) -> str:
        return f"not ({self.rule})" if isinstance(self.rule, AllOf | AnyOf) else f"not {self.rule}"


@dataclass(frozen=True)
class AllOf:
    """and: of two or more, none of them an ``AllOf``."""

    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        return " and ".join(f"({rule})" if isinstance(rule, AnyOf) else str(rule) for rule in self.rules)


@dataclass(frozen=True)
class AnyOf:
    """or: of two or more, none of them an ``AnyOf``."""

    rules: tuple[Rule, ...]

    def __str__(self) -> str:
        return " or ".join(map(str, self.rules))


Rule = Clause | Not | AllOf | AnyOf


def joined(kind: type[AllOf] | type[AnyOf], rules: list[Rule]) -> Rule:
    """``rules`` joined; what is joined in the same way already becomes one with it, so that one meaning is written in one way."""
    flat: list[Rule] = []
    for rule in rules:
        flat.extend(rule.rules if isinstance(rule, kind) else (rule,))
    return flat[0] if len(flat) == 1 else kind(tuple(flat))


# --- as text ----------------------------------------------------------------------------------------------------------------------
def quoted(text: str) -> str:
    """A text as a rule writes it."""
    return "'" + text.replace("'", "''") + "'"


def constant_text(type_: OperandType, constant: Constant) -> str:
    """A constant as a rule writes it; instants in RFC 3339."""
    if isinstance(constant, str):
        return quoted(constant)
    if type_ == "time" and isinstance(constant, int):
        return quoted(show_time(constant))
    # Never with an exponent, which the grammar does not have.
    return format(Decimal(repr(constant)), "f")


def duration_text(width_ms: int) -> str:
    """A duration in its largest whole unit."""
    unit, ms = next((unit, ms) for unit, ms in UNITS_MS.items() if width_ms % ms == 0)
    # A week says nothing that seven days do not, and people write days.
    return f"{width_ms // DAY_MS} d" if unit == "w" else f"{width_ms // ms} {unit}"


# --- what a rule is made of -------------------------------------------------------------------------------------------------------
def clauses(rule: Rule) -> Iterator[Clause]:
    """The clauses of a rule, as they are written."""
    match rule:
        case Not(inner):
            yield from clauses(inner)
        case AllOf(rules) | AnyOf(rules):
            for part in rules:
                yield from clauses(part)
        case _:
            yield rule


def features_of(rule: Rule) -> tuple[str, ...]:
    """The features that a rule reads, once each, as they are written."""
    return tuple(dict.fromkeys(clause.operand.feature for clause in clauses(rule)))


# --- evaluated --------------------------------------------------------------------------------------------------------------------
def evaluator(rule: Rule) -> Evaluator:
    """The rule as one function; ``values`` must have every feature of the rule."""
    match rule:
        case Not(inner):
            denied = evaluator(inner)
            return lambda values, t: not denied(values, t)
        case AllOf(rules):
            every = [evaluator(part) for part in rules]
            return lambda values, t: all(part(values, t) for part in every)
        case AnyOf(rules):
            some = [evaluator(part) for part in rules]
            return lambda values, t: any(part(values, t) for part in some)
    holds, of = _clause(rule), rule.operand.of
    return lambda values, t: holds(of(values), t)


def _clause(clause: Clause) -> Callable[[Any, int], bool]:
    """A clause over the value of its operand."""
    match clause:
        case Compare(_, by, constant):
            compare = _COMPARE[by]
            return lambda value, _t: value is not None and compare(value, constant)
        case OneOf(_, constants):
            return lambda value, _t: value is not None and value in constants
        case Contains(_, constant):
            return lambda value, _t: value is not None and constant in value
        case IsNull(_, negated):
            return lambda value, _t: (value is None) != negated
        case IsEmpty(_, negated):
            return lambda value, _t: value is not None and (len(value) == 0) != negated
        case Age(_, True, width_ms):
            return lambda at, t: at is not None and at < t - width_ms
        case Age(_, _, width_ms):
            return lambda at, t: at is not None and at >= t - width_ms


#: Words of :class:`Told` that join lines: no feature is called so.
JOINS = ("all of", "any of", "not")


class Told(msgspec.Struct, frozen=True):
    """A line of why: a clause with the value of its operand, or the word that joins the lines below it (``depth`` deeper)."""

    depth: int
    rule: str
    value: Any
    holds: bool


def told(rule: Rule, values: Mapping[str, Any], t: int, depth: int = 0) -> list[Told]:
    """Why a rule holds of these values at t, or does not: a line a clause, in the order in which they are written."""
    holds = evaluator(rule)(values, t)
    match rule:
        case Not(inner):
            return [Told(depth, "not", None, holds), *told(inner, values, t, depth + 1)]
        case AllOf(rules) | AnyOf(rules):
            word = "all of" if isinstance(rule, AllOf) else "any of"
            below = [line for part in rules for line in told(part, values, t, depth + 1)]
            return [Told(depth, word, None, holds), *below]
    return [Told(depth, str(rule), rule.operand.of(values), holds)]

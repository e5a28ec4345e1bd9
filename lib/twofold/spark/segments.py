"""Segments as native columns, from the same trees that Python evaluates: rules over the columns of features.

Every clause is true or false, never null, as in :mod:`twofold.rules`; ``tests/spark/test_segments.py`` holds the two together.
"""

from __future__ import annotations

from functools import reduce
from typing import Any

from pyspark.sql import Column
from pyspark.sql import functions as F

from twofold.rules import Age, AllOf, AnyOf, Clause, Compare, Contains, IsEmpty, IsNull, Not, OneOf, Operand, Rule
from twofold.segments import Segments
from twofold.spark.lower import MONEY
from twofold.spark.present import instant

#: (name, Spark type, comment) of what a table holds of segments.
SEGMENT_COLUMNS = (
    ("segments", "array<string>", "names of the segments that the person is in at t, sorted"),
    ("segments_version", "string", "version of the rules that segments holds for; empty: no rules"),
)

_COMPARE = {
    "=": Column.__eq__,
    "!=": Column.__ne__,
    "<": Column.__lt__,
    "<=": Column.__le__,
    ">": Column.__gt__,
    ">=": Column.__ge__,
}


def holds(rule: Rule, t: Column | int) -> Column:
    """Whether a rule holds at ``t`` (epoch ms) of a row that has a column a feature (``present.value_columns``)."""
    match rule:
        case Not(inner):
            return ~holds(inner, t)
        case AllOf(rules):
            return reduce(Column.__and__, (holds(part, t) for part in rules))
        case AnyOf(rules):
            return reduce(Column.__or__, (holds(part, t) for part in rules))
    return F.coalesce(_clause(rule, _of(rule.operand), t), F.lit(False))


def _of(operand: Operand) -> Column:
    value = F.col(operand.feature)
    return value if operand.key is None else F.element_at(value, F.lit(operand.key))


def _constant(operand: Operand, constant: Any) -> Column:
    """A constant of exactly the operand's type: no cast of the value, which could lose digits, ever stands between them."""
    match operand.type:
        case "score" | "scores" | "number":
            return F.lit(float(constant))
        case "text" | "texts":
            return F.lit(constant)
        case "integer" if operand.key is not None:
            return F.lit(constant).cast(MONEY)
    return F.lit(constant).cast("bigint")


def _clause(clause: Clause, value: Column, t: Column | int) -> Column:
    match clause:
        case Compare(operand, by, constant):
            return _COMPARE[by](value, _constant(operand, constant))
        case OneOf(operand, constants):
            return value.isin(*(_constant(operand, constant) for constant in constants))
        case Contains(operand, constant):
            # Hours are kept as int, in which a larger constant would not fit.
            return F.exists(value, lambda item: item == _constant(operand, constant))
        case IsNull(_, negated):
            return value.isNotNull() if negated else value.isNull()
        case IsEmpty(_, negated):
            return F.size(value) > 0 if negated else F.size(value) == 0
        case Age(_, True, width_ms):
            return value < instant(t) - F.lit(width_ms)
        case Age(_, _, width_ms):
            return value >= instant(t) - F.lit(width_ms)


def segment_names(segments: Segments, t: Column | int) -> Column:
    """``Segments.names_at`` of a row that has a column a feature: array<string>."""
    names = [F.when(holds(segment.rule, t), F.lit(segment.name)) for segment in segments]
    return F.array_compact(F.array(*names)).cast("array<string>") if names else F.array().cast("array<string>")


def next_change_ms(segments: Segments, t: Column | int) -> Column:
    """``segments.next_change_ms`` of a row that has a column a feature: bigint, null where no age turns any more."""
    turns = [F.col(feature) + F.lit(width_ms + 1) for feature, width_ms in segments.ages]
    later = [F.when(turn > instant(t), turn) for turn in turns]
    return F.array_min(F.array(*later)).cast("bigint") if later else F.lit(None).cast("bigint")

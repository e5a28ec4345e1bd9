"""Random rules and random values of a record, drawn so that comparisons meet their edges: equal, one apart, null, absent."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from twofold.features import Catalogue
from twofold.rules import (
    Age,
    AllOf,
    AnyOf,
    Clause,
    Compare,
    Comparison,
    Constant,
    Contains,
    IsEmpty,
    IsNull,
    Not,
    OneOf,
    Operand,
    OperandType,
    Rule,
    joined,
)
from twofold.timeline import DAY_MS, HOUR_MS, SECOND_MS

WIDTHS_MS = (SECOND_MS, 90 * SECOND_MS, HOUR_MS, DAY_MS, 60 * DAY_MS)
#: The last but one lies above, the last below the surrogates: their order is another in UTF-16.
TEXTS = ("", "a", "A", "true", "it's", "\uffff", "\U00010437")
CURRENCIES = ("EUR", "USD", "JPY")
_INTEGERS = (-(2**63), -1, 0, 1, 2, 2**53, 2**53 + 1, 2**63 - 1)
_SCORES = (0.000001, 0.1, 0.3, 1.0, 123456.789012)
_HOURS = (0, 1, 33, 167)
_COMPARISONS: tuple[Comparison, ...] = ("=", "!=", "<", "<=", ">", ">=")
_LISTS = ("texts", "integers")
_MAPS = ("money", "scores")


def times(t: int) -> SearchStrategy[int]:
    """Instants before ``t`` (epoch ms), most of them at the edge of an age."""
    edges = [t - width_ms + off for width_ms in WIDTHS_MS for off in (-1, 0, 1)]
    return st.sampled_from([*edges, t - 1, t - 1_000 * DAY_MS])


def values(catalogue: Catalogue, t: int) -> SearchStrategy[dict[str, Any]]:
    """A value of every feature, as a record of ``t`` may hold it."""

    def of(feature: str) -> SearchStrategy[Any]:
        drawn = of_type(feature)
        return st.none() | drawn if catalogue.nullable(catalogue.features[feature]) else drawn

    def of_type(feature: str) -> SearchStrategy[Any]:
        texts = st.sampled_from(TEXTS)
        match catalogue.value_type(catalogue.features[feature]):
            case "integer":
                return st.sampled_from(_INTEGERS)
            case "number":
                return st.sampled_from(_SCORES)
            case "text":
                return texts
            case "time":
                return times(t)
            case "records":
                columns = {
                    "text": texts,
                    "integer": st.sampled_from(_INTEGERS),
                    "number": st.sampled_from(_SCORES),
                    "time": times(t),
                }
                show = catalogue.features[feature].show
                assert show is not None
                return st.lists(st.fixed_dictionaries({name: columns[type_] for name, type_ in show.columns}), max_size=2)
            case "texts":
                return st.lists(texts, max_size=3)
            case "integers":
                return st.lists(st.sampled_from(_HOURS), max_size=3)
            case "money":
                amounts = st.sampled_from((*_INTEGERS, 10**30, -(10**30)))
                return st.dictionaries(st.sampled_from(CURRENCIES), amounts, max_size=2)
        return st.dictionaries(texts, st.sampled_from(_SCORES), max_size=2)

    return st.fixed_dictionaries({feature: of(feature) for feature in catalogue.features})


def rules(catalogue: Catalogue, t: int) -> SearchStrategy[Rule]:
    """A rule over the features of a catalogue, as the grammar can write it."""
    return st.recursive(
        st.sampled_from(list(catalogue.features)).flatmap(lambda feature: _clauses(catalogue, feature, t)),
        lambda inner: st.one_of(
            inner.map(Not),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: joined(AllOf, parts)),
            st.lists(inner, min_size=2, max_size=3).map(lambda parts: joined(AnyOf, parts)),
        ),
        max_leaves=6,
    )


def _clauses(catalogue: Catalogue, feature: str, t: int) -> SearchStrategy[Clause]:
    whole = catalogue.value_type(catalogue.features[feature])
    if whole in _LISTS:
        operand = Operand(feature, whole)
        constants = _constants("text" if whole == "texts" else "integer", t)
        return st.builds(Contains, st.just(operand), constants) | st.builds(IsEmpty, st.just(operand), st.booleans())
    if whole == "records":
        return st.builds(IsEmpty, st.just(Operand(feature, whole)), st.booleans())
    if whole in _MAPS:
        keys = st.sampled_from(CURRENCIES if whole == "money" else TEXTS)
        part: OperandType = "integer" if whole == "money" else "score"
        below = keys.flatmap(lambda key: _comparisons(Operand(feature, part, key), True, t))
        return st.builds(IsEmpty, st.just(Operand(feature, whole)), st.booleans()) | below
    return _comparisons(Operand(feature, whole), catalogue.nullable(catalogue.features[feature]), t)


def _comparisons(operand: Operand, nullable: bool, t: int) -> SearchStrategy[Clause]:
    constants, this = _constants(operand.type, t), st.just(operand)
    drawn: list[SearchStrategy[Clause]] = [
        st.builds(Compare, this, st.sampled_from(_COMPARISONS), constants),
        st.builds(OneOf, this, st.lists(constants, min_size=1, max_size=3).map(tuple)),
    ]
    if nullable:
        drawn.append(st.builds(IsNull, this, st.booleans()))
    if operand.type == "time":
        drawn.append(st.builds(Age, this, st.booleans(), st.sampled_from(WIDTHS_MS)))
    return st.one_of(drawn)


def _constants(type_: OperandType, t: int) -> SearchStrategy[Constant]:
    match type_:
        case "text":
            return st.sampled_from(TEXTS)
        case "time":
            return times(t)
        case "score" | "number":
            return st.sampled_from(_SCORES)
    return st.sampled_from((*_INTEGERS, *_HOURS))

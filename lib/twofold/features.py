"""What a feature is: data, from which the Python merge, the native Spark fold, the JSON schema and the docs are all derived.

A *primary* is one mergeable state over one selection of facts in one window. A *feature* presents one or more primaries, as
their kind is presented or in its own way; ratios are computed in ``present`` and never merged.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from twofold.errors import DefinitionError
from twofold.events import ADMISSION_VERSION, FACT_KINDS
from twofold.rankings import Decayed, Distinct, Histogram, Recent, Top
from twofold.states import Extreme, Kind, Latest, MoneySum
from twofold.timeline import DAY_MS, LIFETIME, Window

if TYPE_CHECKING:
    from pyspark.sql import Column

#: What a feature's value is: a whole number, a number, text, an instant in epoch ms, a list, a map of amounts or of decayed scores,
#: or a list of records whose columns the feature's presentation names.
ValueType = Literal["integer", "number", "text", "time", "texts", "integers", "money", "scores", "records"]
#: What a column of a record is.
ColumnType = Literal["integer", "number", "text", "time"]


@dataclass(frozen=True)
class Select:
    """Facts of some kinds whose text columns equal the given texts: ``equals=(("key", "marketing"),)``."""

    kinds: tuple[str, ...]
    equals: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in FACT_KINDS]
        if unknown:
            raise DefinitionError(f"a selection names no such kind of fact: {unknown[0]!r}")

    def holds(self, fact: Any) -> bool:
        return fact.kind in self.kinds and all(getattr(fact, column) == text for column, text in self.equals)


@dataclass(frozen=True)
class Primary:
    """One mergeable state: its kind, which facts it folds, over which window."""

    name: str
    state: Kind
    select: Select
    window: Window = LIFETIME

    @property
    def lifetime(self) -> bool:
        return self.window.width_ms is None

    def definition(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "state": self.state.id,
            "parameters": asdict(self.state),
            "kinds": list(self.select.kinds),
            "equals": [list(pair) for pair in self.select.equals],
            "window_ms": self.window.width_ms,
        }


@dataclass(frozen=True)
class Presentation(ABC):
    """How states of primaries become a value, where it is not as their kind is presented. Its fields are part of the definition.

    ``states`` are those of the feature's primaries, in the order of ``Feature.reads``; natively a null state is zero. Both sides
    give the same value, and both say when it moves though no fact comes into a window or leaves it.
    """

    id: ClassVar[str]
    type: ClassVar[ValueType]
    nullable: ClassVar[bool] = False
    #: Name and type of each column, where the value is a list of records.
    columns: ClassVar[tuple[tuple[str, ColumnType], ...]] = ()
    #: Whether the value ever moves while the states stay.
    moves: ClassVar[bool] = False

    @abstractmethod
    def value(self, t: int, *states: Any) -> Any: ...

    @abstractmethod
    def native_value(self, t: Column, *states: Column) -> Column: ...

    def next_move(self, t: int, *states: Any) -> int | None:  # noqa: ARG002
        """The smallest instant after ``t`` at which these very states have another value, or ``None``."""
        return None

    def native_next_move(self, t: Column, *states: Column) -> Column:  # noqa: ARG002
        """:meth:`next_move` as a bigint column, null where there is none; asked for only where ``moves``."""
        raise DefinitionError(f"presentation {self.id!r} moves and does not say natively when: write its native_next_move")

    def definition(self) -> dict[str, Any]:
        return {"id": self.id, "parameters": asdict(self)}


@dataclass(frozen=True)
class Feature:
    """A named value of the record. ``of`` names its primary, ``per`` a second one that divides it; ``k`` cuts a ranking.

    ``show``: its own way of being presented, from the state of ``of`` and those of ``beside``.
    """

    name: str
    doc: str
    of: str
    per: str | None = None
    k: int | None = None
    show: Presentation | None = None
    beside: tuple[str, ...] = ()

    @cached_property
    def reads(self) -> tuple[str, ...]:
        """Names of its primaries."""
        return (self.of, *(() if self.per is None else (self.per,)), *self.beside)

    def definition(self) -> dict[str, Any]:
        show = None if self.show is None else self.show.definition()
        return {"name": self.name, "of": self.of, "per": self.per, "k": self.k, "beside": list(self.beside), "show": show}


def _ranked(weights: Mapping[Any, tuple[int, int]], k: int | None) -> list[Any]:
    """Names by weight desc, last time desc, name asc; weights <= 0 are not ranked."""
    positive = [(-weight, -last, name) for name, (weight, last) in weights.items() if weight > 0]
    return [name for _w, _l, name in sorted(positive)[:k]]


def divide_half_away(amount: int, count: int) -> int:
    """Integer quotient rounded half away from zero; ``count`` > 0."""
    quotient = (2 * abs(amount) + count) // (2 * count)
    return quotient if amount >= 0 else -quotient


def _presenter(kind: Kind, k: int | None) -> Callable[[Any, int], Any]:
    """How a state of this kind becomes a value at ``t``. Chosen once a feature, not once a read."""
    match kind:
        case MoneySum():
            return lambda state, _t: {currency: state[currency] for currency in sorted(state)}
        case Latest():
            return lambda state, _t: None if state is None else state[3]
        case Recent():
            return lambda state, _t: [mark[3] for mark in state]
        case Distinct():
            return lambda state, _t: len(state)
        case Top() | Histogram():
            return lambda state, _t: _ranked(state, k)
        case Decayed():

            def scores(state: Mapping[str, dict[int, int]], t: int) -> dict[str, float]:
                ordered = sorted((-score, name) for name, score in kind.scores(state, t).items())
                return {name: -negative for negative, name in ordered[:k] if negative != 0}

            return scores
    return lambda state, _t: state


#: Columns of a fact that are numbers, but for its instant.
_NUMBERS = ("amount_minor", "quantity", "ordinal")
_SHAPES: dict[ValueType, dict[str, Any]] = {
    "integer": {"type": "integer"},
    "number": {"type": "number"},
    "text": {"type": "string"},
    "time": {"type": "integer"},
    "texts": {"type": "array", "items": {"type": "string"}},
    "integers": {"type": "array", "items": {"type": "integer"}},
    "money": {"type": "object", "additionalProperties": {"type": "integer"}},
    "scores": {"type": "object", "additionalProperties": {"type": "number"}},
    "records": {"type": "array"},
}


class Catalogue:
    """The features and their primaries. Raises :class:`DefinitionError` when they do not fit together."""

    def __init__(self, primaries: Sequence[Primary], features: Sequence[Feature]) -> None:
        self.primaries: dict[str, Primary] = {p.name: p for p in primaries}
        self.features: dict[str, Feature] = {f.name: f for f in features}
        if len(self.primaries) != len(primaries) or len(self.features) != len(features):
            raise DefinitionError("two features or two primaries of the catalogue have one name")
        for feature in features:
            for name in feature.reads:
                if name not in self.primaries:
                    raise DefinitionError(f"feature {feature.name!r} names no such primary: {name!r}")
            if not feature.doc:
                raise DefinitionError(f"feature {feature.name!r} has no description")

    @cached_property
    def lifetime(self) -> tuple[Primary, ...]:
        """Primaries whose state reaches below the horizon: what a snapshot's ``older`` holds."""
        return tuple(p for p in self.primaries.values() if p.lifetime)

    @cached_property
    def moving(self) -> tuple[Feature, ...]:
        """Features whose value moves while their states stay; all others stay until a fact comes into a window or leaves it."""
        scored = (f for f in self.features.values() if isinstance(self.primaries[f.of].state, Decayed))
        shown = (f for f in self.features.values() if f.show is not None and f.show.moves)
        return tuple(dict.fromkeys((*scored, *shown)))

    @cached_property
    def longest_window_ms(self) -> int:
        return max((p.window.width_ms or 0 for p in self.primaries.values()), default=0)

    def horizon(self, as_of: int, late_grace_days: int) -> int:
        """Facts before it are folded into ``older``: ``as_of - (longest window + late grace)``, epoch ms."""
        return as_of - self.longest_window_ms - late_grace_days * DAY_MS

    @cached_property
    def fingerprint(self) -> str:
        """Sixteen hex digits that change with any definition."""
        data = {
            "primaries": [p.definition() for p in self.primaries.values()],
            "features": [f.definition() for f in self.features.values()],
        }
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]

    @cached_property
    def version(self) -> str:
        """``<admission version>/<definition fingerprint>``: what snapshots and hot facts are stamped with."""
        return f"{ADMISSION_VERSION}/{self.fingerprint}"

    def primaries_of(self, feature: str) -> tuple[Primary, ...]:
        return tuple(self.primaries[name] for name in self.features[feature].reads)

    def value_type(self, feature: Feature) -> ValueType:
        """What the values of a feature are; schemas, column types and the grammar of rules follow from it."""
        if feature.show is not None:
            return feature.show.type
        if feature.per is not None:
            return "money"
        match self.primaries[feature.of].state:
            case MoneySum():
                return "money"
            case Latest(column) | Extreme(column):
                return "time" if column == "at_ms" else "integer" if column in _NUMBERS else "text"
            case Recent() | Top():
                return "texts"
            case Histogram():
                return "integers"
            case Decayed():
                return "scores"
        return "integer"

    def nullable(self, feature: Feature) -> bool:
        """Whether a value may be null: of no fact there is no latest one. Counts, lists and maps are then empty."""
        if feature.show is not None:
            return feature.show.nullable
        return feature.per is None and isinstance(self.primaries[feature.of].state, Latest | Extreme)

    def zero(self) -> dict[str, Any]:
        return {name: p.state.zero() for name, p in self.primaries.items()}

    def present(self, feature: Feature, states: Mapping[str, Any], t: int) -> Any:
        """The value of one feature at ``t`` from the states of the primaries."""
        if feature.show is not None:
            return feature.show.value(t, *[states[name] for name in feature.reads])
        if feature.per is not None:
            state, counts = states[feature.of], states[feature.per]
            return {currency: divide_half_away(state[currency], counts[currency]) for currency in sorted(state)}
        return self._presenters[feature.name](states[feature.of], t)

    @cached_property
    def _presenters(self) -> dict[str, Callable[[Any, int], Any]]:
        return {f.name: _presenter(self.primaries[f.of].state, f.k) for f in self.features.values()}

    def schema(self) -> dict[str, Any]:
        """JSON schema of ``values``."""
        properties = {}
        for f in self.features.values():
            shape = dict(_SHAPES[self.value_type(f)])
            if f.show is not None and f.show.columns:
                columns = {name: _SHAPES[type_] for name, type_ in f.show.columns}
                shape["items"] = {"type": "object", "properties": columns, "required": list(columns), "additionalProperties": False}
            if self.nullable(f):
                shape["type"] = [shape["type"], "null"]
            properties[f.name] = {**shape, "description": f.doc}
        return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}

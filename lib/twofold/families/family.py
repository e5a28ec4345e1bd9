"""What a feature family is: a few features that rest on the same facts, and everything that is theirs, in one module.

A family brings its primaries, its kinds of state where those of ``states`` and ``rankings`` do not do, its ways of presenting, all
of it in Python and natively, a recomputation of its values that shares no code with them, and what the docs say. Functions that
need Spark are called ``native_…`` and import it inside, so that whoever only reads records never loads it.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from twofold.columns import Fact
from twofold.events import FactBody
from twofold.features import Feature, Primary
from twofold.states import Kind

if TYPE_CHECKING:
    from pyspark.sql import Column


class PastFact(Protocol):
    """A fact as the recomputation sees it; facts of a person are ordered by (event time, event id, ordinal)."""

    @property
    def at_ms(self) -> int: ...
    @property
    def event_id(self) -> str: ...
    @property
    def ordinal(self) -> int: ...
    @property
    def body(self) -> FactBody: ...


class OwnKind(Kind):
    """A kind of state that a family brings. The laws of :mod:`twofold.states` hold for it; ``fold_rows`` meets rows of any kinds of
    facts in time order, of which it reads those that its primaries select."""

    @abstractmethod
    def contributing(self, facts: Sequence[Fact], older: Any) -> list[int]:
        """As :func:`twofold.contributing.contributing`: places of the facts on which the state rests, ascending."""

    @abstractmethod
    def native_fold(self, facts: Column) -> Column:
        """The state of an array of facts (``spark.lower.facts_of``), all of which count; null: zero. ``to_json`` of it decodes."""

    @abstractmethod
    def native_plus(self, a: Column, b: Column) -> Column:
        """The sum of two states that are not null, just as :meth:`native_fold` would write it."""


class Integers(OwnKind):
    """A kind whose state is some integers, ascending."""

    def zero(self) -> tuple[int, ...]:
        return ()

    def encode(self, state: tuple[int, ...]) -> Any:
        return list(state)

    def decode(self, data: Any) -> tuple[int, ...]:
        if not isinstance(data, list):
            raise self.refuse(data)
        return tuple(data)


@dataclass(frozen=True)
class Example:
    """A worked example: facts with their RFC 3339 times, in arrival order, and the value at ``at``; ``why``, in words."""

    facts: tuple[tuple[str, FactBody], ...]
    at: str
    value: Any
    why: str


@dataclass(frozen=True)
class Told:
    """What the docs say of a feature: its rule, its value of a person of whom nothing is known, a worked example."""

    rule: str
    nothing: Any
    example: Example


@dataclass(frozen=True)
class Family:
    """One family. ``told`` has each of its features by name.

    ``naive(past, t)``: each feature's value from all of a person's facts before ``t``, in no order, by another way than the states.
    ``naive_moves(times, t)``, of the instants of all their facts by kind of fact, before ``t`` or not: instants after ``t``, among
    them the first at which a value moves though no fact comes into a window or leaves it; more than that does no harm.
    """

    features: tuple[Feature, ...]
    told: Mapping[str, Told]
    naive: Callable[[Sequence[PastFact], int], dict[str, Any]]
    primaries: tuple[Primary, ...] = ()
    naive_moves: Callable[[Mapping[str, Sequence[int]], int], Iterable[int]] = lambda _times, _t: ()
    #: Distances in ms at which its rules turn, beside its windows: tests draw facts and reads there.
    edges_ms: tuple[int, ...] = ()
    #: Values worth drawing of each trait that it reads.
    traits: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

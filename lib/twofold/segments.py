"""Segments: rules with a name. Who is in one is a pure function of (values of the record, t); a record lists the names.

A version is a fingerprint of what the rules say, not of how they are spaced or described: the same version has the same members.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from twofold.rules import Age, Evaluator, Rule, clauses, evaluator, features_of


def _fingerprint(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Segment:
    """One named rule. ``version``: twelve hex digits of the rule as :mod:`twofold.rules` writes it back."""

    name: str
    rule: Rule
    description: str = ""
    version: str = field(init=False)
    #: Whether a person of these values is in it at t.
    holds: Evaluator = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "version", _fingerprint(str(self.rule)))
        object.__setattr__(self, "holds", evaluator(self.rule))


class Segments:
    """A rule set: segments in the order of their names. ``version`` is its fingerprint, empty where there are none."""

    def __init__(self, segments: Iterable[Segment] = ()) -> None:
        self._by_name = {segment.name: segment for segment in sorted(segments, key=lambda segment: segment.name)}
        parts = [f"{segment.name} {segment.version}" for segment in self]
        self.version = _fingerprint("\n".join(parts)) if parts else ""
        #: The features that any of the rules reads.
        self.features = tuple(sorted({name for segment in self for name in features_of(segment.rule)}))
        ages = [clause for segment in self for clause in clauses(segment.rule) if isinstance(clause, Age)]
        #: (feature, width in ms) of every age that any of the rules asks for.
        self.ages = tuple(sorted({(age.operand.feature, age.width_ms) for age in ages}))

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._by_name.values())

    def __len__(self) -> int:
        return len(self._by_name)

    def get(self, name: str) -> Segment | None:
        return self._by_name.get(name)

    def names_at(self, values: Mapping[str, Any], t: int) -> tuple[str, ...]:
        """Names of the segments that a person of these values is in at ``t`` (epoch ms), sorted."""
        return tuple(name for name, segment in self._by_name.items() if segment.holds(values, t))


NO_SEGMENTS = Segments()


def _turns(segments: Segments, values: Mapping[str, Any], t: int) -> list[int]:
    """Instants after ``t`` at which an age in a rule over these values turns: ``at`` grows older than w at ``at + w + 1``."""
    turns = (at + width_ms + 1 for feature, width_ms in segments.ages if (at := values[feature]) is not None)
    return [turn for turn in turns if turn > t]


def next_change_ms(segments: Segments, values: Mapping[str, Any], t: int) -> int | None:
    """The smallest t' > ``t`` (epoch ms) at which an age in a rule over these values turns, or ``None``.

    Until then nobody of these values enters or leaves a segment; the values' own next change, and decayed scores, which move all
    the time, are not looked at. Natively ``spark.segments.next_change_ms``.
    """
    return min(_turns(segments, values, t), default=None)


def next_entry_or_exit_ms(segments: Segments, values: Mapping[str, Any], t: int) -> int | None:
    """The smallest t' > ``t`` at which a person of these very values enters or leaves a segment, or ``None``.

    Not before :func:`next_change_ms`: an age may turn and change nothing.
    """
    now = segments.names_at(values, t)
    return next((turn for turn in sorted(_turns(segments, values, t)) if segments.names_at(values, turn) != now), None)

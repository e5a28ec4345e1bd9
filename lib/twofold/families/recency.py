"""How long ago the last order is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from twofold.events import FactBody
from twofold.families.family import Example, Family, PastFact, Told
from twofold.features import Feature, Presentation
from twofold.timeline import DAY_MS

if TYPE_CHECKING:
    from pyspark.sql import Column


@dataclass(frozen=True)
class WholeDaysSince(Presentation):
    """Whole days of 24 hours from a latest fact to t; null where there is none."""

    id: ClassVar[str] = "whole_days_since"
    type: ClassVar = "integer"
    nullable: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    def value(self, t: int, *states: Any) -> int | None:
        return None if states[0] is None else (t - states[0][0]) // DAY_MS

    def next_move(self, t: int, *states: Any) -> int | None:
        return None if states[0] is None else t + DAY_MS - (t - states[0][0]) % DAY_MS

    def native_value(self, t: Column, *states: Column) -> Column:
        from twofold.spark.lower import floor_div

        return floor_div(t - states[0]["at_ms"], DAY_MS)

    def native_next_move(self, t: Column, *states: Column) -> Column:
        return t + DAY_MS - (t - states[0]["at_ms"]) % DAY_MS


def naive(past: Sequence[PastFact], t: int) -> dict[str, Any]:
    ages = [t - fact.at_ms for fact in past if fact.body.kind == "order"]
    return {"days_since_last_order": int(min(ages) / DAY_MS) if ages else None}


def naive_moves(times: Mapping[str, Sequence[int]], t: int) -> Iterator[int]:
    """The next full day of each order."""
    for at in times.get("order", ()):
        day = at + DAY_MS
        while day <= t:
            day += DAY_MS
        yield day


FAMILY = Family(
    features=(
        Feature("days_since_last_order", "Whole days of 24 hours since the last order", "last_order", show=WholeDaysSince()),
    ),
    told={
        "days_since_last_order": Told(
            rule="Whole days of 24 hours from the last order to t",
            nothing=None,
            example=Example(
                facts=(
                    ("2024-12-25T09:00:00Z", FactBody("order", key="o1")),
                    ("2025-01-01T12:00:00Z", FactBody("order", key="o2")),
                ),
                at="2025-01-03T11:59:59.999Z",
                value=1,
                why="the second day is full a millisecond later",
            ),
        )
    },
    naive=naive,
    naive_moves=naive_moves,
    edges_ms=(DAY_MS, 2 * DAY_MS),
)

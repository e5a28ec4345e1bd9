"""Days in a row with an activity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from twofold.events import FactBody
from twofold.families._days import Days
from twofold.families.family import Example, Family, PastFact, Told
from twofold.features import Feature, Presentation, Primary, Select
from twofold.timeline import DAY_MS, Window

if TYPE_CHECKING:
    from pyspark.sql import Column

_ACTIVITY = Select(("page", "view", "cart_add", "cart_remove", "order"))


@dataclass(frozen=True)
class Streak(Presentation):
    """The length of the last run of days, unless it ended before yesterday; at most ``most``.

    ``most`` days that end yesterday reach into the part of a day at which the window begins, so a longer run could not be told.
    """

    most: int
    id: ClassVar[str] = "streak"
    type: ClassVar = "integer"
    moves: ClassVar[bool] = True

    def value(self, t: int, *states: Any) -> int:
        days = states[0]
        if not days or days[-1] < t // DAY_MS - 1:
            return 0
        length = 1
        while length < min(len(days), self.most) and days[-1 - length] == days[-1] - length:
            length += 1
        return length

    def next_move(self, t: int, *states: Any) -> int | None:
        broken = (states[0][-1] + 2) * DAY_MS if states[0] else t
        return broken if broken > t else None

    def native_value(self, t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import floor_div, let

        def length(reversed_days: Column) -> Column:
            last = F.get(reversed_days, F.lit(0))
            # Days are distinct: one that lies as far back as its place is one of the run.
            run = F.size(F.filter(reversed_days, lambda day, place: last - day == place))
            return F.when(last >= floor_div(t, DAY_MS) - 1, F.least(run, F.lit(self.most))).otherwise(0)

        return F.coalesce(F.when(states[0].isNotNull(), let(F.reverse(states[0]), length)), F.lit(0))

    def native_next_move(self, t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        broken = (F.get(states[0], F.size(states[0]) - 1) + 2) * DAY_MS
        return F.when(broken > t, broken)


def naive(past: Sequence[PastFact], t: int) -> dict[str, Any]:
    active = ("page", "view", "cart_add", "cart_remove", "order")
    days = {fact.at_ms // DAY_MS for fact in past if fact.body.kind in active and fact.at_ms >= t - 30 * DAY_MS}
    today = t // DAY_MS
    longest = 0
    for last in (today, today - 1):
        length = 0
        while last - length in days:
            length += 1
        longest = max(longest, length)
    return {"streak_days": min(longest, 30)}


def naive_moves(times: Mapping[str, Sequence[int]], t: int) -> Iterator[int]:
    """The midnights up to two days after the fact, and after t."""
    for of_kind in times.values():
        for at in of_kind:
            yield from (midnight for day in range(4) if (midnight := (at // DAY_MS + day) * DAY_MS) > t)


FAMILY = Family(
    primaries=(Primary("active_days_30d", Days(), _ACTIVITY, Window(30 * DAY_MS)),),
    features=(
        Feature(
            "streak_days",
            "UTC days in a row with an activity, up to today or yesterday, at most 30",
            "active_days_30d",
            show=Streak(30),
        ),
    ),
    told={
        "streak_days": Told(
            rule="Days in a row with an activity (page, view, cart_add, cart_remove, order), up to today or, while today has none, "
            "up to yesterday; today is the day of t. At most 30",
            nothing=0,
            example=Example(
                facts=(
                    ("2024-12-29T08:00:00Z", FactBody("page", key="/")),
                    ("2024-12-30T23:59:59.999Z", FactBody("page", key="/")),
                    ("2024-12-31T00:00:00Z", FactBody("page", key="/")),
                    ("2024-12-31T09:00:00Z", FactBody("view", product="lamp")),
                ),
                at="2025-01-01T12:00:00Z",
                value=3,
                why="today, the first of January, has no activity yet; at midnight, when it ends without one, the streak is 0",
            ),
        )
    },
    naive=naive,
    naive_moves=naive_moves,
    edges_ms=(DAY_MS, 2 * DAY_MS),
)

"""When the next order is due, by the person's own intervals."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar

from twofold.events import FactBody
from twofold.families._days import Days
from twofold.families.family import Example, Family, PastFact, Told
from twofold.features import Feature, Presentation, Primary, Select
from twofold.timeline import DAY_MS

if TYPE_CHECKING:
    from pyspark.sql import Column

#: Fewer order days than these have no interval to speak of.
FEWEST_DAYS = 3


def _median(days: Sequence[int]) -> int:
    """The lower median of what lies between neighbours."""
    intervals = sorted(later - day for day, later in pairwise(days))
    return intervals[(len(intervals) - 1) // 2]


def _native_of_median(days: Column, fewest: int, of: Callable[[Column], Column]) -> Column:
    """``of`` the lower median, null where there are too few days."""
    from pyspark.sql import functions as F

    from twofold.spark.lower import let

    places = F.sequence(F.lit(1), F.size(days) - 1)
    intervals = F.sort_array(F.transform(places, lambda n: F.get(days, n) - F.get(days, n - 1)))
    median = let(intervals, lambda found: F.get(found, F.call_function("div", F.size(found) - 1, F.lit(2)).cast("int")))
    return F.when(F.size(days) >= fewest, of(median))


@dataclass(frozen=True)
class MedianInterval(Presentation):
    """The lower median of the days between neighbouring days; null of fewer than ``fewest`` days."""

    fewest: int
    id: ClassVar[str] = "median_interval"
    type: ClassVar = "integer"
    nullable: ClassVar[bool] = True

    def value(self, _t: int, *states: Any) -> int | None:
        return _median(states[0]) if len(states[0]) >= self.fewest else None

    def native_value(self, _t: Column, *states: Column) -> Column:
        return _native_of_median(states[0], self.fewest, lambda median: median)


@dataclass(frozen=True)
class NextDue(Presentation):
    """The start of the day that lies the median interval after the last day; null of fewer than ``fewest`` days."""

    fewest: int
    id: ClassVar[str] = "next_due"
    type: ClassVar = "time"
    nullable: ClassVar[bool] = True

    def value(self, _t: int, *states: Any) -> int | None:
        days = states[0]
        return (days[-1] + _median(days)) * DAY_MS if len(days) >= self.fewest else None

    def native_value(self, _t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        days = states[0]
        last = F.get(days, F.size(days) - 1)
        return _native_of_median(days, self.fewest, lambda median: (last + median) * DAY_MS)


def naive(past: Sequence[PastFact], _t: int) -> dict[str, Any]:
    days = sorted({fact.at_ms - fact.at_ms % DAY_MS for fact in past if fact.body.kind == "order"})
    if len(days) < 3:
        return {"reorder_interval_days": None, "reorder_due": None}
    gaps = [days[n + 1] - days[n] for n in range(len(days) - 1)]
    # The smallest one such that at least half of them are not above it.
    median = min(gap for gap in gaps if 2 * sum(other <= gap for other in gaps) >= len(gaps))
    return {"reorder_interval_days": median // DAY_MS, "reorder_due": days[-1] + median}


_ORDERS = tuple(
    (f"2025-01-{day:02}T{hour:02}:00:00Z", FactBody("order", key=f"o{day}")) for day, hour in ((1, 9), (8, 23), (17, 1), (24, 12))
)
FAMILY = Family(
    primaries=(Primary("order_days", Days(), Select(("order",))),),
    features=(
        Feature(
            "reorder_interval_days",
            "Median of the days between one order day and the next",
            "order_days",
            show=MedianInterval(FEWEST_DAYS),
        ),
        Feature(
            "reorder_due", "When the next order is due by the median interval, epoch ms", "order_days", show=NextDue(FEWEST_DAYS)
        ),
    ),
    told={
        "reorder_interval_days": Told(
            rule="Median of the days between an order day and the next, the lower one of two; orders of one day are one. "
            "Null below three order days. Lifetime, because most people order at intervals longer than any window",
            nothing=None,
            example=Example(
                facts=_ORDERS,
                at="2025-01-25T00:00:00Z",
                value=7,
                why="7, 9 and 7 days lie between the four order days",
            ),
        ),
        "reorder_due": Told(
            rule="The start of the day on which the next order is due: the last order day plus `reorder_interval_days`. It may "
            "lie in the past: then the order is overdue",
            nothing=None,
            example=Example(
                facts=_ORDERS,
                at="2025-02-10T00:00:00Z",
                value=1_738_281_600_000,
                why="2025-01-31T00:00:00Z, seven days after the 24th, whatever t is",
            ),
        ),
    },
    naive=naive,
    edges_ms=(DAY_MS, 7 * DAY_MS),
)

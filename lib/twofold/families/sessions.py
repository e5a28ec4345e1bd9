"""Visits: runs of activity with no gap of 30 minutes in them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from twofold.columns import Fact, FactColumns
from twofold.events import FactBody
from twofold.families.family import Example, Family, OwnKind, PastFact, Told
from twofold.features import Feature, Presentation, Primary, Select
from twofold.states import FEW_ROWS, Rows
from twofold.timeline import DAY_MS, MINUTE_MS, Window

if TYPE_CHECKING:
    from pyspark.sql import Column

GAP_MS = 30 * MINUTE_MS
#: What a person does on the site or in the app.
ACTIVITY = Select(("page", "view", "cart_add", "cart_remove", "order"))
#: First and last instant of a run.
Span = tuple[int, int]


@dataclass(frozen=True)
class Runs(OwnKind):
    """The runs of instants with less than ``gap_ms`` between one and the next, ascending: ``((first, last), …)``.

    Runs of a part become wider or one with others as facts are added, in whatever order, and end as the runs of all instants.
    """

    gap_ms: int
    id: ClassVar[str] = "runs"

    def zero(self) -> tuple[Span, ...]:
        return ()

    def lift(self, fact: Fact) -> tuple[Span, ...]:
        return ((fact.at_ms, fact.at_ms),)

    def plus(self, a: tuple[Span, ...], b: tuple[Span, ...]) -> tuple[Span, ...]:
        if not a or not b:
            return a or b
        out: list[Span] = []
        for first, last in sorted(a + b):
            if out and first - out[-1][1] < self.gap_ms:
                if last > out[-1][1]:
                    out[-1] = (out[-1][0], last)
            else:
                out.append((first, last))
        return tuple(out)

    def fold(self, facts: Iterable[Fact]) -> tuple[Span, ...]:
        return self._of(sorted([fact[0] for fact in facts]))

    def fold_rows(self, columns: FactColumns, rows: Rows) -> tuple[Span, ...]:
        at = columns.at_ms[rows]
        if len(at) <= FEW_ROWS:
            return self._of(at.tolist())
        return self._of_many(at)

    def fold_parts(self, columns: FactColumns, parts: Sequence[Rows]) -> tuple[Span, ...]:
        chosen = [columns.at_ms[rows] for rows in parts]
        if sum(map(len, chosen)) > FEW_ROWS:
            # Each part ascends, and a merging sort sees that.
            return self._of_many(np.sort(np.concatenate(chosen), kind="stable"))
        times: list[int] = []
        for at in chosen:
            times += at.tolist()
        times.sort()
        return self._of(times)

    def _of_many(self, at: Any) -> tuple[Span, ...]:
        ends = np.flatnonzero(np.diff(at) >= self.gap_ms)
        firsts = at[np.concatenate(([0], ends + 1))].tolist()
        return tuple(zip(firsts, at[np.append(ends, len(at) - 1)].tolist(), strict=True))

    def _of(self, times: list[int]) -> tuple[Span, ...]:
        """Of ascending instants."""
        if not times:
            return ()
        out: list[Span] = []
        first = last = times[0]
        for at in times:
            if at - last >= self.gap_ms:
                out.append((first, last))
                first = at
            last = at
        out.append((first, last))
        return tuple(out)

    def encode(self, state: tuple[Span, ...]) -> Any:
        return [{"first": first, "last": last} for first, last in state]

    def decode(self, data: Any) -> tuple[Span, ...]:
        if not isinstance(data, list):
            raise self.refuse(data)
        return tuple((span["first"], span["last"]) for span in data)

    def contributing(self, facts: Sequence[Fact], older: Any) -> list[int]:
        """Both ends of each run, and between them so many that the run holds together."""
        place_of = {fact.at_ms: place for place, fact in enumerate(facts)}
        times = sorted(place_of)
        starts = [first for first, _last in older]
        kept: list[int] = []
        #: Where what is kept so far, older runs among it, ends.
        before: int | None = None
        for number, at in enumerate(times):
            run = bisect_right(starts, at)
            if run:
                last = older[run - 1][1]
                if at <= last:
                    continue
                before = last if before is None else max(before, last)
            following = [starts[run]] if run < len(starts) else []
            if number + 1 < len(times):
                following.append(times[number + 1])
            after = min(following, default=None)
            # Without it the run neither ends elsewhere nor falls in two.
            if before is not None and after is not None and after - before < self.gap_ms:
                continue
            kept.append(at)
            before = at
        return sorted(place_of[at] for at in kept)

    def native_fold(self, facts: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import field, let

        def of(times: Column) -> Column:
            places = F.sequence(F.lit(0), F.size(times) - 1)
            starts = F.filter(places, lambda n: (n == 0) | (F.get(times, n) - F.get(times, n - 1) >= self.gap_ms))

            def run(firsts: Column) -> Column:
                return F.transform(
                    firsts,
                    lambda start, number: F.struct(
                        F.get(times, start).alias("first"),
                        F.get(times, F.coalesce(F.get(firsts, number + 1), F.size(times)) - 1).alias("last"),
                    ),
                )

            return let(starts, run)

        times = F.transform(facts, lambda fact: field(fact, "at_ms"))
        return F.when(F.size(facts) > 0, let(F.sort_array(times), of))

    def native_plus(self, a: Column, b: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        def grown(runs: Column, span: Column) -> Column:
            def onto(last: Column) -> Column:
                wider = F.struct(last["first"].alias("first"), F.greatest(last["last"], span["last"]).alias("last"))
                joined = F.concat(F.slice(runs, 1, F.size(runs) - 1), F.array(wider))
                apart = last.isNull() | (span["first"] - last["last"] >= self.gap_ms)
                return F.when(apart, F.concat(runs, F.array(span))).otherwise(joined)

            return let(F.get(runs, F.size(runs) - 1), onto)

        spans = F.sort_array(F.concat(a, b))
        return F.aggregate(spans, F.slice(spans, 1, 0), grown)


@dataclass(frozen=True)
class NumberOfRuns(Presentation):
    """How many runs there are."""

    id: ClassVar[str] = "number_of_runs"
    type: ClassVar = "integer"

    def value(self, _t: int, *states: Any) -> int:
        return len(states[0])

    def native_value(self, _t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        return F.when(states[0].isNull(), 0).otherwise(F.size(states[0]))


def naive(past: Sequence[PastFact], t: int) -> dict[str, Any]:
    active = ("page", "view", "cart_add", "cart_remove", "order")
    times = sorted(fact.at_ms for fact in past if fact.body.kind in active and fact.at_ms >= t - 7 * DAY_MS)
    # A run begins where nothing happened in the half hour before.
    begun = [at for n, at in enumerate(times) if n == 0 or times[n - 1] <= at - 30 * MINUTE_MS]
    return {"sessions_7d": len(begun)}


FAMILY = Family(
    primaries=(Primary("sessions_7d", Runs(GAP_MS), ACTIVITY, Window(7 * DAY_MS)),),
    features=(
        Feature(
            "sessions_7d", "Visits in the last 7 days: activity without a gap of 30 minutes", "sessions_7d", show=NumberOfRuns()
        ),
    ),
    told={
        "sessions_7d": Told(
            rule="Visits: runs of activity (page, view, cart_add, cart_remove, order). A fact 30 minutes or more after the one "
            "before it begins another run",
            nothing=0,
            example=Example(
                facts=(
                    ("2025-01-01T10:00:00Z", FactBody("page", key="/")),
                    ("2025-01-01T10:29:59.999Z", FactBody("view", product="lamp")),
                    ("2025-01-01T10:59:59.999Z", FactBody("page", key="/desk")),
                ),
                at="2025-01-01T12:00:00Z",
                value=2,
                why="between the first two lies a millisecond less than 30 minutes, between the last two 30 minutes",
            ),
        )
    },
    naive=naive,
    edges_ms=(GAP_MS,),
)

"""The kind that two families share: which UTC days have a fact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from twofold.columns import Fact, FactColumns
from twofold.families.family import Integers
from twofold.states import FEW_ROWS, Rows
from twofold.timeline import DAY_MS

if TYPE_CHECKING:
    from pyspark.sql import Column


@dataclass(frozen=True)
class Days(Integers):
    """The UTC days, counted from 1970-01-01, on which there is a fact, ascending."""

    id: ClassVar[str] = "days"

    def lift(self, fact: Fact) -> tuple[int, ...]:
        return (fact.at_ms // DAY_MS,)

    def plus(self, a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted({*a, *b})) if a and b else a or b

    def fold(self, facts: Iterable[Fact]) -> tuple[int, ...]:
        return tuple(sorted({fact[0] // DAY_MS for fact in facts}))

    def fold_rows(self, columns: FactColumns, rows: Rows) -> tuple[int, ...]:
        return self.fold_parts(columns, (rows,))

    def fold_parts(self, columns: FactColumns, parts: Sequence[Rows]) -> tuple[int, ...]:
        chosen = [columns.at_ms[rows] for rows in parts]
        days: set[int] = set()
        for at in chosen:
            if len(at) > FEW_ROWS:
                # Times ascend, so a day stands where another than the one before does.
                on = at // DAY_MS
                days.update(on[np.concatenate(([True], on[1:] != on[:-1]))].tolist())
            else:
                days.update([at_ms // DAY_MS for at_ms in at.tolist()])
        return tuple(sorted(days))

    def contributing(self, facts: Sequence[Fact], older: Any) -> list[int]:
        """The last event of each day."""
        last: dict[int, int] = {}
        for place in sorted(range(len(facts)), key=lambda place: facts[place][:3]):
            last[facts[place].at_ms // DAY_MS] = place
        return sorted(place for day, place in last.items() if day not in older)

    def native_fold(self, facts: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import field, floor_div

        days = F.array_distinct(F.transform(facts, lambda fact: floor_div(field(fact, "at_ms"), DAY_MS)))
        return F.when(F.size(facts) > 0, F.sort_array(days))

    def native_plus(self, a: Column, b: Column) -> Column:
        from pyspark.sql import functions as F

        return F.sort_array(F.array_union(a, b))

"""What is in the cart since the last order, and whether it was left there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from twofold.columns import KIND_CODE, NULL_CODE, NULL_QUANTITY, Fact, FactColumns
from twofold.events import FactBody
from twofold.families.family import Example, Family, OwnKind, PastFact, Told
from twofold.features import Feature, Presentation, Primary, Select
from twofold.states import Rows, later, rows_by_kind
from twofold.timeline import DAY_MS, HOUR_MS, Window

if TYPE_CHECKING:
    from pyspark.sql import Column

_SIGNS = {"cart_add": 1, "cart_remove": -1}
_ORDER = KIND_CODE["order"]
_SIGN_OF_CODE = {KIND_CODE[kind]: sign for kind, sign in _SIGNS.items()}
#: Event time, product, units added (negative: removed).
Change = tuple[int, str, int]
#: When the last order was, and the changes later than it, ascending.
State = tuple[int | None, tuple[Change, ...]]


@dataclass(frozen=True)
class Cart(OwnKind):
    """The last order's time and the changes of the cart that are later than it: an order empties the cart, whenever it is told of.

    A change without a product is none.
    """

    id: ClassVar[str] = "cart"

    def zero(self) -> State:
        return (None, ())

    def lift(self, fact: Fact) -> State:
        return self.fold((fact,))

    def plus(self, a: State, b: State) -> State:
        return self._since(later(a[0], b[0]), [*a[1], *b[1]])

    @staticmethod
    def _since(last: int | None, changes: list[Change]) -> State:
        return last, tuple(sorted(changes if last is None else [change for change in changes if change[0] > last]))

    def fold(self, facts: Iterable[Fact]) -> State:
        last: int | None = None
        changes: list[Change] = []
        for fact in facts:
            if fact.kind == "order":
                last = fact.at_ms if last is None or fact.at_ms > last else last
            elif fact.kind in _SIGNS and fact.product is not None:
                changes.append((fact.at_ms, fact.product, _SIGNS[fact.kind] * (fact.quantity or 0)))
        return self._since(last, changes)

    def fold_rows(self, columns: FactColumns, rows: Rows) -> State:
        return self.fold_parts(columns, (rows,))

    def fold_parts(self, columns: FactColumns, parts: Sequence[Rows]) -> State:
        last: int | None = None
        found = [found for part in parts for found in rows_by_kind(columns, part)]
        for code, rows in found:
            if code == _ORDER:
                # Times ascend.
                at = int(columns.at_ms[rows][-1])
                last = at if last is None or at > last else last
        changes: list[Change] = []
        for code, rows in found:
            sign = _SIGN_OF_CODE.get(code)
            if sign is None:
                continue
            times = columns.at_ms[rows]
            since = 0 if last is None else int(np.searchsorted(times, last, side="right"))
            products, quantities = columns.product[rows][since:], columns.quantity[rows][since:]
            for at, product, quantity in zip(times[since:].tolist(), products.tolist(), quantities.tolist(), strict=True):
                if product != NULL_CODE:
                    changes.append((at, columns.names[product], 0 if quantity == NULL_QUANTITY else sign * quantity))
        return self._since(last, changes)

    def encode(self, state: State) -> Any:
        changes = [{"at_ms": at, "product": product, "units": units} for at, product, units in state[1]]
        return {"changes": changes} if state[0] is None else {"order_ms": state[0], "changes": changes}

    def decode(self, data: Any) -> State:
        if not isinstance(data, dict):
            raise self.refuse(data)
        return data.get("order_ms"), tuple((change["at_ms"], change["product"], change["units"]) for change in data["changes"])

    def contributing(self, facts: Sequence[Fact], older: Any) -> list[int]:
        """One event of the last order's time, and every change since."""
        last = older[0]
        order: list[int] = []
        for place, fact in enumerate(facts):
            if fact.kind == "order" and (last is None or fact.at_ms > last):
                last, order = fact.at_ms, [place]
        changes = (
            place
            for place, fact in enumerate(facts)
            if fact.kind in _SIGNS and fact.product is not None and (last is None or fact.at_ms > last)
        )
        return sorted([*order, *changes])

    def native_fold(self, facts: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import field, let

        orders = F.filter(facts, lambda fact: field(fact, "kind") == "order")
        changes = F.transform(
            F.filter(facts, lambda fact: field(fact, "kind").isin(*_SIGNS) & field(fact, "product").isNotNull()),
            lambda fact: F.struct(
                field(fact, "at_ms").alias("at_ms"),
                field(fact, "product").alias("product"),
                (
                    F.coalesce(field(fact, "quantity"), F.lit(0)).cast("bigint")
                    * F.when(field(fact, "kind") == "cart_add", 1).otherwise(-1)
                ).alias("units"),
            ),
        )
        last = F.array_max(F.transform(orders, lambda fact: field(fact, "at_ms")))
        return let(last, lambda last: self._native_since(last, changes))

    @staticmethod
    def _native_since(last: Column, changes: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        since = F.sort_array(F.filter(changes, lambda change: last.isNull() | (change["at_ms"] > last)))
        return let(
            since,
            lambda since: F.when(last.isNotNull() | (F.size(since) > 0), F.struct(last.alias("order_ms"), since.alias("changes"))),
        )

    def native_plus(self, a: Column, b: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        last = F.greatest(a["order_ms"], b["order_ms"])
        return let(last, lambda last: self._native_since(last, F.concat(a["changes"], b["changes"])))


def _units(changes: Iterable[Change]) -> dict[str, tuple[int, int]]:
    """``{product: (units, last change)}`` of changes in ascending order."""
    out: dict[str, tuple[int, int]] = {}
    for at, product, units in changes:
        out[product] = (out.get(product, (0, 0))[0] + units, at)
    return out


def _native_units(changes: Column) -> Column:
    """The products of changes that have units left: structs of minus the time of the last change, product, units."""
    from pyspark.sql import functions as F

    from twofold.spark.lower import let

    def of(products: Column) -> Column:
        def left(product: Column) -> Column:
            own = F.filter(changes, lambda change: change["product"] == product)
            units = F.aggregate(own, F.lit(0).cast("bigint"), lambda total, change: total + change["units"])
            last = F.array_max(F.transform(own, lambda change: change["at_ms"]))
            return F.struct((-last).alias("last"), product.alias("product"), units.alias("units"))

        return F.filter(F.transform(products, left), lambda item: item["units"] > 0)

    return let(F.array_distinct(F.transform(changes, lambda change: change["product"])), of)


@dataclass(frozen=True)
class CartItems(Presentation):
    """Products with units left in the cart, the last one changed first, then by name; at most ``most``."""

    most: int
    id: ClassVar[str] = "cart_items"
    type: ClassVar = "records"
    columns: ClassVar = (("product", "text"), ("quantity", "integer"), ("at", "time"))

    def value(self, _t: int, *states: Any) -> list[dict[str, Any]]:
        left = sorted((-at, product, units) for product, (units, at) in _units(states[0][1]).items() if units > 0)
        return [{"product": product, "quantity": units, "at": -negative} for negative, product, units in left[: self.most]]

    def native_value(self, _t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        first = F.slice(F.sort_array(_native_units(states[0]["changes"])), 1, self.most)
        return F.transform(
            first,
            lambda item: F.struct(item["product"].alias("product"), item["units"].alias("quantity"), (-item["last"]).alias("at")),
        )


@dataclass(frozen=True)
class Abandoned(Presentation):
    """When a cart that holds something was last changed, once that is ``idle_ms`` ago; null else."""

    idle_ms: int
    id: ClassVar[str] = "abandoned"
    type: ClassVar = "time"
    nullable: ClassVar[bool] = True
    moves: ClassVar[bool] = True

    @staticmethod
    def _last(state: State) -> int | None:
        changes = state[1]
        return changes[-1][0] if changes and any(units > 0 for units, _at in _units(changes).values()) else None

    def value(self, t: int, *states: Any) -> int | None:
        last = self._last(states[0])
        return None if last is None or last > t - self.idle_ms else last

    def next_move(self, t: int, *states: Any) -> int | None:
        changes = states[0][1]
        if not changes or changes[-1][0] + self.idle_ms <= t:
            return None
        last = self._last(states[0])
        return None if last is None else last + self.idle_ms

    @staticmethod
    def _native_last(state: Column) -> Column:
        from pyspark.sql import functions as F

        last = F.get(state["changes"], F.size(state["changes"]) - 1)["at_ms"]
        return F.when(F.size(_native_units(state["changes"])) > 0, last)

    def native_value(self, t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        return let(self._native_last(states[0]), lambda last: F.when(last <= t - F.lit(self.idle_ms), last))

    def native_next_move(self, t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import let

        return let(self._native_last(states[0]) + F.lit(self.idle_ms), lambda at: F.when(at > t, at))


def naive(past: Sequence[PastFact], t: int) -> dict[str, Any]:
    inside = [f for f in past if f.at_ms >= t - 30 * DAY_MS]
    ordered = max((f.at_ms for f in inside if f.body.kind == "order"), default=-1)
    changed = [f for f in inside if f.body.kind in ("cart_add", "cart_remove") and f.body.product is not None and f.at_ms > ordered]
    items: list[dict[str, Any]] = []
    for product in sorted({f.body.product for f in changed if f.body.product is not None}):
        added = sum(f.body.quantity or 0 for f in changed if f.body.product == product and f.body.kind == "cart_add")
        removed = sum(f.body.quantity or 0 for f in changed if f.body.product == product and f.body.kind == "cart_remove")
        if added > removed:
            at = max(f.at_ms for f in changed if f.body.product == product)
            items.append({"product": product, "quantity": added - removed, "at": at})
    items.sort(key=lambda item: item["at"], reverse=True)
    last = max((f.at_ms for f in changed), default=None)
    left = last is not None and items and t - last >= 60 * 60 * 1_000
    return {"cart_items": items[:20], "abandoned_cart_since": last if left else None}


def naive_moves(times: Mapping[str, Sequence[int]], t: int) -> Iterator[int]:
    """An hour after each change."""
    for kind in ("cart_add", "cart_remove"):
        yield from (at + 60 * 60 * 1_000 for at in times.get(kind, ()) if at + 60 * 60 * 1_000 > t)


_ADDED = (
    ("2025-01-01T10:00:00Z", FactBody("cart_add", product="lamp", quantity=3)),
    ("2025-01-01T10:05:00Z", FactBody("order", key="o1")),
    ("2025-01-01T10:10:00Z", FactBody("cart_add", product="desk", quantity=2)),
    ("2025-01-01T10:20:00Z", FactBody("cart_add", product="chair", quantity=1)),
    ("2025-01-01T10:30:00Z", FactBody("cart_remove", product="desk", quantity=1)),
)
FAMILY = Family(
    primaries=(Primary("cart_30d", Cart(), Select(("cart_add", "cart_remove", "order")), Window(30 * DAY_MS)),),
    features=(
        Feature("cart_items", "Units added minus removed since the last order, by product", "cart_30d", show=CartItems(20)),
        Feature(
            "abandoned_cart_since",
            "When a cart that holds something was last changed, if an hour ago or longer, epoch ms",
            "cart_30d",
            show=Abandoned(HOUR_MS),
        ),
    ),
    told={
        "cart_items": Told(
            rule="Units added minus units removed in the window and later than the last order in it, by product, where that is "
            "above 0; `at` is the last time that the product was added or removed. The last one changed first, of one instant by "
            "name; at most 20",
            nothing=[],
            example=Example(
                facts=_ADDED,
                at="2025-01-01T11:00:00Z",
                value=[
                    {"product": "desk", "quantity": 1, "at": 1_735_727_400_000},
                    {"product": "chair", "quantity": 1, "at": 1_735_726_800_000},
                ],
                why="the order took the lamps; one of the two desks was removed at 10:30, the chair came at 10:20",
            ),
        ),
        "abandoned_cart_since": Told(
            rule="When the cart of `cart_items` was last changed, if it holds something and that is an hour or longer ago; "
            "null else",
            nothing=None,
            example=Example(
                facts=_ADDED,
                at="2025-01-01T11:30:00Z",
                value=1_735_727_400_000,
                why="10:30, when a desk was removed; a millisecond before t it was null",
            ),
        ),
    },
    naive=naive,
    naive_moves=naive_moves,
    edges_ms=(HOUR_MS,),
)

"""What a person looked at and did not buy."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from twofold.columns import KIND_CODE, NULL_CODE, Fact, FactColumns
from twofold.events import FactBody
from twofold.families.family import Example, Family, OwnKind, PastFact, Told
from twofold.features import Feature, Presentation, Primary, Select
from twofold.states import Rows, group_rows, later, row_count, rows_by_kind
from twofold.timeline import DAY_MS, Window

if TYPE_CHECKING:
    from pyspark.sql import Column

_VIEW, _PURCHASE = KIND_CODE["view"], KIND_CODE["purchase"]
#: So many a dictionary takes in faster than arrays do.
_FEW_VIEWS = 512
#: When a product was last viewed (``None``: it was not), and whether it was bought.
Seen = tuple[int | None, bool]


def _both(a: Seen, b: Seen) -> Seen:
    return later(a[0], b[0]), a[1] or b[1]


@dataclass(frozen=True)
class ViewedAndBought(OwnKind):
    """``{product: (last viewed, bought)}``. A purchase of no positive quantity is none; a fact without a product does not count."""

    id: ClassVar[str] = "viewed_and_bought"

    def zero(self) -> dict[str, Seen]:
        return {}

    def lift(self, fact: Fact) -> dict[str, Seen]:
        seen = self._seen(fact)
        return {} if seen is None or fact.product is None else {fact.product: seen}

    @staticmethod
    def _seen(fact: Fact) -> Seen | None:
        if fact.kind == "view":
            return fact.at_ms, False
        return (None, True) if fact.kind == "purchase" and (fact.quantity or 0) > 0 else None

    def plus(self, a: dict[str, Seen], b: dict[str, Seen]) -> dict[str, Seen]:
        if not a or not b:
            return a or b
        out = dict(a)
        for product, seen in b.items():
            known = out.get(product)
            out[product] = seen if known is None else _both(known, seen)
        return out

    def fold(self, facts: Iterable[Fact]) -> dict[str, Seen]:
        viewed: dict[str | None, int] = {}
        bought: set[str | None] = set()
        for fact in facts:
            if fact.kind == "view":
                product, at = fact.product, fact[0]
                viewed[product] = max(viewed.get(product, at), at)
            elif self._seen(fact) is not None:
                bought.add(fact.product)
        products = [product for product in (*viewed, *(bought - viewed.keys())) if product is not None]
        return {product: (viewed.get(product), product in bought) for product in products}

    def fold_rows(self, columns: FactColumns, rows: Rows) -> dict[str, Seen]:
        return self.fold_parts(columns, (rows,))

    def fold_parts(self, columns: FactColumns, parts: Sequence[Rows]) -> dict[str, Seen]:
        viewed: dict[int, int] = {}
        bought: set[int] = set()
        for code, rows in (found for part in parts for found in rows_by_kind(columns, part)):
            if code == _VIEW and row_count(rows) > _FEW_VIEWS:
                products = columns.product[rows]
                named = products != NULL_CODE
                if named.any():
                    distinct, _views, last = group_rows(products[named], None, columns.at_ms[rows][named])
                    viewed.update(zip(distinct, last, strict=True))
            elif code == _VIEW:
                # Times ascend, so the last one written is a product's latest.
                viewed.update(zip(columns.product[rows].tolist(), columns.at_ms[rows].tolist(), strict=True))
            elif code == _PURCHASE:
                bought.update(columns.product[rows][columns.quantity[rows] > 0].tolist())
        viewed.pop(NULL_CODE, None)
        bought.discard(NULL_CODE)
        unseen = bought - viewed.keys()
        seen: list[Seen] = [(last, code in bought) for code, last in viewed.items()]
        names = columns.names.many([*viewed, *unseen])
        return dict(zip(names, seen + [(None, True)] * len(unseen), strict=True))

    def encode(self, state: dict[str, Seen]) -> Any:
        return {
            product: {"bought": bought} if last is None else {"last_ms": last, "bought": bought}
            for product, (last, bought) in state.items()
        }

    def decode(self, data: Any) -> dict[str, Seen]:
        if not isinstance(data, dict):
            raise self.refuse(data)
        return {product: (seen.get("last_ms"), seen["bought"]) for product, seen in data.items()}

    def contributing(self, facts: Sequence[Fact], older: Any) -> list[int]:
        """Of each product the last view, and one purchase."""
        chosen: dict[tuple[str, bool], int] = {}
        for place in sorted(range(len(facts)), key=lambda place: facts[place][:3]):
            fact = facts[place]
            seen = self._seen(fact)
            if seen is None or fact.product is None:
                continue
            last, bought = older.get(fact.product, (None, False))
            if not bought if seen[1] else last is None or fact.at_ms > last:
                chosen[fact.product, seen[1]] = place
        return sorted(chosen.values())

    def native_fold(self, facts: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.lower import field, runs

        def read(fact: Column) -> Column:
            bought = (field(fact, "kind") == "purchase") & (F.coalesce(field(fact, "quantity"), F.lit(0)) > 0)
            return field(fact, "product").isNotNull() & ((field(fact, "kind") == "view") | bought)

        items = F.transform(
            F.filter(facts, read),
            lambda fact: F.struct(
                field(fact, "product").alias("name"),
                F.when(field(fact, "kind") == "view", field(fact, "at_ms")).alias("at_ms"),
            ),
        )

        def run(items: Column, start: Column, end: Column) -> Column:
            # Null sorts first: a purchase.
            first, last = F.get(items, start), F.get(items, end - 1)
            seen = F.struct(last["at_ms"].alias("last_ms"), first["at_ms"].isNull().alias("bought"))
            return F.struct(first["name"].alias("key"), seen.alias("value"))

        return F.map_from_entries(runs(items, ("name",), run))

    def native_plus(self, a: Column, b: Column) -> Column:
        from pyspark.sql import functions as F

        from twofold.spark.plus import zip_maps

        return zip_maps(
            a,
            b,
            lambda x, y: F.struct(
                F.greatest(x["last_ms"], y["last_ms"]).alias("last_ms"), (x["bought"] | y["bought"]).alias("bought")
            ),
        )


@dataclass(frozen=True)
class NotBought(Presentation):
    """The products that were viewed and not bought, the last one viewed first, then by name; at most ``most``."""

    most: int
    id: ClassVar[str] = "not_bought"
    type: ClassVar = "texts"

    def value(self, _t: int, *states: Any) -> list[str]:
        left = [(-last, product) for product, (last, bought) in states[0].items() if last is not None and not bought]
        left.sort()
        return [product for _last, product in left[: self.most]]

    def native_value(self, _t: Column, *states: Column) -> Column:
        from pyspark.sql import functions as F

        left = F.filter(F.map_entries(states[0]), lambda e: e["value"]["last_ms"].isNotNull() & ~e["value"]["bought"])
        placed = F.transform(left, lambda e: F.struct((-e["value"]["last_ms"]).alias("last"), e["key"].alias("product")))
        products = F.transform(F.slice(F.sort_array(placed), 1, self.most), lambda item: item["product"])
        return F.coalesce(products, F.array().cast("array<string>"))


def naive(past: Sequence[PastFact], t: int) -> dict[str, Any]:
    inside = [f for f in past if f.at_ms >= t - 30 * DAY_MS and f.body.product is not None]
    products = {f.body.product for f in inside if f.body.kind == "view"}
    for f in inside:
        if f.body.kind == "purchase" and f.body.quantity is not None and f.body.quantity > 0:
            products.discard(f.body.product)

    def last_view(product: str) -> int:
        return max(f.at_ms for f in inside if f.body.kind == "view" and f.body.product == product)

    by_name = sorted(product for product in products if product is not None)
    return {"viewed_not_bought_30d": sorted(by_name, key=last_view, reverse=True)[:10]}


FAMILY = Family(
    primaries=(Primary("viewed_and_bought_30d", ViewedAndBought(), Select(("view", "purchase")), Window(30 * DAY_MS)),),
    features=(
        Feature(
            "viewed_not_bought_30d",
            "Products viewed and not bought in the last 30 days, the last 10",
            "viewed_and_bought_30d",
            show=NotBought(10),
        ),
    ),
    told={
        "viewed_not_bought_30d": Told(
            rule="Products viewed and not bought (a purchase of a positive quantity) in the window, the last one viewed first, of "
            "one instant by name; at most 10",
            nothing=[],
            example=Example(
                facts=(
                    ("2024-12-30T10:00:00Z", FactBody("view", product="lamp")),
                    ("2024-12-30T10:05:00Z", FactBody("view", product="desk")),
                    ("2024-12-30T10:10:00Z", FactBody("view", product="chair")),
                    ("2024-12-31T10:00:00Z", FactBody("purchase", product="desk", quantity=1)),
                    ("2024-12-31T10:00:00Z", FactBody("purchase", product="lamp", quantity=-1)),
                ),
                at="2025-01-01T12:00:00Z",
                value=["chair", "lamp"],
                why="the desk was bought, the lamp was given back",
            ),
        )
    },
    naive=naive,
)

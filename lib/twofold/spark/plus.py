"""``Kind.plus`` as native columns, over the states that ``lower.fold`` gives; a null state is zero."""

from __future__ import annotations

from collections.abc import Callable

from pyspark.sql import Column
from pyspark.sql import functions as F

from twofold.errors import DefinitionError
from twofold.families.family import OwnKind
from twofold.rankings import Decayed, Distinct, Histogram, Recent, Top
from twofold.spark.lower import let
from twofold.states import Count, Extreme, Kind, Latest, MoneySum, Sum


def plus(kind: Kind, a: Column, b: Column) -> Column:
    """The sum of two states of one kind. Raises :class:`DefinitionError` for a kind without a native sum."""
    both = _both(kind)
    # Most people have one of the two: the maps are only walked where there are two.
    return F.when(a.isNull(), b).when(b.isNull(), a).otherwise(both(a, b))


def _both(kind: Kind) -> Callable[[Column, Column], Column]:
    match kind:
        case Count() | Sum():
            # As a fold writes it: a sum of zero is the null state.
            return lambda a, b: F.nullif(a + b, F.lit(0))
        case Extreme(_, largest):
            return lambda a, b: F.greatest(a, b) if largest else F.least(a, b)
        case Latest(_, first):
            return lambda a, b: F.least(a, b) if first else F.greatest(a, b)
        case Distinct():
            return lambda a, b: F.sort_array(F.array_union(a, b))
        case Recent(_, k):
            return lambda a, b: _recent(a, b, k)
        case MoneySum(counted):
            return lambda a, b: zip_maps(a, b, lambda x, y: (x + y).cast("bigint" if counted else "decimal(38,0)"))
        case Top(_, weight):
            return lambda a, b: zip_maps(
                a, b, lambda x, y: _weights(x, y, "decimal(38,0)" if weight == "amount_minor" else "bigint")
            )
        case Histogram():
            return lambda a, b: zip_maps(a, b, lambda x, y: _weights(x, y, "bigint"), "int")
        case Decayed():
            return lambda a, b: zip_maps(a, b, lambda x, y: zip_maps(x, y, lambda m, n: m + n))
        case OwnKind():
            return kind.native_plus
    raise DefinitionError(f"states of kind {kind.id!r} have no native sum: add it to twofold.spark.plus")


def zip_maps(a: Column, b: Column, both: Callable[[Column, Column], Column], key_type: str = "string") -> Column:
    """The union of two maps in the order of their keys, as a fold writes them; ``both`` where a key stands in both."""
    joined = F.map_zip_with(a, b, lambda _key, x, y: F.when(x.isNull(), y).when(y.isNull(), x).otherwise(both(x, y)))
    keyed = F.transform(
        F.map_entries(joined), lambda entry: F.struct(entry["key"].cast(key_type).alias("order"), entry.alias("entry"))
    )
    ordered = F.array_sort(keyed, lambda x, y: F.when(x["order"] < y["order"], -1).otherwise(1))
    return F.map_from_entries(F.transform(ordered, lambda item: item["entry"]))


def _weights(x: Column, y: Column, type_: str) -> Column:
    return F.struct(
        (x["weight"] + y["weight"]).cast(type_).alias("weight"), F.greatest(x["last_ms"], y["last_ms"]).alias("last_ms")
    )


def _recent(a: Column, b: Column, k: int) -> Column:
    """Newest first, a name once: a mark stays where no earlier one has its name."""

    def distinct(marks: Column) -> Column:
        names = F.transform(marks, lambda mark: mark["value"])
        return F.filter(marks, lambda mark, place: F.array_position(names, mark["value"]) == place + 1)

    return F.slice(let(F.sort_array(F.concat(a, b), asc=False), distinct), 1, k)

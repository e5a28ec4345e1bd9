"""The catalogue's primaries as native columns: the Spark side of ``Kind.fold``.

Everything here is derived from ``Primary``, ``Kind`` and ``Select``; no feature is written a second time and no Python runs on
a row. One ``groupBy(person)`` folds every primary: scalar kinds by conditional aggregates, keyed kinds by collecting their
small contributions and adding up the runs of equal keys in the sorted array, which stays linear for a person of any size.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.errors import DefinitionError
from twofold.features import Catalogue, Primary, Select
from twofold.rankings import DECAY_BASE, DECAY_SCALE, Decayed, Distinct, Histogram, Recent, Top, decay_tables
from twofold.states import Count, Extreme, Kind, Latest, MoneySum, Sum
from twofold.timeline import DAY_MS, HOUR_MS, Window

#: Columns of a facts frame: one row a fact, after deduplication.
ENVELOPE = ("person", "event_id", "at_ms", "channel", "device")
BODY = ("kind", "product", "category", "campaign", "amount_minor", "currency", "quantity", "key", "value")
FACT_COLUMNS = (*ENVELOPE, "ordinal", *BODY)

#: Sums of money: 10^15 a fact would pass 63 bits after nine thousand facts.
MONEY = "decimal(38,0)"
_MONEY_COLUMN = "amount_minor"


def floor_div(value: Column, by: int) -> Column:
    """Quotient of event times by a width: they are never negative, so truncation is the floor."""
    return F.call_function("div", value, F.lit(by).cast("bigint"))


#: The buckets of ``states.BUCKETS`` as columns.
_BUCKETS: dict[str, Callable[[Column], Column]] = {
    "hour_of_week": lambda at: floor_div(at + 3 * DAY_MS, HOUR_MS) % 168,
}


def let(value: Column, body: Callable[[Column], Column]) -> Column:
    """``body`` of a value that is computed once, whatever the optimizer thinks of repeating it."""
    return F.get(F.transform(F.array(value), body), F.lit(0))


def _fact(name: str) -> Column:
    return F.col(name)


def selected(select: Select) -> Column:
    kind = _fact("kind")
    chosen = kind == select.kinds[0] if len(select.kinds) == 1 else kind.isin(*select.kinds)
    for column, text in select.equals:
        chosen = chosen & (_fact(column) == text)
    return chosen


def inside(window: Window, t: Column | int) -> Column:
    """Whether a fact falls into ``[t - w, t)``. With ``t`` as a column the generated code is the same at every instant."""
    at = _fact("at_ms")
    before = at < t
    return before if window.width_ms is None else before & (at >= t - F.lit(window.width_ms))


def _mark(value: Column) -> Column:
    return F.struct(
        _fact("at_ms").alias("at_ms"), _fact("event_id").alias("event_id"), _fact("ordinal").alias("ordinal"), value.alias("value")
    )


def decay_factor(rest: Column, half_life_ms: int) -> Column:
    """``2^(rest / half_life)``, bit for bit ``rankings``' : look-ups and two products, no ``pow``."""
    a, b, c = (
        # Folded to one literal; as text, not as hundreds of calls into the JVM. `repr` and Java's reader both round correctly.
        F.expr(f"array({','.join(f'{entry!r}D' for entry in table)})")
        for table in decay_tables(half_life_ms)
    )
    high = floor_div(rest, DECAY_BASE)
    return (
        F.get(a, floor_div(high, DECAY_BASE).cast("int"))
        * F.get(b, (high % DECAY_BASE).cast("int"))
        * F.get(c, (rest % DECAY_BASE).cast("int"))
    )


def decay_columns(at_ms: Column, half_life_ms: int) -> tuple[Column, Column]:
    """Half-life index and weight of an instant, as ``rankings.decay_weight``."""
    factor = decay_factor(at_ms % half_life_ms, half_life_ms)
    return floor_div(at_ms, half_life_ms), F.floor(factor * DECAY_SCALE + F.lit(0.5))


# --- runs of equal keys in a sorted array -------------------------------------------------------------------------------------
def _runs(contributions: Column, keys: tuple[str, ...], run: Callable[[Column, Column, Column], Column]) -> Column:
    """One element a run of equal keys: ``run(sorted array, its start, its end)``; null for an empty array."""

    def differs(items: Column, place: Column) -> Column:
        here, before = F.get(items, place), F.get(items, place - 1)
        different = F.lit(False)
        for key in keys:
            different = different | (here.getField(key) != before.getField(key))
        return different

    def of(items: Column) -> Column:
        places = F.sequence(F.lit(0), F.size(items) - 1)
        starts = F.filter(places, lambda place: (place == 0) | differs(items, place))
        return let(
            starts,
            lambda firsts: F.transform(
                firsts, lambda start, number: run(items, start, F.coalesce(F.get(firsts, number + 1), F.size(items)))
            ),
        )

    return F.when(F.size(contributions) > 0, let(F.sort_array(contributions), of))


def _added(items: Column, start: Column, end: Column, of: Callable[[Column], Column], type_: str) -> Column:
    part = F.slice(items, start + 1, end - start)
    return F.aggregate(part, F.lit(0).cast(type_), lambda total, item: (total + of(item)).cast(type_))


def _money_state(contributions: Column, counted: bool) -> Column:
    def run(items: Column, start: Column, end: Column) -> Column:
        amount = (
            (end - start).cast("bigint")
            if counted
            else _added(items, start, end, lambda item: item.getField("weight").cast(MONEY), MONEY)
        )
        return F.struct(F.get(items, start).getField("name").alias("key"), amount.alias("value"))

    return F.map_from_entries(_runs(contributions, ("name",), run))


def _weights_state(contributions: Column, weighted: bool, money: bool = False) -> Column:
    """``{name: (weight, last event time)}``: contributions are sorted by name, then time, so a run's last is its newest."""

    def run(items: Column, start: Column, end: Column) -> Column:
        if weighted:
            type_ = MONEY if money else "bigint"
            weight = _added(items, start, end, lambda item: item.getField("weight").cast(type_), type_)
        else:
            weight = (end - start).cast("bigint")
        last = F.get(items, end - 1).getField("at_ms")
        return F.struct(
            F.get(items, start).getField("name").cast("string").alias("key"),
            F.struct(weight.alias("weight"), last.alias("last_ms")).alias("value"),
        )

    return F.map_from_entries(_runs(contributions, ("name",), run))


def _decayed_state(contributions: Column) -> Column:
    def by_index(items: Column, start: Column, end: Column) -> Column:
        first = F.get(items, start)
        return F.struct(
            first.getField("name").alias("name"),
            first.getField("index").cast("string").alias("key"),
            # 2^41 a fact: an overflow after four million facts of one name and half-life stops the job (ANSI), never wraps.
            _added(items, start, end, lambda item: item.getField("weight"), "bigint").alias("value"),
        )

    def by_name(items: Column, start: Column, end: Column) -> Column:
        sums = F.transform(
            F.slice(items, start + 1, end - start),
            lambda s: F.struct(s.getField("key").alias("key"), s.getField("value").alias("value")),
        )
        return F.struct(F.get(items, start).getField("name").alias("key"), F.map_from_entries(sums).alias("value"))

    sums = _runs(contributions, ("name", "index"), by_index)
    return F.map_from_entries(_runs(sums, ("name",), by_name))


def _recent_state(contributions: Column, k: int) -> Column:
    def newest(items: Column, _start: Column, end: Column) -> Column:
        item = F.get(items, end - 1)
        return F.struct(
            *(item.getField(n).alias(n) for n in ("at_ms", "event_id", "ordinal")), item.getField("name").alias("value")
        )

    return F.slice(F.sort_array(_runs(contributions, ("name",), newest), asc=False), 1, k)


# --- one primary ---------------------------------------------------------------------------------------------------------------
class _Lowered(NamedTuple):
    """How a kind is folded: what its ``groupBy`` gathers (from a condition), and the state from what was gathered (null: zero)."""

    gather: Callable[[Column], Column]
    state: Callable[[Column], Column]


def _list(condition: Column, *columns: Column) -> Column:
    return F.collect_list(F.when(condition, F.struct(*columns)))


def _not_zero(number: Column) -> Column:
    return F.when(number != 0, number)


def _number(column: str) -> Column:
    return _fact(column).cast(MONEY) if column == _MONEY_COLUMN else _fact(column)


def _lower(kind: Kind) -> _Lowered:
    """Raises :class:`DefinitionError` for a kind that has no native fold."""
    match kind:
        case Count():
            return _Lowered(F.count_if, _not_zero)
        case Sum(column):
            type_ = MONEY if column == _MONEY_COLUMN else "bigint"
            return _Lowered(lambda c: F.sum(F.when(c, _number(column))).cast(type_), _not_zero)
        case Extreme(column, largest):
            best = F.max if largest else F.min
            return _Lowered(lambda c: best(F.when(c, _fact(column))), lambda s: s)
        case Latest(column, first):
            end = F.min if first else F.max
            return _Lowered(lambda c: end(F.when(c, _mark(_fact(column)))), lambda s: s)
        case Distinct(column):
            return _Lowered(lambda c: F.collect_set(F.when(c, _fact(column))), lambda s: F.when(F.size(s) > 0, F.sort_array(s)))
        case MoneySum(counted):
            return _Lowered(
                lambda c: _list(
                    c & _fact("amount_minor").isNotNull() & _fact("currency").isNotNull(),
                    _fact("currency").alias("name"),
                    _fact("amount_minor").alias("weight"),
                ),
                lambda s: _money_state(s, counted),
            )
        case Recent(column, k):
            return _Lowered(
                lambda c: _list(
                    c & _fact(column).isNotNull(),
                    _fact(column).alias("name"),
                    *(_fact(name).alias(name) for name in ("at_ms", "event_id", "ordinal")),
                ),
                lambda s: _recent_state(s, k),
            )
        case Top(column, weight):
            of = [] if weight is None else [F.coalesce(_fact(weight), F.lit(0)).alias("weight")]
            return _Lowered(
                lambda c: _list(c & _fact(column).isNotNull(), _fact(column).alias("name"), _fact("at_ms").alias("at_ms"), *of),
                lambda s: _weights_state(s, weight is not None, weight == _MONEY_COLUMN),
            )
        case Histogram(bucket):
            return _Lowered(
                lambda c: _list(c, _BUCKETS[bucket](_fact("at_ms")).alias("name"), _fact("at_ms").alias("at_ms")),
                lambda s: _weights_state(s, weighted=False),
            )
        case Decayed(column, half_life_ms):
            index, weight_ = decay_columns(_fact("at_ms"), half_life_ms)
            return _Lowered(
                lambda c: _list(
                    c & _fact(column).isNotNull(), _fact(column).alias("name"), index.alias("index"), weight_.alias("weight")
                ),
                _decayed_state,
            )
    raise DefinitionError(f"states of kind {kind.id!r} have no native fold: add it to twofold.spark.lower")


class Fold:
    """The fold of some primaries at ``t_ms`` over a frame of ``FACT_COLUMNS``, for any ``groupBy`` by person.

    ``gathered`` goes into the aggregate; ``states`` are then selected from it, one column a primary, null where the state is
    zero; ``to_json`` of them decodes by ``Kind.decode``. Raises :class:`DefinitionError` for a kind without a native fold.
    """

    def __init__(self, primaries: Iterable[Primary], t_ms: Column | int) -> None:
        self.gathered: list[Column] = []
        self.states: list[Column] = []
        for number, primary in enumerate(primaries):
            lowered = _lower(primary.state)
            self.gathered.append(lowered.gather(inside(primary.window, t_ms) & selected(primary.select)).alias(f"_g{number}"))
            self.states.append(lowered.state(F.col(f"_g{number}")).alias(primary.name))


def fold(facts: DataFrame, primaries: Iterable[Primary], t_ms: int) -> DataFrame:
    """``person`` and one column a primary over each window ``[t - w, t)`` (epoch ms); every person of ``facts`` has a row."""
    plan = Fold(primaries, t_ms)
    return facts.groupBy("person").agg(*plan.gathered).select("person", *plan.states)


def facts_of(entries: DataFrame) -> DataFrame:
    """One row of ``FACT_COLUMNS`` a fact of ``entries`` (columns of ``ENVELOPE`` and the array ``facts``)."""
    exploded = entries.select(*ENVELOPE, F.posexplode("facts").alias("ordinal", "_fact"))
    return exploded.select(*ENVELOPE, "ordinal", *(F.col("_fact").getField(name).alias(name) for name in BODY))


def fold_older(entries: DataFrame, catalogue: Catalogue, before_ms: int) -> DataFrame:
    """``person`` and ``older``, a struct of the lifetime primaries over the facts with ``at_ms < before_ms`` (null: zero)."""
    older = facts_of(entries.where(F.col("at_ms") < before_ms))
    states = [primary.name for primary in catalogue.lifetime]
    return fold(older, catalogue.lifetime, before_ms).select("person", F.struct(*states).alias("older"))

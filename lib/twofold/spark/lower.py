"""The catalogue's primaries as native columns: the Spark side of ``Kind.fold``.

Everything here is derived from ``Primary``, ``Kind`` and ``Select``; no feature is written a second time and no Python runs on
a row. A person's facts are an array, and every primary is an expression over the part of it that the primary selects: no row a
fact, no copy of a fact, no buffer a primary. Keyed kinds add up the runs of equal keys in the sorted array of their small
contributions, which stays linear for a person of any size.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable

from pyspark.sql import Column
from pyspark.sql import functions as F

from twofold.errors import DefinitionError
from twofold.families.family import OwnKind
from twofold.features import Primary, Select
from twofold.rankings import DECAY_BASE, DECAY_SCALE, Decayed, Distinct, Histogram, Recent, Top, decay_tables
from twofold.states import Count, Extreme, Kind, Latest, MoneySum, Sum
from twofold.timeline import DAY_MS, HOUR_MS, Window

#: Columns that a fact has from its entry; all others are its own.
ENVELOPE = ("event_id", "at_ms", "channel", "device")
_IN_ELEMENT = ("kind", "at_ms", "ordinal")

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
    # The end of a fold over nothing that begins with the value: `transform` would copy what the body makes, with all that is in it.
    return F.aggregate(F.array().cast("array<int>"), value, lambda known, _none: known, body)


# --- facts ------------------------------------------------------------------------------------------------------------------------
def facts_of(entries: Column) -> Column:
    """The facts of an array of entries (structs with ``ENVELOPE`` and ``facts``), in its order: an array that :func:`field` reads.

    An element holds its entry, its ordinal and the fact by reference, so that a fact costs nothing to pass on; beside them what
    every selection and window asks for, because a look into a row costs Spark a microsecond.
    """

    def of(entry: Column) -> Column:
        return F.transform(
            entry["facts"],
            lambda fact, place: F.struct(
                fact["kind"].alias("kind"),
                entry["at_ms"].alias("at_ms"),
                place.alias("ordinal"),
                entry.alias("entry"),
                fact.alias("fact"),
            ),
        )

    return F.flatten(F.transform(entries, of))


def field(fact: Column, name: str) -> Column:
    """A column of an element of :func:`facts_of`."""
    if name in _IN_ELEMENT:
        return fact[name]
    return fact["entry"][name] if name in ENVELOPE else fact["fact"][name]


def selected(fact: Column, select: Select) -> Column:
    kind = field(fact, "kind")
    chosen = kind == select.kinds[0] if len(select.kinds) == 1 else kind.isin(*select.kinds)
    for column, text in select.equals:
        chosen = chosen & (field(fact, column) == text)
    return chosen


def since(fact: Column, window: Window, t: Column | int) -> Column:
    """Whether a fact before ``t`` falls into ``[t - w, t)``."""
    assert window.width_ms is not None
    return field(fact, "at_ms") >= t - F.lit(window.width_ms)


def _mark(fact: Column, value: Column) -> Column:
    return F.struct(*(field(fact, name).alias(name) for name in ("at_ms", "event_id", "ordinal")), value.alias("value"))


def decay_factor(rest: Column, half_life_ms: int) -> Column:
    """``2^(rest / half_life)``, bit for bit ``rankings``' : look-ups and two products, no ``pow``."""
    a, b, c = (
        # One literal that is folded when the query is planned: as many literals take seconds to hand over or to parse.
        # `repr` and Java's reader both round correctly.
        F.split(F.lit(",".join(map(repr, table))), ",").cast("array<double>")
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
def runs(contributions: Column, keys: tuple[str, ...], run: Callable[[Column, Column, Column], Column]) -> Column:
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

    return let(F.sort_array(contributions), lambda items: F.when(F.size(items) > 0, of(items)))


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

    return F.map_from_entries(runs(contributions, ("name",), run))


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

    return F.map_from_entries(runs(contributions, ("name",), run))


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

    sums = runs(contributions, ("name", "index"), by_index)
    return F.map_from_entries(runs(sums, ("name",), by_name))


def _recent_state(contributions: Column, k: int) -> Column:
    def newest(items: Column, _start: Column, end: Column) -> Column:
        item = F.get(items, end - 1)
        return F.struct(
            *(item.getField(n).alias(n) for n in ("at_ms", "event_id", "ordinal")), item.getField("name").alias("value")
        )

    return F.slice(F.sort_array(runs(contributions, ("name",), newest), asc=False), 1, k)


# --- one primary ---------------------------------------------------------------------------------------------------------------
def _named(facts: Column, column: str, *columns: Callable[[Column], Column]) -> Column:
    """``name`` and further columns of the facts that have a value in ``column``."""
    having = F.filter(facts, lambda fact: field(fact, column).isNotNull())
    return F.transform(having, lambda fact: F.struct(field(fact, column).alias("name"), *(of(fact) for of in columns)))


def _of(name: str) -> Callable[[Column], Column]:
    return lambda fact: field(fact, name).alias(name)


def _not_zero(number: Column) -> Column:
    return F.when(number != 0, number)


def _fold_kind(kind: Kind, facts: Column) -> Column:
    """The state of ``facts``, all of which count; null: zero. Raises :class:`DefinitionError` for a kind without a native fold."""
    match kind:
        case Count():
            return _not_zero(F.size(facts).cast("bigint"))
        case Sum(column):
            type_ = MONEY if column == _MONEY_COLUMN else "bigint"
            total = F.aggregate(
                facts,
                F.lit(0).cast(type_),
                lambda total, fact: (total + F.coalesce(field(fact, column).cast(type_), F.lit(0))).cast(type_),
            )
            return _not_zero(total)
        case Extreme(column, largest):
            values = F.transform(facts, lambda fact: field(fact, column))
            return F.array_max(values) if largest else F.array_min(values)
        case Latest(column, first):
            marks = F.transform(facts, lambda fact: _mark(fact, field(fact, column)))
            return F.array_min(marks) if first else F.array_max(marks)
        case Distinct(column):
            values = F.array_distinct(F.array_compact(F.transform(facts, lambda fact: field(fact, column))))
            return let(F.sort_array(values), lambda found: F.when(F.size(found) > 0, found))
        case MoneySum(counted):
            paid = F.filter(facts, lambda fact: field(fact, "amount_minor").isNotNull())
            return _money_state(_named(paid, "currency", lambda fact: field(fact, "amount_minor").alias("weight")), counted)
        case Recent(column, k):
            return _recent_state(_named(facts, column, *map(_of, ("at_ms", "event_id", "ordinal"))), k)
        case Top(column, weight):
            weights = (
                [] if weight is None else [lambda fact: F.coalesce(field(fact, weight), F.lit(0)).cast("bigint").alias("weight")]
            )
            return _weights_state(_named(facts, column, _of("at_ms"), *weights), weight is not None, money=weight == _MONEY_COLUMN)
        case Histogram(bucket):

            def placed(fact: Column) -> Column:
                return F.struct(_BUCKETS[bucket](field(fact, "at_ms")).alias("name"), _of("at_ms")(fact))

            return _weights_state(F.transform(facts, placed), weighted=False)
        case Decayed(column, half_life_ms):

            def index(fact: Column) -> Column:
                return decay_columns(field(fact, "at_ms"), half_life_ms)[0].alias("index")

            def weight_(fact: Column) -> Column:
                return decay_columns(field(fact, "at_ms"), half_life_ms)[1].alias("weight")

            return _decayed_state(_named(facts, column, index, weight_))
        case OwnKind():
            return kind.native_fold(facts)
    raise DefinitionError(f"states of kind {kind.id!r} have no native fold: add it to twofold.spark.lower")


def fold(facts: Column, primaries: Iterable[Primary], t: Column | int) -> Column:
    """A struct with one field a primary: the fold of ``facts`` (of :func:`facts_of`) over each window ``[t - w, t)``, null: zero.

    ``to_json`` of it decodes by ``Kind.decode``. ``t``: epoch ms; with a column the plan is the same at every instant.
    Raises :class:`DefinitionError` for a kind without a native fold.
    """
    primaries = tuple(primaries)
    # What several primaries select is looked for once.
    selects = {select: f"_s{n}" for n, select in enumerate(dict.fromkeys(p.select for p in primaries))}
    before = F.filter(facts, lambda fact: field(fact, "at_ms") < t)

    def states(known: Column, kinds: Column) -> Column:
        return let(_parts(known, kinds, selects), lambda parts: _states(parts, selects, primaries, t))

    return let(before, lambda known: let(_kinds(known), lambda kinds: states(known, kinds)))


def _kinds(facts: Column) -> Column:
    return F.array_distinct(F.transform(facts, lambda fact: field(fact, "kind")))


def _parts(known: Column, kinds: Column, selects: dict[Select, str]) -> Column:
    """One array a select, null where the person has nothing of its kinds: a look at those is far less than a filter."""

    def part(select: Select) -> Column:
        there = functools.reduce(Column.__or__, (F.array_contains(kinds, kind) for kind in select.kinds))
        return F.when(there, F.filter(known, lambda fact: selected(fact, select)))

    return F.struct(*(part(select).alias(name) for select, name in selects.items()))


def _states(parts: Column, selects: dict[Select, str], primaries: Iterable[Primary], t: Column | int) -> Column:
    def folded(kind: Kind) -> Callable[[Column], Column]:
        # Most people have nothing of most kinds.
        return lambda part: F.when(F.size(part) > 0, _fold_kind(kind, part))

    def state(primary: Primary) -> Column:
        part = parts[selects[primary.select]]
        if primary.lifetime:
            return folded(primary.state)(part)
        within = F.filter(part, lambda fact: since(fact, primary.window, t))
        return F.when(part.isNotNull(), let(within, folded(primary.state)))

    return F.struct(*(state(primary).alias(primary.name) for primary in primaries))

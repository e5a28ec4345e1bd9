"""``Catalogue.present`` and ``record.judge_sendable`` as native columns: from the states of the primaries to what a table holds.

``states`` is a struct with one field a primary, as ``lower.fold`` gives them (null: zero). Every column here equals the Python
value at the same instant, also in the last bit of a score: ``tests/spark/test_wide.py`` and ``test_set_merge.py`` see to it.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Column
from pyspark.sql import functions as F

from twofold.catalogue import CONSENT_PRIMARIES, GRANTED
from twofold.errors import DefinitionError
from twofold.features import Catalogue, Feature, ValueType
from twofold.rankings import Decayed, Distinct, Histogram, Recent, Top
from twofold.spark.lower import MONEY, decay_factor, floor_div, let
from twofold.states import Count, Extreme, Latest, MoneySum, Sum

#: Money by currency, minor units: a sum can pass 63 bits.
MONEY_MAP = f"map<string,{MONEY}>"
SCORE_MAP = "map<string,double>"
_TYPES: dict[ValueType, str] = {
    "integer": "bigint",
    "number": "double",
    "text": "string",
    "time": "bigint",
    "texts": "array<string>",
    "integers": "array<int>",
    "money": MONEY_MAP,
    "scores": SCORE_MAP,
}

#: 2^27 + 1: splits a double into two halves of 26 bits whose products are exact (Dekker 1971).
_SPLITTER = 134_217_729.0


def feature_columns(catalogue: Catalogue) -> tuple[tuple[str, str, str], ...]:
    """(name, Spark type, comment) of every feature's column."""
    return tuple((name, value_type(catalogue, f), f.doc) for name, f in catalogue.features.items())


def value_type(catalogue: Catalogue, feature: Feature) -> str:
    """The Spark type of a feature's column."""
    if feature.show is not None and feature.show.columns:
        return f"array<struct<{','.join(f'{name}:{_TYPES[type_]}' for name, type_ in feature.show.columns)}>>"
    return _TYPES[catalogue.value_type(feature)]


def value_columns(catalogue: Catalogue, states: Column, t: Column | int, nightly: Column | None = None) -> list[Column]:
    """One typed column a feature, by its name, at ``t`` (epoch ms): what ``Record.values`` holds.

    ``nightly``: a struct of values at an earlier instant since which the states have stayed; ``states`` then only has to have those
    that the catalogue's ``moving`` features read.
    """

    def value(feature: Feature) -> Column:
        if nightly is not None and feature not in catalogue.moving:
            return nightly[feature.name]
        return _value(catalogue, feature, states, t)

    return [value(f).cast(value_type(catalogue, f)).alias(name) for name, f in catalogue.features.items()]


def _value(catalogue: Catalogue, feature: Feature, states: Column, t: Column | int) -> Column:
    state, kind = states[feature.of], catalogue.primaries[feature.of].state
    if feature.show is not None:
        value = feature.show.native_value(instant(t), *(states[name] for name in feature.reads))
        if feature.show.columns:
            value = F.coalesce(value, _empty(value_type(catalogue, feature)))
        return value
    if feature.per is not None:
        return _average(state, states[feature.per])
    match kind:
        case Count() | Sum():
            return F.coalesce(state, F.lit(0))
        case Extreme():
            return state
        case Latest():
            return state["value"]
        case MoneySum():
            return F.coalesce(_sorted_map(state), _empty(MONEY_MAP))
        case Distinct():
            return F.when(state.isNull(), 0).otherwise(F.size(state))
        case Recent():
            return F.coalesce(F.transform(state, lambda mark: mark["value"]), _empty("array<string>"))
        case Top():
            return F.coalesce(_ranked(state, feature.k, "string"), _empty("array<string>"))
        case Histogram():
            return F.coalesce(_ranked(state, feature.k, "int"), _empty("array<int>"))
        case Decayed(_, half_life_ms):
            return F.coalesce(_scores(state, half_life_ms, feature.k, t), _empty(SCORE_MAP))
    raise DefinitionError(f"feature {feature.name!r} of kind {kind.id!r} has no native value: add it to twofold.spark.present")


def next_move_ms(catalogue: Catalogue, states: Column, t: Column | int) -> list[Column]:
    """For each feature whose value moves while the states stay, the next instant at which it does: bigint, or null."""
    return [
        feature.show.native_next_move(instant(t), *(states[name] for name in feature.reads)).cast("bigint")
        for feature in catalogue.features.values()
        if feature.show is not None and feature.show.moves
    ]


def next_change_ms(catalogue: Catalogue, edge_ms: Column, states: Column, t: Column | int) -> Column:
    """The next instant at which a value may be another though no event comes, decayed ones apart; null: never.

    No later than ``record.next_change_at``, which goes on to the first such instant at which a value really differs.
    """
    return F.array_min(F.array(edge_ms, *next_move_ms(catalogue, states, t)))


def _empty(type_: str) -> Column:
    return F.create_map().cast(type_) if type_.startswith("map") else F.array().cast(type_)


def _sorted_map(state: Column) -> Column:
    return F.map_from_entries(F.sort_array(F.map_entries(state)))


def _average(state: Column, counts: Column) -> Column:
    """``features.divide_half_away`` by currency: counts name the same currencies as the sums."""

    def quotient(entry: Column) -> Column:
        count = F.element_at(counts, entry["key"]).cast(MONEY)
        half_up = F.call_function("div", F.abs(entry["value"]) * 2 + count, count * 2).cast(MONEY)
        return F.struct(entry["key"].alias("key"), F.when(entry["value"] < 0, -half_up).otherwise(half_up).alias("value"))

    averages = F.map_from_entries(F.transform(F.sort_array(F.map_entries(state)), quotient))
    return F.when(state.isNull(), _empty(MONEY_MAP)).otherwise(averages)


def _first(items: Column, k: int | None) -> Column:
    return items if k is None else F.slice(items, 1, k)


def _ranked(weights: Column, k: int | None, name_type: str) -> Column:
    """``features._ranked``: weight desc, last time desc, name asc; weights <= 0 are not ranked."""
    positive = F.filter(F.map_entries(weights), lambda entry: entry["value"]["weight"] > 0)
    placed = F.transform(
        positive,
        lambda entry: F.struct(
            (-entry["value"]["weight"]).alias("weight"),
            (-entry["value"]["last_ms"]).alias("last"),
            entry["key"].cast(name_type).alias("name"),
        ),
    )
    return F.transform(_first(F.sort_array(placed), k), lambda item: item["name"])


def _scores(state: Column, half_life_ms: int, k: int | None, t: Column | int) -> Column:
    """``Decayed.score`` of every name, the k highest, zeros dropped."""
    now = floor_div(instant(t) + (half_life_ms - 1), half_life_ms)
    rest = now * half_life_ms - instant(t)

    def scored(at: Column) -> Column:
        def score(entry: Column) -> Column:
            sums = F.transform(
                F.map_entries(entry["value"]),
                lambda s: F.struct(s["key"].cast("bigint").alias("index"), s["value"].alias("weight")),
            )
            total = F.aggregate(
                F.sort_array(sums, asc=False),
                F.lit(0.0),
                lambda total, s: (
                    total
                    + (s["weight"].cast("double") * F.lit(2.0**-40))
                    * (F.pow(F.lit(2.0), (s["index"] - at["now"]).cast("double")) * at["factor"])
                ),
            )
            return F.struct((-let(total, half_up)).alias("negative"), entry["key"].alias("name"))

        return F.transform(F.map_entries(state), score)

    at = F.struct(now.alias("now"), decay_factor(rest, half_life_ms).alias("factor"))
    best = F.filter(F.sort_array(let(at, scored)), lambda item: item["negative"] != 0)
    pairs = F.transform(_first(best, k), lambda item: F.struct(item["name"].alias("key"), (-item["negative"]).alias("value")))
    return F.when(state.isNotNull(), F.map_from_entries(pairs))


def instant(t: Column | int) -> Column:
    """An instant, epoch ms, as a bigint."""
    return F.lit(t).cast("bigint") if isinstance(t, int) else t


def half_up(score: Column) -> Column:
    """The exact value of a double >= 0 rounded half-up to six decimals, bit for bit ``rankings.half_up(score, 6)``.

    The product with 10^6 is rounded; where it falls on a half its exact error (Dekker's product) says which way to go.
    """
    million = F.lit(1_000_000.0)
    scaled = score * million
    floor = F.floor(scaled).cast("double")
    wide = score * F.lit(_SPLITTER)
    high = wide - (wide - score)
    error = (high * million - scaled) + (score - high) * million
    fraction = scaled - floor
    up = (fraction > 0.5) | ((fraction == 0.5) & (error >= 0.0))
    return (floor + F.when(up, 1.0).otherwise(0.0)) / million


# --- what may be said -----------------------------------------------------------------------------------------------------------
def sendable_reasons(states: Column, inexact: Column, state: Column, lag_ms: Column, consent_max_lag_ms: int) -> Column:
    """``record.judge_sendable``: the reasons against sending, in its order; empty iff permitted.

    ``inexact``: array of primaries that are not exact; ``state``: the freshness state; ``lag_ms``: null when nobody can tell.
    """
    consent, denial = states["consent_marketing"], states["consent_denial"]
    since = consent["at_ms"]

    def reason(condition: Column, text: str | Column) -> Column:
        return F.when(F.coalesce(condition, F.lit(False)), F.lit(text) if isinstance(text, str) else text)

    consent_inexact = F.arrays_overlap(inexact, F.array(*map(F.lit, CONSENT_PRIMARIES)))
    # `<=>`: a consent whose text is missing is no consent.
    granted = consent["value"].eqNullSafe(F.lit(GRANTED))
    reasons = [
        reason(~state.isin("fresh", "stale"), F.concat(F.lit("state_"), state)),
        reason((state == "stale") & (lag_ms.isNull() | (lag_ms > consent_max_lag_ms)), "lag"),
        reason(consent_inexact, "consent_inexact"),
        F.when(consent.isNull(), F.lit("consent_missing"))
        .when(~granted, F.lit("consent_denied"))
        .when(denial["at_ms"] >= since, F.lit("consent_conflicting")),
        reason(states["unsubscribe"].isNotNull() & (since.isNull() | (states["unsubscribe"]["at_ms"] >= since)), "unsubscribed"),
        reason(states["complaint"].isNotNull() & (since.isNull() | (states["complaint"]["at_ms"] >= since)), "complained"),
    ]
    return F.array_compact(F.array(*reasons))


def field_states(catalogue: Catalogue, conflict: Column, pending: Column) -> Column:
    """``record.inexact_fields`` as a struct: what one of a field's primaries is, the field is."""

    def field(names: Iterable[str]) -> Column:
        primaries = F.array(*map(F.lit, names))
        in_conflict = F.when(F.arrays_overlap(conflict, primaries), F.lit("conflict"))
        return in_conflict.when(F.arrays_overlap(pending, primaries), F.lit("pending_retraction")).otherwise(F.lit("exact"))

    return F.struct(*(field(p.name for p in catalogue.primaries_of(name)).alias(name) for name in catalogue.features))


#: With it a null value is written, as the library writes it.
TO_JSON = {"ignoreNullFields": "false"}

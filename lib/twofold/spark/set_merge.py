"""``merge.merge`` for many people at once, natively: rows of ``state`` ⊕ archive entries above the cut, at one instant.

One mechanism for the nightly wide table (no entries), the personalization table (touched people, or all) and the drift audit
(the snapshot before ⊕ the slice since). The rules are those of ``merge``: entries are known by id, whatever their event time;
the lowest (broker time, topic, partition, offset) of an id wins; a copy of a folded id is dropped, or marks a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.features import Catalogue, Primary
from twofold.spark.admission import FACTS_TYPE
from twofold.spark.lower import ENVELOPE, facts_of, field, fold, let, selected, since
from twofold.spark.plus import plus
from twofold.spark.present import next_move_ms
from twofold.spark.state_rows import RECENT, first_copies, keyed
from twofold.views import ManifestRow

#: Columns of a merged person. ``states``: a struct with one field a primary (null: zero). ``conflict``: primaries that a doubtful
#: copy may change. ``newest_event_ms``: of the hot entries that count. ``next_change_ms``: the next instant at which a window
#: gains or loses one of the person's facts, or a value moves by itself, or null; until then values (decayed ones apart) stay,
#: unless an event comes. It is no later than ``record.next_change_at``, which goes on to the first at which a value really differs.
MERGED = ("person", "states", "conflict", "newest_event_ms", "next_change_ms")

#: Elements of ``state_rows.RECENT``.
_ENTRIES_TYPE = (
    "array<struct<at_ms:bigint,event_id:string,broker_ms:bigint,topic:int,partition:int,offset:bigint,"
    f"channel:string,device:string,facts:{FACTS_TYPE}>>"
)


def merge_people(
    state: DataFrame, hot: DataFrame | None, row: ManifestRow, catalogue: Catalogue, t: Column | int, tasks: int | None = None
) -> DataFrame:
    """Columns of ``MERGED``: every person of ``state`` (columns of ``state_rows.STATE``) and of ``hot``, once.

    ``hot``: ok entries in ``[row.cut, O)``, columns of ``state_rows.ENTRY``; ``None``: the snapshot alone.
    ``t``: epoch ms, or the column ``t`` that both frames have, so that one plan serves every instant; the result has it too.
    ``tasks``: of the shuffle by person.
    """
    carried = [F.col("t")] if isinstance(t, Column) else []
    people = _with_hot(state, hot, row, t, carried) if hot is not None else _alone(state, carried)
    if tasks is not None:
        people = people.repartition(tasks, "person")
    return _folded(people, catalogue, t, carried)


def _no_entries() -> Column:
    return F.array().cast(_ENTRIES_TYPE)


def _alone(state: DataFrame, carried: list[Column]) -> DataFrame:
    nothing = F.lit(None).cast("bigint").alias("_newest")
    return state.select("person", *carried, "older", F.col("recent").alias("entries"), _no_entries().alias("doubtful"), nothing)


def _with_hot(state: DataFrame, hot: DataFrame, row: ManifestRow, t: Column | int, carried: list[Column]) -> DataFrame:
    """Each person's entries that count, one an id; and hot copies that may beat a folded entry."""
    by_person = hot.groupBy("person", *carried).agg(F.collect_list(F.struct(*RECENT)).alias("hot"))
    known = state.select("person", *carried, "older", "older_ids", "recent")
    keys = ["person", "t"] if carried else ["person"]
    both = known.join(by_person, keys, "full_outer")
    ids = F.coalesce("older_ids", F.array().cast("array<bigint>"))
    folded = F.transform("hot", lambda entry: F.array_contains(F.col("_ids"), F.xxhash64(entry["event_id"])))
    placed = both.withColumn("_ids", ids).withColumn("_folded", F.when(F.col("hot").isNotNull(), folded))
    recent = F.coalesce(F.col("recent"), _no_entries())
    new = F.filter("hot", lambda _entry, place: ~F.get("_folded", place))
    old = F.filter("hot", lambda entry, place: F.get("_folded", place) & (entry["broker_ms"] <= row.cut_time_ms))
    counted = placed.select(
        *keys,
        "older",
        recent.alias("_recent"),
        F.when(F.col("hot").isNotNull(), first_copies(F.concat(keyed(recent), keyed(new, hot=True)))).alias("_counted"),
        F.when(F.col("hot").isNotNull(), first_copies(keyed(old))).alias("_doubtful"),
    )
    newest = F.array_max(
        F.transform(
            F.filter("_counted", lambda copy: copy["hot"] & (copy["entry"]["at_ms"] < t)), lambda copy: copy["entry"]["at_ms"]
        )
    )
    return counted.select(
        *keys,
        "older",
        F.coalesce(F.transform("_counted", lambda copy: copy["entry"]), F.col("_recent")).alias("entries"),
        F.coalesce(F.transform("_doubtful", lambda copy: copy["entry"]), _no_entries()).alias("doubtful"),
        newest.alias("_newest"),
    )


def _widths(primaries: Iterable[Primary]) -> dict[int, list[Primary]]:
    out: dict[int, list[Primary]] = {}
    for primary in primaries:
        if primary.window.width_ms is not None:
            out.setdefault(primary.window.width_ms, []).append(primary)
    return out


def _any_selected(fact: Column, primaries: Iterable[Primary]) -> Column:
    chosen = F.lit(False)
    for select in dict.fromkeys(primary.select for primary in primaries):
        chosen = chosen | selected(fact, select)
    return chosen


def _next_change(facts: Column, catalogue: Catalogue, t: Column | int) -> Column:
    """A fact leaves a window of width w at ``at + w + 1``, a later one comes in at ``at + 1``."""
    primaries = list(catalogue.primaries.values())

    def first(chosen: Callable[[Column], Column]) -> Column:
        return F.array_min(F.transform(F.filter(facts, chosen), lambda fact: field(fact, "at_ms")))

    def in_window(of: list[Primary]) -> Callable[[Column], Column]:
        return lambda fact: (field(fact, "at_ms") < t) & since(fact, of[0].window, t) & _any_selected(fact, of)

    leaving = [first(in_window(of)) + F.lit(width + 1) for width, of in _widths(primaries).items()]
    coming = first(lambda fact: (field(fact, "at_ms") >= t) & _any_selected(fact, primaries)) + F.lit(1)
    return F.array_min(F.array(*leaving, coming))


def _folded(people: DataFrame, catalogue: Catalogue, t: Column | int, carried: list[Column]) -> DataFrame:
    primaries = tuple(catalogue.primaries.values())
    facts = facts_of(F.col("entries"))
    added = people.select(
        "person",
        *carried,
        "older",
        let(facts, lambda known: fold(known, primaries, t)).alias("_added"),
        _conflicts(catalogue, t).alias("conflict"),
        F.col("_newest").alias("newest_event_ms"),
        # A column of its own, so that a query that does not ask for it does not compute it.
        let(facts, lambda known: _next_change(known, catalogue, t)).alias("next_change_ms"),
    )
    older, new = F.col("older"), F.col("_added")
    states = [(plus(p.state, new[p.name], older[p.name]) if p.lifetime else new[p.name]).alias(p.name) for p in primaries]
    merged = added.select("person", *carried, F.struct(*states).alias("states"), "conflict", "newest_event_ms", "next_change_ms")
    # Some values move while every fact stays where it is.
    moves = next_move_ms(catalogue, F.col("states"), t)
    return merged.withColumn("next_change_ms", F.least("next_change_ms", *moves)) if moves else merged


def _conflicts(catalogue: Catalogue, t: Column | int) -> Column:
    """``merge._conflicts``: every lifetime primary, and windows into which a doubtful copy's own facts fall."""

    def touches(primary: Primary) -> Column:
        width = primary.window.width_ms

        def of_entry(entry: Column) -> Column:
            before = entry["at_ms"] < t
            within = before if width is None else before & (entry["at_ms"] >= t - F.lit(width))
            return within & F.exists(entry["facts"], lambda fact: _holds(primary, entry, fact))

        return F.when(F.exists("doubtful", of_entry), F.lit(primary.name))

    windowed = [touches(p) for p in catalogue.primaries.values() if not p.lifetime]
    lifetime = F.array(*(F.lit(p.name) for p in catalogue.lifetime)).cast("array<string>")
    touched = F.array_compact(F.array(*windowed)) if windowed else F.array().cast("array<string>")
    return F.when(F.size("doubtful") == 0, F.array().cast("array<string>")).otherwise(F.concat(lifetime, touched))


def _holds(primary: Primary, entry: Column, fact: Column) -> Column:
    chosen = fact["kind"].isin(*primary.select.kinds)
    for column, text in primary.select.equals:
        chosen = chosen & ((entry if column in ENVELOPE else fact)[column] == text)
    return chosen

"""``merge.merge`` for many people at once, natively: rows of ``state`` ⊕ archive entries above the cut, at one instant.

One mechanism for the nightly wide table (no entries), the personalization table (touched people, or all) and the drift audit
(the snapshot before ⊕ the slice since). The rules are those of ``merge``: entries are known by id, whatever their event time;
the lowest (broker time, topic, partition, offset) of an id wins; a copy of a folded id is dropped, or marks a conflict.
"""

from __future__ import annotations

from collections.abc import Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.features import Catalogue, Primary
from twofold.spark.admission import FACTS_TYPE
from twofold.spark.lower import BODY, ENVELOPE, Fold, inside, let, selected
from twofold.spark.plus import plus
from twofold.spark.state_rows import RECENT
from twofold.views import ManifestRow

#: Columns of a merged person. ``states``: a struct with one field a primary (null: zero). ``conflict``: primaries that a doubtful
#: copy may change. ``newest_event_ms``: of the hot entries that count. ``next_change_ms``: the next instant at which a window
#: gains or loses one of the person's facts, or null; until then values (decayed ones apart) stay, unless an event comes. It is no
#: later than ``record.next_change_at``, which goes on to the first such instant at which a value really differs.
MERGED = ("person", "states", "conflict", "newest_event_ms", "next_change_ms")

_ENTRY_TYPE = (
    "struct<event_id:string,broker_ms:bigint,topic:int,partition:int,offset:bigint,at_ms:bigint,"
    f"channel:string,device:string,facts:{FACTS_TYPE},hot:boolean>"
)
#: The order of copies after the id: ``merge.rank``.
_RANKED = ("event_id", "broker_ms", "topic", "partition", "offset", "at_ms", "channel", "device", "facts")


def merge_people(
    state: DataFrame, hot: DataFrame | None, row: ManifestRow, catalogue: Catalogue, t: Column | int, tasks: int | None = None
) -> DataFrame:
    """Columns of ``MERGED``: every person of ``state`` (columns of ``state_rows.STATE``) and of ``hot``, once.

    ``hot``: ok entries in ``[row.cut, O)``, columns of ``state_rows.ENTRY``; ``None``: the snapshot alone.
    ``t``: epoch ms, or the column ``t`` that both frames have, so that one plan serves every instant; the result has it too.
    ``tasks``: of the shuffle by person.
    """
    carried = [F.col("t")] if isinstance(t, Column) else []
    people = _with_hot(state, hot, row, carried) if hot is not None else _alone(state, carried)
    return _folded(people, catalogue, t, carried, tasks)


def _as_entry(element: Column, hot: bool) -> Column:
    return F.struct(*(element[name].alias(name) for name in _RANKED), F.lit(hot).alias("hot")).cast(_ENTRY_TYPE)


def _no_entries() -> Column:
    return F.array().cast(f"array<{_ENTRY_TYPE}>")


def _alone(state: DataFrame, carried: list[Column]) -> DataFrame:
    recent = F.transform("recent", lambda element: _as_entry(element, False))
    return state.select("person", *carried, "older", recent.alias("entries"), _no_entries().alias("doubtful"))


def _with_hot(state: DataFrame, hot: DataFrame, row: ManifestRow, carried: list[Column]) -> DataFrame:
    """Each person's entries that count, one an id; and hot copies that may beat a folded entry."""
    element = F.struct(*RECENT)
    by_person = hot.groupBy("person", *carried).agg(F.collect_list(_as_entry(element, True)).alias("hot"))
    known = state.select("person", *carried, "older", "older_ids", "recent")
    keys = ["person", "t"] if carried else ["person"]
    both = known.join(by_person, keys, "full_outer")
    ids = F.coalesce("older_ids", F.array().cast("array<bigint>"))
    folded = F.transform("hot", lambda entry: F.array_contains(F.col("_ids"), F.xxhash64(entry["event_id"])))
    placed = both.withColumn("_ids", ids).withColumn("_folded", F.when(F.col("hot").isNotNull(), folded))
    recent = F.coalesce(F.transform("recent", lambda element: _as_entry(element, False)), _no_entries())
    new = F.filter("hot", lambda _entry, place: ~F.get("_folded", place))
    old = F.filter("hot", lambda entry, place: F.get("_folded", place) & (entry["broker_ms"] <= row.cut_time_ms))
    return placed.select(
        *keys,
        "older",
        F.when(F.col("hot").isNull(), recent).otherwise(_first_copies(F.concat(recent, new))).alias("entries"),
        F.when(F.col("hot").isNull(), _no_entries()).otherwise(_first_copies(old)).alias("doubtful"),
    )


def _first_copies(entries: Column) -> Column:
    """The winner of each event id: sorted by (id, rank), the first of a run."""

    def firsts(ordered: Column) -> Column:
        return F.filter(ordered, lambda entry, place: (place == 0) | (entry["event_id"] != F.get(ordered, place - 1)["event_id"]))

    return let(F.sort_array(entries), firsts)


def _widths(primaries: Iterable[Primary]) -> dict[int, list[Primary]]:
    out: dict[int, list[Primary]] = {}
    for primary in primaries:
        if primary.window.width_ms is not None:
            out.setdefault(primary.window.width_ms, []).append(primary)
    return out


def _any_selected(primaries: Iterable[Primary]) -> Column:
    chosen = F.lit(False)
    for select in dict.fromkeys(primary.select for primary in primaries):
        chosen = chosen | selected(select)
    return chosen


def _next_change(catalogue: Catalogue, t: Column | int) -> list[Column]:
    """Aggregates over a person's facts: one leaves a window of width w at ``at + w + 1``, a later one comes in at ``at + 1``."""
    primaries = list(catalogue.primaries.values())
    at = F.col("at_ms")
    leaving = [
        F.min(F.when(_any_selected(of) & inside(of[0].window, t), at)) + F.lit(width + 1)
        for width, of in _widths(primaries).items()
    ]
    return [*leaving, F.min(F.when(_any_selected(primaries) & (at >= t), at)) + F.lit(1)]


def _folded(people: DataFrame, catalogue: Catalogue, t: Column | int, carried: list[Column], tasks: int | None) -> DataFrame:
    primaries = tuple(catalogue.primaries.values())
    plan = Fold(primaries, t)
    if tasks is not None:
        people = people.repartition(tasks, "person")
    conflicts = _conflicts(catalogue, t)
    newest = F.array_max(F.transform(F.filter("entries", lambda e: e["hot"] & (e["at_ms"] < t)), lambda e: e["at_ms"]))
    entries = people.select(
        "person",
        *carried,
        "older",
        newest.alias("_newest"),
        conflicts.alias("_conflict"),
        F.posexplode_outer("entries").alias("_place", "_entry"),
    )
    facts = entries.select(
        "person",
        *carried,
        # A person's own columns travel with one row only: beside each fact they would be copied as often.
        F.when(F.coalesce("_place", F.lit(0)) == 0, F.struct("older", "_newest", "_conflict")).alias("_person"),
        *(F.col(f"_entry.{name}").alias(name) for name in ("event_id", "at_ms", "channel", "device")),
        F.posexplode_outer("_entry.facts").alias("ordinal", "_fact"),
    )
    rows = facts.select(
        "person",
        *carried,
        F.when(F.coalesce("ordinal", F.lit(0)) == 0, F.col("_person")).alias("_person"),
        "event_id",
        "at_ms",
        "channel",
        "device",
        "ordinal",
        *(F.col("_fact").getField(name).alias(name) for name in BODY),
    )
    changes = _next_change(catalogue, t)
    grouped = rows.groupBy("person", *carried).agg(
        *plan.gathered,
        F.first("_person", ignorenulls=True).alias("_person"),
        *(change.alias(f"_change{number}") for number, change in enumerate(changes)),
    )
    older = F.col("_person.older")
    added = grouped.select("person", *carried, "_person", *(F.col(f"_change{n}") for n in range(len(changes))), *plan.states)
    states = [(plus(p.state, older[p.name], F.col(p.name)) if p.lifetime else F.col(p.name)).alias(p.name) for p in primaries]
    return added.select(
        "person",
        *carried,
        F.struct(*states).alias("states"),
        F.col("_person._conflict").alias("conflict"),
        F.col("_person._newest").alias("newest_event_ms"),
        F.array_min(F.array(*(F.col(f"_change{n}") for n in range(len(changes))))).alias("next_change_ms"),
    )


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

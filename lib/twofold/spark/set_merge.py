"""``merge.merge`` for many people at once, natively: rows of ``state`` ⊕ archive entries above the cut, at one instant.

One mechanism for the nightly wide table (no entries), the personalization table (touched people, or all) and the drift audit
(the snapshot before ⊕ the slice since). The rules are those of ``merge``: entries are known by id, whatever their event time;
the lowest (broker time, topic, partition, offset) of an id wins; a copy of a folded id is dropped, or marks a conflict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F

from twofold.catalogue import CONSENT_PRIMARIES
from twofold.features import Catalogue, Primary
from twofold.spark.admission import FACTS_TYPE
from twofold.spark.lower import ENVELOPE, facts_of, field, fold, let, selected, since
from twofold.spark.plus import plus
from twofold.spark.present import value_columns
from twofold.spark.state_rows import by_person, first_copies, hashes, keyed, not_retracted
from twofold.views import ManifestRow

#: Columns of a merged person. ``values``: a struct of what each feature is at ``t``. ``states``: a struct of the states that those
#: of the catalogue's ``moving`` features and permission rest on (:func:`kept`; null: zero). ``conflict``: primaries that a doubtful
#: copy may change. ``pending``: primaries in which an event may be folded that a hot retraction takes back. ``newest_event_ms``: of
#: the hot entries that count. ``edge_ms``: the next instant at which a window gains or loses one of the person's facts, or null;
#: until then every value stays that does not move by itself, unless an event comes.
MERGED = ("person", "values", "states", "conflict", "pending", "newest_event_ms", "edge_ms")

#: Elements of ``state_rows.RECENT``.
_ENTRIES_TYPE = (
    "array<struct<at_ms:bigint,event_id:string,broker_ms:bigint,topic:int,partition:int,offset:bigint,"
    f"channel:string,device:string,facts:{FACTS_TYPE}>>"
)


def merge_people(
    state: DataFrame,
    hot: DataFrame | None,
    row: ManifestRow,
    catalogue: Catalogue,
    t: Column | int,
    tasks: int | None = None,
    *,
    edges: bool = False,
    whole: bool = False,
) -> DataFrame:
    """Columns of ``MERGED``: every person of ``state`` (columns of ``state_rows.STATE``) and of ``hot``, once.

    ``hot``: ok entries in ``[row.cut, O)``, columns of ``state_rows.ENTRY``; ``None``: the snapshot alone.
    ``t``: epoch ms, or the column ``t`` that both frames have, so that one plan serves every instant; the result has it too.
    ``tasks``: of the shuffle by person. ``edges``: whether ``edge_ms`` is wanted; else it is null.
    ``whole``: ``state`` has a row, maybe of nulls, for everyone of ``hot``: where these are few, nobody's state is shuffled.
    """
    carried = [F.col("t")] if isinstance(t, Column) else []
    people = state if hot is None else _beside_hot(state, hot, t, carried, "left_outer" if whole else "full_outer")
    if tasks is not None:
        people = people.repartition(tasks, "person")
    placed = _placed_alone() if hot is None else _placed(row, catalogue, t)
    # One expression: what leaves a projection is written down as bytes, and each later look into that costs a microsecond.
    merged = people.select("person", *carried, let(placed, lambda it: _merged(it, catalogue, t, edges)).alias("_merged"))
    return merged.select("person", *carried, *(F.col("_merged")[name].alias(name) for name in MERGED[1:]))


def _no_entries() -> Column:
    return F.array().cast(_ENTRIES_TYPE)


def _no_names() -> Column:
    return F.array().cast("array<string>")


# --- which entries count ---------------------------------------------------------------------------------------------------------
def _beside_hot(state: DataFrame, hot: DataFrame, t: Column | int, carried: list[Column], how: str) -> DataFrame:
    """Each person's state beside their hot entries, with hashes of the ids of these and the newest of their instants before t."""
    keys = ["person", "t"] if carried else ["person"]
    ids = F.collect_list(F.xxhash64("event_id")).alias("hot_ids")
    newest = F.max(F.when(F.col("at_ms") < t, F.col("at_ms"))).alias("hot_newest_ms")
    gathered = by_person(hot, "hot", keys, ids, newest)
    # A version of before retractions lacks the column.
    retracted = F.col("retracted_ids") if "retracted_ids" in state.columns else F.lit(None).cast("array<bigint>")
    known = state.select("person", *carried, "older", "older_ids", retracted.alias("retracted_ids"), "recent")
    return known.join(gathered, keys, how)


def _place(entries: Column, doubtful: Column, pending: Column, newest_ms: Column) -> Column:
    """``entries`` that count, one an id; ``doubtful`` hot copies that may beat a folded entry; primaries that are ``pending``."""
    return F.struct(
        entries.alias("entries"), doubtful.alias("doubtful"), pending.alias("pending"), newest_ms.cast("bigint").alias("newest")
    )


def _placed_alone() -> Column:
    return _place(F.col("recent"), _no_entries(), _no_names(), F.lit(None))


def _placed(row: ManifestRow, catalogue: Catalogue, t: Column | int) -> Column:
    """Most people's entries all count: no id twice, none folded, nothing taken back. Equal hashes only say to look closer."""
    recent, hot, hot_ids = F.coalesce("recent", _no_entries()), F.coalesce("hot", _no_entries()), hashes("hot_ids")
    known_ids = F.concat(hashes("older_ids"), F.transform(recent, lambda entry: F.xxhash64(entry["event_id"])))
    once = F.size(F.array_distinct(hot_ids)) == F.size(hot_ids)
    nothing_back = (F.size(hashes("targets")) == 0) & (F.size(hashes("retracted_ids")) == 0)
    all_count = (F.size(hot) == 0) | (once & nothing_back & ~F.arrays_overlap(hot_ids, known_ids))
    entries = F.when(F.size(recent) == 0, hot).otherwise(F.concat(recent, hot))
    simply = _place(entries, _no_entries(), _no_names(), F.col("hot_newest_ms"))
    return F.when(all_count, simply).otherwise(_looked_through(recent, hot, row, catalogue, t))


def _looked_through(recent: Column, hot: Column, row: ManifestRow, catalogue: Catalogue, t: Column | int) -> Column:
    gone = F.array_union(hashes("retracted_ids"), hashes("targets"))
    folded_ids = F.array_intersect(hashes("hot_ids"), hashes("older_ids"))

    def is_folded(entry: Column) -> Column:
        return F.array_contains(F.col("older_ids"), F.xxhash64(entry["event_id"]))

    def firsts(elements: Column) -> Column:
        """The first copy of each event that is not taken back."""
        return not_retracted(first_copies(elements), lambda copy: copy["event_id"], gone)

    def counting(counted: Column) -> Column:
        before = F.filter(counted, lambda copy: copy["hot"] & (copy["entry"]["at_ms"] < t))
        return _place(
            F.transform(counted, lambda copy: copy["entry"]),
            F.transform(firsts(keyed(old)), lambda copy: copy["entry"]),
            _pending(catalogue),
            F.array_max(F.transform(before, lambda copy: copy["entry"]["at_ms"])),
        )

    none_folded = F.size(folded_ids) == 0
    new = F.when(none_folded, hot).otherwise(F.filter(hot, lambda entry: ~is_folded(entry)))
    old = F.when(none_folded, _no_entries()).otherwise(
        F.filter(hot, lambda entry: is_folded(entry) & (entry["broker_ms"] <= row.cut_time_ms))
    )
    return let(firsts(F.concat(keyed(recent), keyed(new, hot=True))), counting)


def _pending(catalogue: Catalogue) -> Column:
    """``retractions.pending_primaries``: lifetime ones of whose facts the older part has some, where a target lies there."""

    def touched(primary: Primary) -> Column:
        name = F.lit(primary.name)
        return F.when(F.col("older")[primary.name].isNotNull(), name) if primary.state.zero_is_nothing else name

    targets_folded = F.arrays_overlap(hashes("targets"), hashes("older_ids"))
    lifetime = F.array_compact(F.array(*map(touched, catalogue.lifetime)))
    return F.when(targets_folded, lifetime).otherwise(_no_names())


# --- what they make -------------------------------------------------------------------------------------------------------------
def _widths(primaries: Iterable[Primary]) -> dict[int, list[Primary]]:
    out: dict[int, list[Primary]] = {}
    for primary in primaries:
        if primary.window.width_ms is not None:
            out.setdefault(primary.window.width_ms, []).append(primary)
    return out


def _any_selected(fact: Column, primaries: Iterable[Primary]) -> Column:
    selects = dict.fromkeys(primary.select for primary in primaries)
    plain = sorted({kind for select in selects if not select.equals for kind in select.kinds})
    chosen = field(fact, "kind").isin(*plain)
    for select in selects:
        if not set(select.kinds) <= set(plain):
            chosen = chosen | selected(fact, select)
    return chosen


def _edge(facts: Column, catalogue: Catalogue, t: Column | int) -> Column:
    """A fact leaves a window of width w at ``at + w + 1``, a later one comes in at ``at + 1``."""
    primaries = list(catalogue.primaries.values())

    def first(chosen: Callable[[Column], Column]) -> Column:
        return F.array_min(F.transform(F.filter(facts, chosen), lambda fact: field(fact, "at_ms")))

    def in_window(of: list[Primary]) -> Callable[[Column], Column]:
        return lambda fact: (field(fact, "at_ms") < t) & since(fact, of[0].window, t) & _any_selected(fact, of)

    leaving = [first(in_window(of)) + F.lit(width + 1) for width, of in _widths(primaries).items()]
    coming = first(lambda fact: (field(fact, "at_ms") >= t) & _any_selected(fact, primaries)) + F.lit(1)
    return F.array_min(F.array(*leaving, coming))


def kept(catalogue: Catalogue) -> tuple[Primary, ...]:
    """The primaries whose states a merged person has: values that move by themselves are made of them, and permission."""
    names = {*(name for feature in catalogue.moving for name in feature.reads), *CONSENT_PRIMARIES}
    return tuple(primary for primary in catalogue.primaries.values() if primary.name in names)


def _merged(placed: Column, catalogue: Catalogue, t: Column | int, edges: bool) -> Column:
    """The columns of ``MERGED`` beyond the person, as a struct, from :func:`_place`."""
    primaries = tuple(catalogue.primaries.values())
    older = F.col("older")

    def states(added: Column) -> Column:
        return F.struct(
            *((plus(p.state, added[p.name], older[p.name]) if p.lifetime else added[p.name]).alias(p.name) for p in primaries)
        )

    def merged(facts: Column) -> Column:
        def told(known: Column) -> Column:
            # All states would be bytes, and each look into those to show them takes a fraction of a microsecond.
            return F.struct(
                F.struct(*value_columns(catalogue, known, t)).alias("values"),
                F.struct(*(known[primary.name].alias(primary.name) for primary in kept(catalogue))).alias("states"),
                _conflicts(placed["doubtful"], catalogue, t).alias("conflict"),
                placed["pending"].alias("pending"),
                placed["newest"].alias("newest_event_ms"),
                (_edge(facts, catalogue, t) if edges else F.lit(None)).cast("bigint").alias("edge_ms"),
            )

        return let(let(fold(facts, primaries, t), states), told)

    return let(facts_of(placed["entries"]), merged)


def _conflicts(doubtful: Column, catalogue: Catalogue, t: Column | int) -> Column:
    """``merge._conflicts``: every lifetime primary, and windows into which a doubtful copy's own facts fall."""

    def touches(primary: Primary) -> Column:
        width = primary.window.width_ms

        def of_entry(entry: Column) -> Column:
            before = entry["at_ms"] < t
            within = before if width is None else before & (entry["at_ms"] >= t - F.lit(width))
            return within & F.exists(entry["facts"], lambda fact: _holds(primary, entry, fact))

        return F.when(F.exists(doubtful, of_entry), F.lit(primary.name))

    windowed = [touches(p) for p in catalogue.primaries.values() if not p.lifetime]
    lifetime = F.array(*(F.lit(p.name) for p in catalogue.lifetime)).cast("array<string>")
    touched = F.array_compact(F.array(*windowed)) if windowed else _no_names()
    return F.when(F.size(doubtful) == 0, _no_names()).otherwise(F.concat(lifetime, touched))


def _holds(primary: Primary, entry: Column, fact: Column) -> Column:
    chosen = fact["kind"].isin(*primary.select.kinds)
    for column, text in primary.select.equals:
        chosen = chosen & ((entry if column in ENVELOPE else fact)[column] == text)
    return chosen

"""Whom rules hold of, from a table of a home and without Spark: `personalization` where it is written, else `wide_person`.

Values of `personalization` hold until a row lapses, so rules are asked at the instant of looking; values of `wide_person` hold at
``as_of``, and so do the answers.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from twofold.errors import StoreError
from twofold.segments import Segment, Segments
from twofold.settings import Settings
from twofold.stores.manifest import current
from twofold.stores.personalization import current_rows
from twofold.stores.places import open_table, table_exists
from twofold.stores.table_rows import open_named, plain_rows, select

_STREAMED, _NIGHTLY = "personalization", "wide_person"


class Members(NamedTuple):
    """How many persons rules hold of. ``t``: of every answer, epoch ms; ``lapsed``: rows of `personalization` that their writer
    has yet to emit again, whose values may be old."""

    table: str
    t: int
    persons: int
    lapsed: int
    counts: dict[str, int]


class People(NamedTuple):
    """Rows of the features asked for, and ``person``, one a person in no order; maps are dicts."""

    table: str
    t: int
    rows: Iterator[dict[str, Any]]
    lapsed: int


def table_of(settings: Settings) -> str | None:
    """The table to look at; ``None``: neither is there yet."""
    if table_exists(settings.table(_STREAMED)):
        return _STREAMED
    row = current(settings.table("manifest"))
    return _NIGHTLY if row is not None and _NIGHTLY in row.tables else None


def people(settings: Settings, features: Sequence[str], now_ms: int) -> People:
    """Everyone's values. Raises :class:`StoreError` where no table has them."""
    table = table_of(settings)
    if table is None:
        raise StoreError("there is neither `personalization` nor `wide_person` yet: start the system with `twofold up`")
    if table == _STREAMED:
        found = _current(settings, features, now_ms)
        lapsed = pc.sum(found["stale"]).as_py() or 0
        return People(table, now_ms, plain_rows(found.drop_columns(["batch", "stale"]).to_batches(max_chunksize=10_000)), lapsed)
    opened, row = open_named(settings, table), current(settings.table("manifest"))
    assert row is not None and row.as_of_ms is not None
    _must_have(table, {field.name for field in opened.schema().fields}, features)
    return People(table, row.as_of_ms, select(opened, table, only=["person", *features]), 0)


def _current(settings: Settings, columns: Sequence[str], now_ms: int) -> pa.Table:
    location = settings.table(_STREAMED)
    _must_have(_STREAMED, {field.name for field in open_table(location).schema().fields}, columns)
    return current_rows(location, now_ms, columns=columns)


def _must_have(table: str, names: set[str], columns: Iterable[str]) -> None:
    missing = next((name for name in columns if name not in names), None)
    if missing is not None:
        way = "run `twofold batch`" if table == _NIGHTLY else "start its writer again with `twofold up`"
        raise StoreError(f"the table {table} is of other definitions, it has no {missing}: {way}")


def count_members(settings: Settings, segments: Segments, now_ms: int) -> Members:
    """Members of every segment. Where the rows are of this very rule set, their own column is counted."""
    if table_of(settings) == _STREAMED:
        names = {field.name for field in open_table(settings.table(_STREAMED)).schema().fields}
        if {"segments", "segments_version"} <= names:
            found = current_rows(settings.table(_STREAMED), now_ms, columns=["segments", "segments_version"])
            if pc.all(pc.equal(found["segments_version"], segments.version)).as_py():
                counts = dict.fromkeys((segment.name for segment in segments), 0)
                for pair in pc.value_counts(pc.list_flatten(found["segments"])).to_pylist():
                    counts[pair["values"]] = pair["counts"]
                return Members(_STREAMED, now_ms, len(found), pc.sum(found["stale"]).as_py() or 0, counts)
    everyone = people(settings, segments.features, now_ms)
    counter, persons = Counter({segment.name: 0 for segment in segments}), 0
    for row in everyone.rows:
        persons += 1
        counter.update(segment.name for segment in segments if segment.holds(row, everyone.t))
    return Members(everyone.table, everyone.t, persons, everyone.lapsed, dict(counter))


def first_members(everyone: People, segment: Segment, limit: int) -> tuple[list[dict[str, Any]], int]:
    """The rows of the first ``limit`` persons, by key, whom the rule holds of; and of how many it does."""
    count = 0

    def met() -> Iterator[dict[str, Any]]:
        nonlocal count
        for row in everyone.rows:
            if segment.holds(row, everyone.t):
                count += 1
                yield row

    # Many may be met: only the first are kept.
    first = heapq.nsmallest(max(1, limit), met(), key=lambda row: row["person"])
    return first[:limit], count

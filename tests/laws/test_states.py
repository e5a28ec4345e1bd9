"""The laws of every kind of state, for each primary of the catalogue and for every parameter a kind can take."""

from __future__ import annotations

import copy
import inspect
import json
from functools import reduce
from itertools import pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.laws.seeded import entries
from twofold.catalogue import CATALOGUE
from twofold.columns import Fact, FactColumns, facts_of
from twofold.events import FACT_KINDS, Entry, FactBody
from twofold.features import Primary
from twofold.rankings import Decayed, Distinct, Histogram, Recent, Top
from twofold.states import Count, Extreme, Kind, Latest, MoneySum, Sum
from twofold.testing.strategies import NOW_MS
from twofold.timeline import DAY_MS, HOUR_MS

#: Text columns that a fact's own row carries.
TEXTS = ("product", "category", "campaign", "currency", "key", "value")
STATES: tuple[Kind, ...] = (
    Count(),
    *(Sum(column) for column in ("amount_minor", "quantity")),
    *(Extreme(column, largest) for column in ("amount_minor", "quantity", "at_ms") for largest in (False, True)),
    *(Latest(column, first) for column in ("at_ms", *TEXTS) for first in (False, True)),
    *(MoneySum(counted) for counted in (False, True)),
    *(Recent(column, k) for column, k in (("product", 1), ("key", 3), ("value", 100))),
    *(Distinct(column) for column in TEXTS),
    *(Top(column, weight) for column in ("product", "key") for weight in (None, "quantity", "amount_minor")),
    Top("device"),
    Recent("channel", 2),
    Histogram("hour_of_week"),
    Decayed("category", 7 * DAY_MS),
    Decayed("key", HOUR_MS),
    Decayed("product", 1),
    Decayed("value", 999_983),
)
ALL = tuple(dict.fromkeys((*STATES, *(primary.state for primary in CATALOGUE.primaries.values()))))

#: Prints its seed when a law fails; what it makes is cheap, so a hundred persons a kind stay a matter of seconds.
seeds = st.randoms(use_true_random=True)


def facts(log: list[Entry]) -> list[Fact]:
    return [fact for entry in log for fact in facts_of(entry)]


def shuffled(r: Random, items: list) -> list:
    return r.sample(items, len(items))


def parts_of(r: Random, items: list, cuts: int) -> list[list]:
    """The items in at most ``cuts + 1`` runs, some of them empty."""
    places = [0, *sorted(r.randint(0, len(items)) for _ in range(cuts)), len(items)]
    return [items[start:end] for start, end in pairwise(places)]


@pytest.mark.parametrize("kind", ALL, ids=str)
@given(seeds)
def test_any_split_in_any_order(kind: Kind, r: Random) -> None:
    drawn = shuffled(r, facts(entries(r)))
    whole = kind.fold(drawn)
    assert whole == reduce(kind.plus, map(kind.lift, drawn), kind.zero())
    parts = [kind.fold(part) for part in parts_of(r, drawn, r.randint(0, 4))]
    before = copy.deepcopy(parts)
    in_any_order = shuffled(r, parts)
    assert reduce(kind.plus, in_any_order, kind.zero()) == whole
    assert reduce(lambda total, part: kind.plus(part, total), in_any_order) == whole
    assert parts == before, "plus or fold changed its inputs"


@pytest.mark.parametrize("kind", ALL, ids=str)
@given(seeds)
def test_a_commutative_monoid(kind: Kind, r: Random) -> None:
    a, b, c = (kind.fold(part) for part in parts_of(r, facts(entries(r)), 2))
    before = copy.deepcopy((a, b, c))
    assert kind.plus(a, b) == kind.plus(b, a)
    assert kind.plus(kind.plus(a, b), c) == kind.plus(a, kind.plus(b, c))
    assert kind.plus(a, kind.zero()) == a == kind.plus(kind.zero(), a)
    assert kind.zero() == kind.fold([])
    assert (a, b, c) == before, "plus changed its inputs"


@pytest.mark.parametrize("kind", ALL, ids=str)
@given(seeds)
def test_encoding_is_json_and_comes_back(kind: Kind, r: Random) -> None:
    for state in (kind.zero(), kind.fold(facts(entries(r)))):
        before = copy.deepcopy(state)
        encoded = kind.encode(state)
        assert kind.decode(encoded) == state
        assert kind.decode(json.loads(json.dumps(encoded))) == state
        assert state == before, "encode changed its input"


@given(seeds)
def test_rows_of_columns_fold_like_facts(r: Random) -> None:
    """Every primary's rows, as its slice, as a time range, as row numbers; straight from the entries and after pack and unpack."""
    log = entries(r)
    columns = FactColumns.of_entries([(entry, 0) for entry in log])
    t = r.choice([entry.at_ms for entry in log] or [NOW_MS]) + r.choice((-1, 0, 1))
    picked = np.array([r.random() < 0.5 for _ in range(columns.n_facts)], dtype=bool)
    for read in (columns, FactColumns.unpack(columns.pack()), FactColumns.unpack(memoryview(columns.pack()))):
        rows = read.facts()
        assert sorted(rows) == sorted(facts(log), key=lambda fact: fact[:3])
        for kind_of_fact in {fact.kind for fact in rows}:
            low, high = read.kind_range(kind_of_fact)
            high = low + int(np.searchsorted(read.at_ms[low:high], t))
            for state in ALL:
                assert state.fold_rows(read, slice(low, high)) == state.fold(rows[low:high]), state
                chosen = np.flatnonzero(picked[low:high]) + low
                assert state.fold_rows(read, chosen) == state.fold(rows[row] for row in chosen), state


@given(seeds)
def test_parts_fold_as_one(r: Random) -> None:
    """Slices and row numbers that have no row in common, of any kinds of facts, in any order."""
    columns = FactColumns.of_entries([(entry, 0) for entry in entries(r, least=1)])
    rows = columns.facts()
    bounds = sorted({0, columns.n_facts, *(r.randint(0, columns.n_facts) for _ in range(4)), *columns.kind_ends})
    parts = [slice(low, high) if r.random() < 0.5 else np.arange(low, high) for low, high in pairwise(bounds) if r.random() < 0.8]
    if not parts:
        return
    r.shuffle(parts)
    chosen = [row for part in parts for row in (np.arange(part.start, part.stop) if isinstance(part, slice) else part).tolist()]
    for state in ALL:
        # Within a kind of fact rows are in the order of their times, as the columns have them.
        assert state.fold_parts(columns, parts) == state.fold(rows[row] for row in chosen), state


@given(seeds)
def test_primaries_fold_their_own_facts(r: Random) -> None:
    """A primary over several kinds of facts reads one ascending selection of rows."""
    columns = FactColumns.of_entries([(entry, 0) for entry in entries(r)])
    rows = columns.facts()
    for primary in CATALOGUE.primaries.values():
        held = _rows_in_time_order(primary, rows)
        assert primary.state.fold_rows(columns, held) == primary.state.fold(filter(primary.select.holds, rows)), primary.name


def test_a_person_of_many_facts_folds_like_a_small_one() -> None:
    """Above the number of rows where numpy groups instead of a loop."""
    log = entries(Random(7), least=3_000, most=3_000)
    columns = FactColumns.of_entries([(entry, 0) for entry in log])
    rows = columns.facts()
    for kind_of_fact in FACT_KINDS:
        low, high = columns.kind_range(kind_of_fact)
        for state in ALL:
            assert state.fold_rows(columns, slice(low, high)) == state.fold(rows[low:high]), (kind_of_fact, state)


def test_every_kind_of_fact_is_generated() -> None:
    r = Random(1)
    assert {fact.kind for _ in range(200) for entry in entries(r) for fact in entry.facts} == set(FACT_KINDS)


def _rows_in_time_order(primary: Primary, rows: list[Fact]) -> np.ndarray:
    held = [number for number, fact in enumerate(rows) if primary.select.holds(fact)]
    return np.array(sorted(held, key=lambda number: rows[number][:3]), dtype=np.intp)


def test_large_sums_stay_exact() -> None:
    """Above 64 bits, where numpy alone would wrap."""
    log = [
        Entry("1/x", "t", 0, n, 0, "ok", "user:1", f"e{n}", NOW_MS, facts=(FactBody("order", amount_minor=10**15, currency="USD"),))
        for n in range(9_500)
    ]
    columns = FactColumns.of_entries([(entry, 0) for entry in log])
    assert MoneySum().fold_rows(columns, slice(0, 9_500)) == {"USD": 9_500 * 10**15}
    assert Sum("amount_minor").fold_rows(columns, np.arange(9_500)) == 9_500 * 10**15


def test_every_kind_is_tried() -> None:
    assert {type(kind) for kind in ALL} == {kind for kind in subclasses(Kind) if not inspect.isabstract(kind)}


def subclasses(kind: type) -> set[type]:
    """Those that the product has, whatever a test makes beside them."""
    found = {below for below in kind.__subclasses__() if below.__module__.startswith("twofold.")}
    return found.union(*map(subclasses, found))

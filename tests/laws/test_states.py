"""The laws of every kind of state, for each primary of the catalogue and for every parameter a kind can take."""

from __future__ import annotations

import copy
import json
from functools import reduce

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.catalogue import CATALOGUE
from twofold.columns import Fact, FactColumns, facts_of
from twofold.events import Entry
from twofold.features import Primary
from twofold.states import Count, Decayed, Distinct, Extreme, Histogram, Kind, Latest, MoneySum, Recent, Sum, Top
from twofold.testing.strategies import NOW_MS, histories, instants
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
    Histogram("hour_of_week"),
    Decayed("category", 7 * DAY_MS),
    Decayed("key", HOUR_MS),
    Decayed("product", 1),
    Decayed("value", 999_983),
)
ALL = tuple(dict.fromkeys((*STATES, *(primary.state for primary in CATALOGUE.primaries.values()))))

people = histories(persons=("user:1",), rejected=False, max_entries=12)


def winners(log: list[Entry]) -> list[Entry]:
    return list({entry.event_id: entry for entry in log}.values())


def facts(log: list[Entry]) -> list[Fact]:
    return [fact for entry in winners(log) for fact in facts_of(entry)]


@pytest.mark.parametrize("kind", ALL, ids=str)
@given(st.data())
def test_any_split_in_any_order(kind: Kind, data: st.DataObject) -> None:
    drawn = data.draw(st.permutations(facts(data.draw(people))))
    whole = kind.fold(drawn)
    assert whole == reduce(kind.plus, map(kind.lift, drawn), kind.zero())
    cuts = sorted(data.draw(st.lists(st.integers(0, len(drawn)), max_size=4)))
    parts = [kind.fold(drawn[start:end]) for start, end in zip([0, *cuts], [*cuts, len(drawn)], strict=True)]
    before = copy.deepcopy(parts)
    shuffled = data.draw(st.permutations(parts))
    assert reduce(kind.plus, shuffled, kind.zero()) == whole
    assert reduce(lambda total, part: kind.plus(part, total), shuffled) == whole
    assert parts == before, "plus or fold changed its inputs"


@pytest.mark.parametrize("kind", ALL, ids=str)
@given(st.data())
def test_a_commutative_monoid(kind: Kind, data: st.DataObject) -> None:
    drawn = facts(data.draw(people))
    place = data.draw(st.integers(0, len(drawn))), data.draw(st.integers(0, len(drawn)))
    low, high = sorted(place)
    a, b, c = (kind.fold(part) for part in (drawn[:low], drawn[low:high], drawn[high:]))
    before = copy.deepcopy((a, b, c))
    assert kind.plus(a, b) == kind.plus(b, a)
    assert kind.plus(kind.plus(a, b), c) == kind.plus(a, kind.plus(b, c))
    assert kind.plus(a, kind.zero()) == a == kind.plus(kind.zero(), a)
    assert kind.zero() == kind.fold([])
    assert (a, b, c) == before, "plus changed its inputs"


@pytest.mark.parametrize("kind", ALL, ids=str)
@given(people)
def test_encoding_is_json_and_comes_back(kind: Kind, log: list[Entry]) -> None:
    for state in (kind.zero(), kind.fold(facts(log))):
        before = copy.deepcopy(state)
        encoded = kind.encode(state)
        assert kind.decode(encoded) == state
        assert kind.decode(json.loads(json.dumps(encoded))) == state
        assert state == before, "encode changed its input"


@given(people, st.data())
def test_rows_of_columns_fold_like_facts(log: list[Entry], data: st.DataObject) -> None:
    """Every primary's rows, as its slice, as a time range, as row numbers; straight from the entries and after pack and unpack."""
    won = winners(log)
    columns = FactColumns.of_entries([(entry, 0) for entry in won])
    t = data.draw(instants(won))
    picked = np.array(data.draw(st.lists(st.booleans(), min_size=columns.n_facts, max_size=columns.n_facts)), dtype=bool)
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


@given(people)
def test_primaries_fold_their_own_facts(log: list[Entry]) -> None:
    """A primary over several kinds of facts reads one ascending selection of rows."""
    columns = FactColumns.of_entries([(entry, 0) for entry in winners(log)])
    rows = columns.facts()
    for primary in CATALOGUE.primaries.values():
        held = _rows_in_time_order(primary, rows)
        assert primary.state.fold_rows(columns, held) == primary.state.fold(filter(primary.select.holds, rows)), primary.name


def _rows_in_time_order(primary: Primary, rows: list[Fact]) -> np.ndarray:
    held = [number for number, fact in enumerate(rows) if primary.select.holds(fact)]
    return np.array(sorted(held, key=lambda number: rows[number][:3]), dtype=np.intp)


def test_large_sums_stay_exact() -> None:
    """Above 64 bits, where numpy alone would wrap."""
    from twofold.events import FactBody

    entries = [
        Entry("1/x", "t", 0, n, 0, "ok", "user:1", f"e{n}", NOW_MS, facts=(FactBody("order", amount_minor=10**15, currency="USD"),))
        for n in range(9_500)
    ]
    columns = FactColumns.of_entries([(entry, 0) for entry in entries])
    assert MoneySum().fold_rows(columns, slice(0, 9_500)) == {"USD": 9_500 * 10**15}
    assert Sum("amount_minor").fold_rows(columns, np.arange(9_500)) == 9_500 * 10**15


def test_every_kind_is_tried() -> None:
    assert {type(kind) for kind in ALL} == set(Kind.__subclasses__())

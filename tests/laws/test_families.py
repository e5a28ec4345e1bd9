"""The families against the plain recomputation that each brings, and against what the docs say of them. Random people, seeded.

The laws of their kinds of state are in ``test_states``, ``test_explain`` and ``tests/spark``, which try every primary there is.
"""

from __future__ import annotations

import ast
import inspect
import json
from collections import Counter
from itertools import pairwise
from random import Random

import pytest

from tests.laws.seeded import bodies, event_time
from tests.laws.test_next_change import PERSON, TOPIC, Person
from twofold.catalogue import CATALOGUE
from twofold.errors import DefinitionError
from twofold.events import MAX_FUTURE_MS, Entry, FactBody
from twofold.families import FAMILIES
from twofold.families.family import Family
from twofold.features import Catalogue, Feature, Primary
from twofold.local.project import ROOT
from twofold.merge import merge
from twofold.testing import oracle
from twofold.testing.features_page import features_page
from twofold.testing.strategies import NOW_MS
from twofold.timeline import DAY_MS, parse_instant

EXAMPLES = [(family, name) for family in FAMILIES.values() for name in family.told]


def primaries_of(family: Family) -> list[Primary]:
    return [primary for feature in family.features for primary in CATALOGUE.primaries_of(feature.name)]


def widths_of(family: Family) -> list[int]:
    return [w for w in {*family.edges_ms, *(p.window.width_ms for p in primaries_of(family))} if w is not None]


def of_family(r: Random, family: Family, most: int = 20, least: int = 0, more_names: int = 0) -> list[Entry]:
    """Entries of facts that the family reads, often just so far from one another, or from ``NOW_MS``, as its rules turn."""
    kinds = [(kind, p.select) for p in primaries_of(family) for kind in p.select.kinds]
    names = [None, "a", "b", "b", "c"][: r.choice((3, 4, 5))] + [f"n{number}" for number in range(more_names)]
    edges, log, times = widths_of(family), [], [NOW_MS]
    size = r.randint(least, most)
    while len(log) < size:
        at = (
            event_time(r)
            if r.random() < 0.3
            else r.choice(times) + r.choice(edges) * r.choice((-1, -1, 1)) + r.choice((-1, 0, 0, 1))
        )
        if r.random() < 0.2:
            at = NOW_MS - r.randrange(35 * DAY_MS)
        if r.random() < 0.1:
            at = at // DAY_MS * DAY_MS + r.choice((-1, 0))
        times.append(at)
        kind, select = r.choice(kinds)
        drawn: tuple[FactBody, ...] = ()
        while not drawn or all(fact.kind != kind for fact in drawn):
            drawn = bodies(r, kind)
        facts = tuple(_of(r, fact, select.equals, names, family) for fact in drawn)
        place = (TOPIC, r.randrange(3), len(log))
        log.append(Entry("1/test", *place, at + MAX_FUTURE_MS, "ok", PERSON, f"{r.choice('eE')}{len(log)}", at, "web", None, facts))
    return log


def _of(r: Random, fact: FactBody, equals: tuple, names: list, family: Family) -> FactBody:
    """The fact with few names, so that they meet, and with the texts that a selection asks for."""
    columns = {name: getattr(fact, name) for name in fact.__struct_fields__}
    columns |= {name: r.choice(names) for name in ("product", "key") if r.random() < 0.9}
    if fact.kind == "trait" and r.random() < 0.8:
        columns |= dict(equals)
        columns["value"] = r.choice(family.traits.get(columns["key"], ("x", "y")))
    return FactBody(**columns)


@pytest.mark.parametrize("name", FAMILIES)
def test_values_and_the_next_change_are_those_of_the_recomputation(name: str) -> None:
    """Merged from snapshot and hot facts, cut anywhere, with facts older than the horizon; until it changes, and when it does."""
    family, seen = FAMILIES[name], Counter()
    part = part_of(family)
    for seed in range(500):
        r = Random(f"{name} {seed}")
        log = of_family(r, family)
        person = Person(log, r.randint(0, len(log)), NOW_MS - r.choice((0, 0, 1, 20)) * DAY_MS)
        t = _read_at(r, log, family)
        earliest = person.row.earliest_ms(5)
        if earliest is not None and t < earliest:
            t = NOW_MS
        merged = merge(CATALOGUE, person.row, person.snapshot, person.view(t), t)
        assert merged.outcome == "ok"
        got = {f.name: CATALOGUE.present(f, merged.states, t) for f in family.features}
        want = naive(family, person, t)
        assert got == want, f"seed {seed} at {t}"
        seen.update(f.name for f in family.features if got[f.name] != family.told[f.name].nothing)
        hold_next_change(part, family, person, t, seen, f"seed {seed}")
    assert all(seen[f.name] > 40 for f in family.features), seen
    assert seen["moves"] > 50, seen


@pytest.mark.parametrize("name", FAMILIES)
def test_values_of_a_person_of_many_facts_are_those_of_the_recomputation(name: str) -> None:
    """Many facts are folded by other means than few; hot facts, as many as there are, come to them one by one."""
    family, seen = FAMILIES[name], Counter()
    for seed in range(12):
        r = Random(f"many {name} {seed}")
        log = of_family(r, family, 2_000, 500, r.choice((0, 30, 700)))
        person = Person(log, len(log) - r.choice((0, 3, 200)), NOW_MS)
        t = r.choice((NOW_MS, NOW_MS - DAY_MS, NOW_MS + r.randrange(5 * DAY_MS)))
        merged = merge(CATALOGUE, person.row, person.snapshot, person.view(t), t)
        assert merged.outcome == "ok"
        got = {f.name: CATALOGUE.present(f, merged.states, t) for f in family.features}
        assert got == naive(family, person, t), f"seed {seed} at {t}"
        seen.update(f.name for f in family.features if got[f.name] != family.told[f.name].nothing)
        for primary in primaries_of(family):
            state = merged.states[primary.name]
            assert primary.state.decode(json.loads(json.dumps(primary.state.encode(state)))) == state
    assert all(seen[f.name] for f in family.features), seen


def part_of(family: Family) -> Catalogue:
    """The family's features as a catalogue of their own, and what permission needs."""
    primaries = {p.name: p for p in (*primaries_of(family), *(CATALOGUE.primaries[n] for n in PERMISSION))}
    return Catalogue(list(primaries.values()), family.features)


PERMISSION = ("consent_marketing", "consent_denial", "unsubscribe", "complaint")


def _read_at(r: Random, log: list[Entry], family: Family) -> int:
    at = r.choice([NOW_MS, *(entry.at_ms or 0 for entry in log)]) + r.choice((0, *widths_of(family))) + r.choice((-1, 0, 1, 2))
    return r.choice((at, at // DAY_MS * DAY_MS + r.choice((-1, 0, 1)), NOW_MS))


def naive(family: Family, person: Person, t: int) -> dict:
    past = oracle.past(person.winners, t)
    return family.naive(past, t)


def hold_next_change(part: Catalogue, family: Family, person: Person, t: int, seen: Counter, where: str) -> None:
    from twofold.next_change import next_change_at

    merged = merge(part, person.row, person.snapshot, person.view(t), t)
    values = {f.name: part.present(f, merged.states, t) for f in family.features}
    found = next_change_at(part, merged, values, t, lambda _states: False)
    times = {entry.at_ms or 0 for entry in person.winners}
    widths = (0, *widths_of(family))
    by_kind: dict[str, list[int]] = {}
    for entry in person.winners:
        for kind in {fact.kind for fact in entry.facts}:
            by_kind.setdefault(kind, []).append(entry.at_ms or 0)
    moves = set(family.naive_moves(by_kind, t))
    edges = {at + width + 1 for at in times for width in widths} | moves
    # A little before and after each, too: what moves elsewhere is a fault of the family's own rules.
    tried = sorted({edge + d for edge in edges for d in (-1, 0, 1) if edge + d > t})
    first = next((instant for instant in tried if naive(family, person, instant) != values), None)
    assert found == first, f"{where} at {t}"
    seen["moves"] += found in moves if moves else found is not None
    end = found if found is not None else t + 90 * DAY_MS
    r = Random(where)
    for instant in (r.randrange(t, end) for _ in range(4)):
        assert naive(family, person, instant) == values, f"{where} at {instant}"


@pytest.mark.parametrize(("family", "feature"), EXAMPLES, ids=[feature for _family, feature in EXAMPLES])
def test_the_worked_example(family: Family, feature: str) -> None:
    """By both ways, wherever the cut lies."""
    example = family.told[feature].example
    t = parse_instant(example.at) or 0
    log = []
    for number, (at, body) in enumerate(example.facts):
        at_ms = parse_instant(at) or 0
        log.append(Entry("1/test", TOPIC, 0, number, at_ms, "ok", PERSON, f"e{number}", at_ms, "web", None, (body,)))
    for cut in range(len(log) + 1):
        person = Person(log, cut, t)
        assert person.record(t).values[feature] == example.value
        assert naive(family, person, t)[feature] == example.value
    assert example.value != family.told[feature].nothing or feature == "abandoned_cart_since"


@pytest.mark.parametrize("name", FAMILIES)
def test_of_nothing(name: str) -> None:
    family = FAMILIES[name]
    nothing = {feature: said.nothing for feature, said in family.told.items()}
    assert list(nothing) == [feature.name for feature in family.features]
    assert family.naive((), NOW_MS) == nothing
    assert {f.name: CATALOGUE.present(f, CATALOGUE.zero(), NOW_MS) for f in family.features} == nothing
    for feature in family.features:
        assert feature.show is not None and (nothing[feature.name] is not None or CATALOGUE.nullable(feature))
        json.dumps(nothing[feature.name])


@pytest.mark.parametrize("name", FAMILIES)
def test_the_recomputation_is_another_way(name: str) -> None:
    """It may name what it is passed, its own kind, built-ins and time, and nothing of the product's part of the module."""
    family = FAMILIES[name]
    module = inspect.getmodule(family.naive)
    assert module is not None
    tree = ast.parse(inspect.getsource(module))
    defined = {name for node in tree.body for name in _names_of(node)}
    allowed = {name for name in defined if name.startswith("naive")} | TIMES | {"Any"}
    for function in (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name.startswith("naive")):
        # What annotates is not run.
        read = {n.id for statement in function.body for n in ast.walk(statement) if isinstance(n, ast.Name)}
        assert not read & defined - allowed, f"{name}.{function.name} reads {read & defined - allowed}"


TIMES = {"SECOND_MS", "MINUTE_MS", "HOUR_MS", "DAY_MS"}


def _names_of(node: ast.stmt) -> set[str]:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [node.target] if isinstance(node, ast.AnnAssign) else []
    return {target.id for target in targets if isinstance(target, ast.Name)}


def test_the_docs_say_what_the_families_say() -> None:
    page = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    assert page == features_page(), "docs/features.md is not what `python -m twofold.testing.features_page` gives"


def test_families_are_in_the_order_of_their_names_and_what_they_say_is_in_the_fingerprint() -> None:
    assert list(FAMILIES) == sorted(FAMILIES) and len(FAMILIES) > 3
    prints = {CATALOGUE.fingerprint}
    for family in FAMILIES.values():
        for feature in family.features:
            others = [f for f in CATALOGUE.features.values() if f.name != feature.name]
            plain = Feature(feature.name, feature.doc, feature.of, beside=feature.beside)
            prints.add(Catalogue(list(CATALOGUE.primaries.values()), [*others, plain]).fingerprint)
            prints.add(Catalogue(list(CATALOGUE.primaries.values()), others).fingerprint)
    assert len(prints) == 1 + 2 * len(EXAMPLES)


def test_a_feature_of_a_missing_primary_is_refused() -> None:
    feature = next(iter(FAMILIES.values())).features[0]
    with pytest.raises(DefinitionError, match="no such primary"):
        Catalogue([], [feature])


def test_windows_do_not_reach_further_back_than_those_there_were() -> None:
    """The longest one decides how long a snapshot keeps facts."""
    assert CATALOGUE.longest_window_ms == 30 * DAY_MS


def test_drawn_entries_meet_their_edges() -> None:
    family = FAMILIES["sessions"]
    gaps = Counter(
        b - a for seed in range(200) for a, b in pairwise(sorted(entry.at_ms or 0 for entry in of_family(Random(seed), family)))
    )
    assert all(gaps[family.edges_ms[0] + d] for d in (-1, 0, 1))

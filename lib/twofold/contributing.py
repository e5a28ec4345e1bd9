"""Which facts a state rests on: folding just them (and what was folded before) gives it, and no event of them can be spared.

So of ten views of one product a count rests on ten, and a set of names on one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from twofold.columns import Fact
from twofold.errors import DefinitionError
from twofold.families.family import OwnKind
from twofold.rankings import Decayed, Distinct, Histogram, Recent, Top
from twofold.states import Count, Extreme, Kind, Latest, MoneySum, Sum


def contributing(kind: Kind, facts: Sequence[Fact], older: Any) -> list[int]:
    """Places of the facts on which ``kind.plus(older, kind.fold(facts))`` rests, ascending; ``older`` is of other events.

    Raises :class:`DefinitionError` for a kind of which nobody has said it.
    """
    match kind:
        case Count() | Histogram():
            return list(range(len(facts)))
        case Decayed(column):
            return [place for place, fact in enumerate(facts) if getattr(fact, column) is not None]
        case Sum(column):
            return _weighing(facts, lambda fact: ("", getattr(fact, column) or 0), {"": 0})
        case MoneySum(counted):
            return _weighing(
                facts,
                lambda f: None if f.amount_minor is None else (f.currency, 1 if counted else f.amount_minor),
                dict.fromkeys(older, 0),
            )
        case Top(column, weight):
            last = {name: last_ms for name, (_weight, last_ms) in older.items()}
            return _weighing(
                facts, lambda f: (getattr(f, column), 1 if weight is None else getattr(f, weight) or 0), last, lambda f: f.at_ms
            )
        case Latest():
            latest = kind.plus(older, kind.fold(facts))
            return [place for place, fact in enumerate(facts) if latest is not None and fact[:3] == latest[:3]]
        case Recent():
            kept = {mark[:3] for mark in kind.plus(older, kind.fold(facts))}
            return [place for place, fact in enumerate(facts) if fact[:3] in kept]
        case Extreme(column):
            extreme = kind.plus(older, kind.fold(facts))
            if extreme is None or extreme == older:
                return []
            return [next(place for place, fact in enumerate(facts) if getattr(fact, column) == extreme)]
        case Distinct(column):
            newest: dict[str, int] = {}
            for place in sorted(range(len(facts)), key=lambda place: facts[place][:3]):
                name = getattr(facts[place], column)
                if name is not None and name not in older:
                    newest[name] = place
            return sorted(newest.values())
        case OwnKind():
            return kind.contributing(facts, older)
    raise DefinitionError(f"which facts a state of kind {kind.id!r} rests on is not said: add it to twofold.contributing")


def _weighing(
    facts: Sequence[Fact],
    weigh: Callable[[Fact], tuple[Any, int] | None],
    known: Mapping[Any, int],
    mark: Callable[[Fact], int] = lambda _fact: 0,
) -> list[int]:
    """Facts of sums by name: ``weigh(fact)`` is (name, weight) or ``None``.

    What one event adds to a name counts as one: plus and minus of equal size add nothing. But a name stands in the state from
    its first fact on, with its largest ``mark``: where nothing that weighs shows it, one event that does not must.
    """
    groups: dict[tuple[str, Any], list[int]] = {}
    weights: dict[int, int] = {}
    sums: dict[tuple[str, Any], int] = {}
    for place, fact in enumerate(facts):
        named = weigh(fact)
        if named is None or named[0] is None:
            continue
        key = (fact.event_id, named[0])
        groups.setdefault(key, []).append(place)
        weights[place] = named[1]
        sums[key] = sums.get(key, 0) + named[1]
    shown = dict(known)
    out: list[int] = []
    for (event_id, name), places in groups.items():
        if sums[event_id, name]:
            out += [place for place in places if weights[place]]
            shown[name] = max(shown.get(name, -1), mark(facts[places[0]]))
    for (event_id, name), places in sorted(groups.items(), key=lambda group: mark(facts[group[1][0]]), reverse=True):
        if not sums[event_id, name] and mark(facts[places[0]]) > shown.get(name, -1):
            out += places
            shown[name] = mark(facts[places[0]])
    return sorted(out)

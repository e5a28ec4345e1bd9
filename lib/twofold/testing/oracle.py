"""The naive recomputation F(person, t, O): every feature as one plain loop over the winning facts of a person.

Shares with the product admission and the timeline, and nothing else: no states, no catalogue, no merge. Where the two disagree,
one of them is wrong. Slow on purpose; all persons of 25,000 events take seconds. A family's features are recomputed by the
``naive`` function that stands in its module and uses nothing else of it.

Names, shapes and rules are the catalogue's: windows are ``[t - w, t)``, lifetime is every instant before ``t``; counts and sums
without currency are 0 when nothing is there, maps and lists empty, everything else ``None``; instants are epoch ms and money is
``{currency: minor units}``. A null name counts in plain counts and never in distinct, recent, top or decayed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from twofold.errors import UsageError
from twofold.events import Entry, FactBody, make_entry
from twofold.families import FAMILIES
from twofold.timeline import DAY_MS, HOUR_MS, LATEST_MS, Offsets, Position

#: Version stamped on entries that the oracle admits itself; nothing reads it.
ORACLE_VERSION = "oracle"
#: Topic id of entries that come from a file; their partition is 0, their offset the index of the non-empty line.
FILE_TOPIC = "file"

HALF_LIFE_MS = 7 * DAY_MS
#: Step of the factors that make up a power of two; see :func:`decayed_unit`.
POWER_STEP = 846
HOURS_OF_WEEK = 168
#: 1970-01-01 00:00 UTC was a Thursday: hour 72 of a week that begins on Monday.
EPOCH_HOUR_OF_WEEK = 72
#: Every window of the catalogue, in milliseconds.
WINDOWS_MS = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS)
#: Features whose value drifts with ``t`` alone.
CONTINUOUS = ("interest",)


class PastFact(NamedTuple):
    """One fact before ``t``; tuples compare by (event time, event id, ordinal), which decides latest and newest."""

    at_ms: int
    event_id: str
    ordinal: int
    body: FactBody


# --- which entries count ---------------------------------------------------------------------------------------------------
def winners(entries: Iterable[Entry], topic_order: Sequence[str]) -> list[Entry]:
    """The entries that count: each position once, then of each (person, event id) the first ok entry, whole, unless the person
    has retracted that id: any ok retraction among ``entries`` does, whatever its time and whichever of the two came first.

    First = lowest (broker time, topic ordinal, partition, offset); a topic's ordinal is its place in ``topic_order``.
    Raises :class:`UsageError` when an ok entry's topic is not in ``topic_order``.
    """
    ordinal = {topic_id: place for place, topic_id in enumerate(topic_order)}
    at_position: dict[Position, Entry] = {}
    for entry in entries:
        at_position.setdefault(entry.position, entry)
    first: dict[tuple[str, str], tuple[tuple[int, int, int, int], Entry]] = {}
    taken_back: set[tuple[str | None, str | None]] = set()
    for entry in at_position.values():
        if entry.verdict != "ok":
            continue
        taken_back.update((entry.person, fact.key) for fact in entry.facts if fact.kind == "retraction")
        if entry.topic_id not in ordinal:
            raise UsageError(f"topic {entry.topic_id!r} is not in the topic order {list(topic_order)}: add it at its place")
        assert entry.person is not None and entry.event_id is not None
        rank = (entry.broker_ms, ordinal[entry.topic_id], entry.partition, entry.offset)
        key = (entry.person, entry.event_id)
        if key not in first or rank < first[key][0]:
            first[key] = (rank, entry)
    return [entry for key, (_rank, entry) in first.items() if key not in taken_back]


def by_person(winning: Iterable[Entry]) -> dict[str, list[Entry]]:
    """Winning entries grouped by person key."""
    groups: dict[str, list[Entry]] = {}
    for entry in winning:
        assert entry.person is not None
        groups.setdefault(entry.person, []).append(entry)
    return groups


def past(entries: Iterable[Entry], t: int) -> list[PastFact]:
    """The facts before ``t`` of one person's winning entries."""
    found = []
    seen: set[str] = set()
    for entry in entries:
        assert entry.verdict == "ok" and entry.event_id is not None and entry.at_ms is not None
        assert entry.event_id not in seen, f"event id {entry.event_id!r} twice: pass one person's winners"
        seen.add(entry.event_id)
        if entry.at_ms < t:
            found += [PastFact(entry.at_ms, entry.event_id, ordinal, body) for ordinal, body in enumerate(entry.facts)]
    return found


# --- the features ------------------------------------------------------------------------------------------------------------
def values(entries: Iterable[Entry], t: int) -> dict[str, Any]:
    """Every feature of the catalogue at ``t`` (epoch ms), by name, from the winning entries of one person in any order."""
    facts_before = past(entries, t)

    def facts(kind: str, width_ms: int | None = None) -> list[PastFact]:
        return [f for f in facts_before if f.body.kind == kind and (width_ms is None or f.at_ms >= t - width_ms)]

    orders, purchases = facts("order"), facts("purchase")
    views_30d, views_7d = facts("view", 30 * DAY_MS), facts("view", 7 * DAY_MS)
    active_30d = [*facts("page", 30 * DAY_MS), *views_30d, *facts("email_clicked", 30 * DAY_MS)]
    return {
        "page_views_1h": len(facts("page", HOUR_MS)),
        "page_views_1d": len(facts("page", DAY_MS)),
        "page_views_7d": len(facts("page", 7 * DAY_MS)),
        "page_views_30d": len(facts("page", 30 * DAY_MS)),
        "product_views_30d": len(views_30d),
        "distinct_products_viewed_7d": len({f.body.product for f in views_7d if f.body.product is not None}),
        "recent_products": _recent([(f, f.body.product) for f in views_30d], 5),
        "top_categories_30d": _top([(f.body.category, 1, f.at_ms) for f in views_30d], 3),
        "cart_adds_7d": len(facts("cart_add", 7 * DAY_MS)),
        "last_cart_add_at": max((f.at_ms for f in facts("cart_add")), default=None),
        "orders_lifetime": len(orders),
        "orders_30d": len(facts("order", 30 * DAY_MS)),
        "revenue_lifetime": _money(orders),
        "refunds_lifetime": _money(facts("refund")),
        "units_30d": sum(f.body.quantity or 0 for f in facts("purchase", 30 * DAY_MS)),
        "first_order_at": min((f.at_ms for f in orders), default=None),
        "last_order_at": max((f.at_ms for f in orders), default=None),
        "top_products_lifetime": _top([(f.body.product, f.body.quantity or 0, f.at_ms) for f in purchases], 5),
        "average_order": _average(orders),
        "emails_sent_7d": len(facts("email_sent", 7 * DAY_MS)),
        "email_opens_30d": len(facts("email_opened", 30 * DAY_MS)),
        "email_clicks_30d": len(facts("email_clicked", 30 * DAY_MS)),
        "last_email_click_at": max((f.at_ms for f in facts("email_clicked")), default=None),
        "interest": _interest(facts("view"), t, 5),
        "active_hours_30d": _top([(hour_of_week(f.at_ms), 1, f.at_ms) for f in active_30d], 3),
        "first_name": _latest(facts("trait"), "first_name"),
        "locale": _latest(facts("trait"), "locale"),
        "country": _latest(facts("trait"), "country"),
        "tier": _latest(facts("trait"), "tier"),
        "consent_marketing": _latest(facts("consent"), "marketing"),
        **{name: value for family in FAMILIES.values() for name, value in family.naive(facts_before, t).items()},
    }


def hour_of_week(at_ms: int) -> int:
    """UTC hour of the week of an instant: 0 = Monday 00h, 167 = Sunday 23h."""
    return (at_ms // HOUR_MS + EPOCH_HOUR_OF_WEEK) % HOURS_OF_WEEK


def _recent(named: list[tuple[PastFact, str | None]], k: int) -> list[str]:
    out: list[str] = []
    for _fact, name in sorted(named, key=lambda pair: pair[0][:3], reverse=True):
        if name is not None and name not in out:
            out.append(name)
    return out[:k]


def _top(rows: list[tuple[Any, int, int]], k: int) -> list[Any]:
    """Names of (name, weight, at_ms) rows: weight desc, last time desc, name asc; only names of a weight above 0."""
    weight: dict[Any, int] = {}
    last: dict[Any, int] = {}
    for name, amount, at_ms in rows:
        if name is not None:
            weight[name] = weight.get(name, 0) + amount
            last[name] = max(last.get(name, at_ms), at_ms)
    ranked = sorted((name for name in weight if weight[name] > 0), key=lambda name: (-weight[name], -last[name], name))
    return ranked[:k]


def _amounts(facts: list[PastFact]) -> dict[str, list[int]]:
    out: dict[str, list[int]] = {}
    for fact in facts:
        if fact.body.amount_minor is not None and fact.body.currency is not None:
            out.setdefault(fact.body.currency, []).append(fact.body.amount_minor)
    return dict(sorted(out.items()))


def _money(facts: list[PastFact]) -> dict[str, int]:
    return {currency: sum(amounts) for currency, amounts in _amounts(facts).items()}


def _average(facts: list[PastFact]) -> dict[str, int]:
    """Per currency the mean of the amounts that are there, rounded half away from zero."""
    out = {}
    for currency, amounts in _amounts(facts).items():
        total, n = sum(amounts), len(amounts)
        size = (2 * abs(total) + n) // (2 * n)
        out[currency] = size if total >= 0 else -size
    return out


def _latest(facts: list[PastFact], key: str) -> str | None:
    of_key = [f for f in facts if f.body.key == key]
    return max(of_key, key=lambda f: f[:3]).body.value if of_key else None


def _interest(views: list[PastFact], t: int, k: int) -> dict[str, float]:
    """Decayed views per category; the object's order is the ranking.

    With HL the half-life and ``at = q * HL + r`` (0 <= r < HL), a view adds the integer ``decayed_unit(r)``, that is
    ``round(2**(r / HL) * 2**40)``, to ``S[q]``. score = sum over q, newest first, of
    ``(S[q] * 2.0**-40) * 2.0**((q * HL - t) / HL)`` in doubles; its exact binary value is rounded half up to six decimals.
    Rounded score desc, name asc, zeros dropped.
    """
    sums: dict[str, dict[int, int]] = {}
    for view in views:
        if view.body.category is not None:
            q, r = divmod(view.at_ms, HALF_LIFE_MS)
            of_category = sums.setdefault(view.body.category, {})
            of_category[q] = of_category.get(q, 0) + decayed_unit(r)
    scores = {}
    for category, by_index in sums.items():
        score = 0.0
        for q in sorted(by_index, reverse=True):
            score += (by_index[q] * 2.0**-40) * 2.0 ** ((q * HALF_LIFE_MS - t) / HALF_LIFE_MS)
        rounded = float(Decimal(score).quantize(Decimal("0.000001"), rounding=ROUND_HALF_UP))
        if rounded > 0.0:
            scores[category] = rounded
    return dict(sorted(scores.items(), key=lambda item: (-item[1], item[0]))[:k])


def decayed_unit(r_ms: int) -> int:
    """The integer that one view adds, ``r_ms`` into its half-life: ``2**(r / HL) * 2**40`` as the definition pins it.

    ``pow`` differs between machines in its last bit, so the power is the product, from left to right in doubles, of the nearest
    doubles of ``2**(i * B**2 / HL)``, ``2**(j * B / HL)`` and ``2**(k / HL)`` where ``r = i * B**2 + j * B + k``, B = 846; the
    unit is that product times ``2**40``, a half rounded up.
    """
    i, rest = divmod(r_ms, POWER_STEP**2)
    j, k = divmod(rest, POWER_STEP)
    return math.floor(_power_of_two(i * POWER_STEP**2) * _power_of_two(j * POWER_STEP) * _power_of_two(k) * 2.0**40 + 0.5)


@cache
def _power_of_two(part_ms: int) -> float:
    """The double nearest to ``2**(part_ms / HL)``."""
    with localcontext() as context:
        context.prec = 50
        return float(Decimal(2) ** (Decimal(part_ms) / HALF_LIFE_MS))


# --- may we send -------------------------------------------------------------------------------------------------------------
def sendable(entries: Iterable[Entry], t: int) -> dict[str, Any]:
    """``{"ok": bool, "reasons": [...]}`` of a fresh, exact record at ``t``, from the winning entries of one person.

    Reasons, in this order: ``consent_missing`` | ``consent_denied`` | ``consent_conflicting`` (a denial in the same millisecond
    as the latest consent, which grants), ``unsubscribed``, ``complained`` (at or after that consent; ever, when there is none).
    """
    facts = past(entries, t)
    consents = [f for f in facts if f.body.kind == "consent" and f.body.key == "marketing"]
    latest = max(consents, key=lambda f: f[:3], default=None)
    reasons = []
    if latest is None:
        reasons.append("consent_missing")
    elif latest.body.value != "granted":
        reasons.append("consent_denied")
    elif any(f.at_ms == latest.at_ms and f.body.value != "granted" for f in consents):
        reasons.append("consent_conflicting")
    for kind, reason in (("email_unsubscribed", "unsubscribed"), ("email_complained", "complained")):
        if any(f.body.kind == kind and (latest is None or f.at_ms >= latest.at_ms) for f in facts):
            reasons.append(reason)
    return {"ok": not reasons, "reasons": reasons}


def next_change_at(entries: Iterable[Entry], t: int) -> int | None:
    """The smallest instant after ``t`` at which another value or permission holds with no new event, or ``None``.

    Continuous features apart; the record being fresh at both instants.
    """
    entries = list(entries)
    times = {entry.at_ms for entry in entries if entry.at_ms is not None}
    candidates = {at + 1 for at in times} | {at + width + 1 for at in times for width in WINDOWS_MS}
    by_kind: dict[str, list[int]] = {}
    for entry in entries:
        for kind in {fact.kind for fact in entry.facts}:
            by_kind.setdefault(kind, []).append(entry.at_ms or 0)
    candidates.update(at for family in FAMILIES.values() for at in family.naive_moves(by_kind, t))

    def steady(instant: int) -> dict[str, Any]:
        found = {name: value for name, value in values(entries, instant).items() if name not in CONTINUOUS}
        return {**found, "sendable": sendable(entries, instant)["ok"]}

    now = steady(t)
    return next((instant for instant in sorted(candidates) if instant > t and steady(instant) != now), None)


# --- records -----------------------------------------------------------------------------------------------------------------
def record_of(person: str, entries: Iterable[Entry], t: int) -> dict[str, Any]:
    """The record of one person at ``t`` from their winning entries: person, values, sendable, fields, freshness."""
    entries = list(entries)
    found = values(entries, t)
    return {
        "person": person,
        "values": found,
        "sendable": sendable(entries, t),
        "fields": dict.fromkeys(found, "exact"),
        "freshness": {"state": "oracle", "t": t},
    }


def recompute_entries(
    entries: Iterable[Entry], persons: Iterable[str] | None, t: int, topic_order: Sequence[str], *, upto: Offsets | None = None
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(person, record) at ``t`` from log entries in any order; ``upto`` is O (every entry when ``None``).

    ``persons=None`` is every person with an ok entry in O, sorted; a named person without one gets the record of no events.
    """
    within = [e for e in entries if upto is None or upto.holds(e.position)]
    groups = by_person(winners(within, topic_order))
    if persons is None:
        # Whoever has retracted everything is still somebody.
        persons = sorted({e.person for e in within if e.verdict == "ok" and e.person is not None})
    for person in persons:
        yield person, record_of(person, groups.get(person, ()), t)


def admit_lines(lines: Iterable[bytes], *, broker_ms: int | Callable[[int], int] = LATEST_MS) -> Iterator[Entry]:
    """Log entries of JSON lines, as if each non-empty line (ended by LF alone) were sent in turn to one partition.

    ``broker_ms`` is one broker time for all, or a function of the offset; by default so late that nothing is ``future``.
    """
    offset = 0
    for line in lines:
        value = line[:-1] if line.endswith(b"\n") else line
        if value:
            at = broker_ms if isinstance(broker_ms, int) else broker_ms(offset)
            yield make_entry(ORACLE_VERSION, Position(FILE_TOPIC, 0, offset), at, value)
            offset += 1


def recompute_lines(
    lines: Iterable[bytes], persons: Iterable[str] | None, t: int, *, broker_ms: int | Callable[[int], int] = LATEST_MS
) -> Iterator[tuple[str, dict[str, Any]]]:
    """(person, record) at ``t`` straight from JSON lines; see :func:`admit_lines` and :func:`recompute_entries`."""
    yield from recompute_entries(admit_lines(lines, broker_ms=broker_ms), persons, t, (FILE_TOPIC,))


def read_lines(paths: Iterable[Path]) -> Iterator[bytes]:
    """The lines of files, one file after the other, ended by LF alone. Raises :class:`UsageError` when one cannot be read."""
    for path in paths:
        try:
            with path.open("rb") as file:
                for line in file:
                    # The last line of a file may lack its LF: it still ends there.
                    yield line if line.endswith(b"\n") else line + b"\n"
        except OSError as error:
            raise UsageError(f"cannot read {path}: {error.strerror}: name a file of JSON lines") from error

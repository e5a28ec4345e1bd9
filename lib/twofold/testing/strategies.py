"""Hypothesis strategies for logs, raw events, cuts and instants: small pools, so that ties, duplicates and edges are common.

Every log drawn here could have come from the broker: offsets rise within a partition (with holes), broker times never fall
within it, and an ok entry is not later than its broker time allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

from hypothesis import strategies as st

from twofold.events import EMAIL_KINDS, EVENT_TYPES, FACT_KINDS, MAX_FUTURE_MS, REASONS, Entry, FactBody
from twofold.families import FAMILIES
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS, Offsets, PartitionKey

#: The instant around which histories are drawn: 2025-01-01T12:00:00Z.
NOW_MS = 1_735_732_800_000
#: Widths whose edges are drawn often: the catalogue's windows, and the margins of the horizon.
WIDTHS_MS = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 35 * DAY_MS, 60 * DAY_MS)

PERSONS = ("user:1", "user:2", "anon:x", "user:é😀")
TOPICS = ("topic-a",)
NAMES = ("a", "b", "c", "d", "e", "f", "Z", "é", "\uffee", "😀")
CURRENCIES = ("USD", "EUR", "JPY", "KWD")
#: Of each trait that a family reads, what may stand in it; of the others any name.
TRAIT_VALUES = {key: values for family in FAMILIES.values() for key, values in family.traits.items()}
TRAIT_KEYS = ("first_name", "locale", "country", "tier", "shoe_size", *TRAIT_VALUES)
PURPOSES = ("marketing", "analytics")


def _pool(values: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def _or_null(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    # Null is one draw in about four, so that "null names never rank" is tried in nearly every history.
    return st.one_of(strategy, strategy, strategy, st.none())


names = _pool(NAMES)
quantities = st.one_of(st.integers(-3, 5), _pool((-(10**9), 0, 10**9)))
amounts_minor = st.one_of(st.integers(-300, 2_000), _pool((0, 1, -1, -(10**15), 10**15)))


# --- instants ---------------------------------------------------------------------------------------------------------
def near_edges(now_ms: int = NOW_MS, widths_ms: Sequence[int] = WIDTHS_MS) -> st.SearchStrategy[int]:
    """Instants (epoch ms) on ``now``, on a window's start or a multiple of it, and 1 ms either side."""
    return st.builds(
        lambda width, times, nudge: now_ms - width * times + nudge,
        _pool(widths_ms),
        _pool((0, 0, 1, 1, 1, 2, 52)),
        _pool((-1, 0, 1)),
    )


def event_times(now_ms: int = NOW_MS) -> st.SearchStrategy[int]:
    """Event times: many on edges of windows at ``now``, many equal, some up to two years old, some up to 5 days after it."""
    return st.one_of(
        near_edges(now_ms),
        _pool((now_ms - 5, now_ms - MINUTE_MS)),
        st.integers(now_ms - 90 * DAY_MS, now_ms + 5 * DAY_MS),
        st.integers(now_ms - 730 * DAY_MS, now_ms),
    )


def instants(entries: Iterable[Entry], now_ms: int = NOW_MS, widths_ms: Sequence[int] = WIDTHS_MS) -> st.SearchStrategy[int]:
    """Instants of reading: around ``now``, and where an event of the log enters or leaves a window, 1 ms either side."""
    times = sorted({entry.at_ms for entry in entries if entry.at_ms is not None})
    if not times:
        return near_edges(now_ms)
    on_edge = st.builds(lambda at, width, nudge: at + width + nudge, _pool(times), _pool((0, *widths_ms)), _pool((-1, 0, 1)))
    return st.one_of(on_edge, near_edges(now_ms), st.just(now_ms))


# --- facts ------------------------------------------------------------------------------------------------------------
def _body(kind: str, **columns: st.SearchStrategy[Any]) -> st.SearchStrategy[FactBody]:
    return st.builds(FactBody, st.just(kind), **columns)


_EMAIL_COLUMNS = {"campaign": _or_null(names), "key": _or_null(names)}
_CART_COLUMNS = {"product": _or_null(names), "category": _or_null(names), "quantity": quantities}


@st.composite
def _order(draw: st.DrawFn) -> tuple[FactBody, ...]:
    currency = draw(_pool(CURRENCIES))
    order = FactBody("order", key=draw(_or_null(names)), amount_minor=draw(_or_null(amounts_minor)), currency=currency)
    purchase = _body("purchase", **_CART_COLUMNS, amount_minor=_or_null(amounts_minor), currency=st.just(currency))
    return (order, *draw(st.lists(purchase, max_size=4)))


def _named(kind: str, keys: Sequence[str], values: st.SearchStrategy[str]) -> st.SearchStrategy[tuple[FactBody, ...]]:
    """One fact for each key, by name, as admission orders them."""
    by_key = st.dictionaries(_pool(keys), values, min_size=1, max_size=3)
    return by_key.map(lambda pairs: tuple(FactBody(kind, key=key, value=pairs[key]) for key in sorted(pairs)))


def _alone(body: st.SearchStrategy[FactBody]) -> st.SearchStrategy[tuple[FactBody, ...]]:
    return body.map(lambda fact: (fact,))


#: kind of the first fact -> all facts of one entry, as admission could yield them (every column drawn null, too).
FACTS_BY_KIND: dict[str, st.SearchStrategy[tuple[FactBody, ...]]] = {
    "page": _alone(_body("page", key=_or_null(names))),
    "view": _alone(_body("view", product=_or_null(names), category=_or_null(names))),
    "cart_add": _alone(_body("cart_add", **_CART_COLUMNS)),
    "cart_remove": _alone(_body("cart_remove", **_CART_COLUMNS)),
    "order": _order(),
    "refund": _alone(_body("refund", key=_or_null(names), amount_minor=_or_null(amounts_minor), currency=_pool(CURRENCIES))),
    **{kind: _alone(_body(kind, **_EMAIL_COLUMNS)) for kind in EMAIL_KINDS.values()},
    "trait": _named("trait", TRAIT_KEYS, st.one_of(names, _pool(("", *(v for values in TRAIT_VALUES.values() for v in values))))),
    "consent": _named("consent", PURPOSES, _pool(("granted", "granted", "denied"))),
    "custom": _alone(_body("custom", key=names)),
    "other": _alone(_body("other", key=_pool(("group", "alias", "privacy")))),
    # Of what `histories` calls its events, of any of a log's persons; a tenth is of nothing.
    "retraction": _alone(_body("retraction", key=_pool((*(f"e{number}" for number in range(10)), "nothing")))),
}
assert set(FACTS_BY_KIND) | {"purchase"} == set(FACT_KINDS)


def entry_facts(kinds: Sequence[str] | None = None) -> st.SearchStrategy[tuple[FactBody, ...]]:
    """The facts of one ok entry; ``kinds`` restricts the kind of its first fact."""
    return st.one_of([FACTS_BY_KIND[kind] for kind in (kinds or FACTS_BY_KIND)])


# --- logs -------------------------------------------------------------------------------------------------------------
@st.composite
def histories(
    draw: st.DrawFn,
    *,
    persons: Sequence[str] = PERSONS[:3],
    topics: Sequence[str] = TOPICS,
    partitions: int = 3,
    max_entries: int = 25,
    kinds: Sequence[str] | None = None,
    version: str = "1/test",
    now_ms: int = NOW_MS,
    rejected: bool = True,
) -> list[Entry]:
    """A log in arrival order: late and early events, ties, duplicates (other body, time or partition), rejected entries.

    Positions are distinct; a person's entries stand mostly in one partition; event ids are few, so many entries are copies.
    ``topics`` are topic ids in their order of first appearance.
    """
    log: list[Entry] = []
    next_offset = {(topic, p): draw(_pool((0, 0, 7))) for topic in topics for p in range(partitions)}
    last_broker: dict[tuple[str, int], int] = {}
    for number in range(draw(st.integers(0, max_entries))):
        copied = draw(_pool(log)) if log and draw(st.integers(0, 4)) == 0 else None
        person = draw(_pool(persons)) if copied is None or copied.person is None else copied.person
        event_id = f"e{number if draw(st.booleans()) else draw(st.integers(0, 9))}"
        at_ms = draw(event_times(now_ms))
        facts = draw(entry_facts(kinds))
        if copied is not None and copied.event_id is not None and copied.at_ms is not None:
            event_id = copied.event_id
            at_ms, facts = draw(_pool(((copied.at_ms, copied.facts), (copied.at_ms, facts), (at_ms, copied.facts), (at_ms, facts))))
        home = sum(map(ord, person)) % partitions
        place = (draw(_pool(topics)), home if draw(st.integers(0, 4)) else draw(st.integers(0, partitions - 1)))
        delay_ms = draw(_pool((0, 0, 1, MAX_FUTURE_MS, HOUR_MS, 3 * DAY_MS, 60 * DAY_MS)))
        broker_ms = max(last_broker.get(place, 0), at_ms - MAX_FUTURE_MS + delay_ms)
        last_broker[place] = broker_ms
        offset = next_offset[place] + draw(_pool((0, 0, 0, 1, 2)))
        next_offset[place] = offset + 1
        if not (rejected and draw(st.integers(0, 9)) == 0):
            device, channel = draw(_or_null(_pool(("phone", "tv")))), draw(_or_null(_pool(("web", "email"))))
            log.append(Entry(version, *place, offset, broker_ms, "ok", person, event_id, at_ms, channel, device, facts))
        else:
            log.append(Entry(version, *place, offset, broker_ms, draw(_pool(REASONS))))
    return log


def person_histories(person: str = PERSONS[0], **options: Any) -> st.SearchStrategy[list[Entry]]:
    """A log of one person only; options as for :func:`histories`."""
    return histories(persons=(person,), **options)


@st.composite
def deliveries(draw: st.DrawFn, log: Sequence[Entry]) -> list[Entry]:
    """The same entries in any order, some delivered again from the same position."""
    again = draw(st.lists(_pool(log), max_size=5)) if log else []
    return draw(st.permutations([*log, *again]))


# --- vectors ----------------------------------------------------------------------------------------------------------
def log_end(entries: Iterable[Entry]) -> Offsets:
    """The offsets vector that holds exactly these entries' partitions to their last entry."""
    ends: dict[PartitionKey, int] = {}
    for entry in entries:
        key = PartitionKey(entry.topic_id, entry.partition)
        ends[key] = max(ends.get(key, 0), entry.offset + 1)
    return Offsets(ends)


@st.composite
def cuts(draw: st.DrawFn, log: Sequence[Entry], *, at_least: Offsets | None = None) -> Offsets:
    """An offsets vector over the log, at or above ``at_least``: starts, ends, positions of entries and holes between them."""
    floor = Offsets() if at_least is None else at_least
    ends = log_end(log).join(floor)
    return Offsets({key: draw(st.integers(floor.next(key), end)) for key, end in sorted(ends.items())})


@st.composite
def cut_and_high(draw: st.DrawFn, log: Sequence[Entry]) -> tuple[Offsets, Offsets]:
    """(cut, high) of one log, independent of each other in every partition: high may stand below the cut."""
    return draw(cuts(log)), draw(cuts(log))


# --- raw events -------------------------------------------------------------------------------------------------------
_TRACK_NAMES = (
    *("Product Viewed", "Product Added", "Product Removed", "Order Completed", "Order Refunded", "Order Cancelled"),
    *("Order Completed", "Searched"),
)
#: Types as often as their facts matter: a track or an email is one of seven kinds.
USUAL_TYPES = (*EVENT_TYPES, *("track",) * 10, *("email",) * 5)
_ids = st.one_of(names, st.integers(0, 5))
_prices: st.SearchStrategy[Any] = st.one_of(
    st.integers(-50, 5_000), st.decimals(-100, 10_000, places=3).map(str), _pool(("0.005", "-0.005", "1.5", "999999999999.999"))
)
_codes = _pool(("usd", "EUR", "JPY", "kwd"))


def _object(required: dict[str, st.SearchStrategy[Any]], **optional: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(required, optional={name: _or_null(value) for name, value in optional.items()})


def _times(now_ms: int) -> st.SearchStrategy[int | str]:
    # Some as RFC 3339 with an offset: the same instants, written another way.
    def written(at_ms: int, hours: int) -> str:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=at_ms)
        return moment.astimezone(timezone(timedelta(hours=hours))).isoformat(timespec="milliseconds")

    at = event_times(now_ms)
    return st.one_of(at, st.builds(written, at, st.integers(-18, 18)))


@st.composite
def raw_events(
    draw: st.DrawFn, *, now_ms: int = NOW_MS, users: Sequence[str] = ("1", "2", "é"), types: Sequence[str] = USUAL_TYPES
) -> dict[str, Any]:
    """A valid event as a producer sends it (admission says ok at any broker time 5 days after ``now``); every type and name."""
    kind = draw(_pool(types))
    event: dict[str, Any] = {"event_id": f"e{draw(st.integers(0, 40))}", "type": kind, "occurred_at": draw(_times(now_ms))}
    who = draw(_pool(users))
    event.update(
        draw(
            _pool(
                (
                    {"user_id": who},
                    {"anonymous_id": who},
                    {"user_id": who, "anonymous_id": "z"},
                    {"user_id": None, "anonymous_id": who},
                )
            )
        )
    )
    item = _object(
        {}, product_id=_ids, category=_ids, quantity=st.one_of(st.integers(-3, 5), st.integers(-3, 5).map(str)), price=_prices
    )
    if kind == "track":
        event["name"] = draw(_pool(_TRACK_NAMES))
        event["properties"] = draw(
            _object(
                {},
                **{"product_id": _ids, "category": _ids, "quantity": st.integers(-3, 5), "order_id": _ids, "currency": _codes},
                **{"total": _prices, "revenue": _prices, "products": st.lists(item, max_size=4)},
            )
        )
    elif kind == "email":
        event["name"] = draw(_pool((*EMAIL_KINDS, "Email Forwarded")))
        event["properties"] = draw(_object({}, campaign_id=_ids, message_id=_ids))
    elif kind in ("page", "screen"):
        event.update(draw(_object({}, name=names)))
        event["properties"] = draw(_object({}, path=names, url=names))
    elif kind in ("identify", "crm"):
        scalars = st.one_of(names, st.just(""), st.booleans(), st.integers(-9, 9), st.none(), st.just([]), st.just({}))
        event["traits"] = draw(st.dictionaries(_pool(TRAIT_KEYS), scalars, max_size=4))
    elif kind == "retraction":
        event["properties"] = {"target_event_id": draw(st.one_of(st.integers(0, 40).map("e{}".format), st.integers(0, 9)))}
    elif kind == "consent":
        said = _pool(("granted", "granted", "denied", "Granted", True, None))
        event["properties"] = {"purposes": draw(st.dictionaries(_pool(PURPOSES), said, max_size=2))}
    event.update(draw(_object({}, source_kind=_pool(("web", "crm")), context=st.just({"device": {"type": "phone"}}))))
    return event


def encode_line(event: dict[str, Any]) -> bytes:
    """A raw event as one JSON line in UTF-8, with its LF."""
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def raw_lines(events: st.SearchStrategy[dict[str, Any]] | None = None, *, max_events: int = 20) -> st.SearchStrategy[list[bytes]]:
    """JSON lines (with their LF) of raw events, in arrival order."""
    return st.lists((raw_events() if events is None else events).map(encode_line), max_size=max_events)

"""Histories as data: a seed gives a script of steps; a script without some of its steps is a script too, so it can be shrunk."""

from __future__ import annotations

import json
from itertools import accumulate
from random import Random
from typing import Any, NamedTuple

from twofold.events import EMAIL_KINDS, MAX_FUTURE_MS
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS

#: 2025-01-01T12:00:00Z
START_MS = 1_735_732_800_000
PERSONS = ("user:1", "user:2", "anon:x")
WIDTHS_MS = (HOUR_MS, DAY_MS, 7 * DAY_MS, 30 * DAY_MS, 35 * DAY_MS, 40 * DAY_MS)


class Step(NamedTuple):
    """One operation of the world: its name, the seed of what it draws, how far time moves first, and what is sent."""

    op: str
    seed: int
    wait_ms: int
    values: tuple[tuple[int, bytes], ...] = ()

    def show(self) -> str:
        sent = "".join(f"\n      {PERSONS[person]} {value.decode(errors='replace')}" for person, value in self.values)
        return f"+{self.wait_ms} ms {self.op} ({self.seed}){sent}"


class Script(NamedTuple):
    """A whole history: how the log begins, and the steps."""

    seed: int
    partitions: int
    starts: tuple[int, ...]
    steps: tuple[Step, ...]


#: operation -> how often
WEIGHTS: dict[str, float] = {
    "send": 38,
    "speed": 10,
    "follow": 12,
    "flow": 9,
    "heal": 4,
    "beat": 6,
    "night": 12,
    "trim": 5,
    "refresh": 4,
    "pin": 3,
    "restart_follower": 2,
    "restart_speed": 2,
    "switch_version": 1,
    "refill": 1.5,
    "roll_back": 1.5,
    "grow": 1.5,
    "recreate": 0.5,
    "adopt": 1,
    "retain": 1.5,
}
#: type of event -> how often; name of a track event -> how often
KINDS: dict[str, float] = {"page": 15, "track": 45, "email": 15, "identify": 13, "consent": 9, "group": 3, "retraction": 14}
TRACKS: dict[str, float] = {
    "Product Viewed": 2,
    "Product Added": 1,
    "Product Removed": 0.5,
    "Order Completed": 2,
    "Order Refunded": 1,
}
PRODUCTS = "abcdefghij"
#: The last one is none.
ZONES = ("Europe/Berlin", "America/New_York", "Asia/Kolkata", "Australia/Lord_Howe", "Mars/Olympus")
_WAITS = (0, 0, 0, 1, 1, 900, 3_000, 20_000, MINUTE_MS, HOUR_MS, DAY_MS, 4 * DAY_MS, 12 * DAY_MS)


class Habits(NamedTuple):
    """How one history draws its events: kinds, names of track events (name -> cumulative weight), persons (weights)."""

    kinds: dict[str, float]
    tracks: dict[str, float]
    persons: tuple[int, ...]


def _habits(rng: Random, weights: dict[str, float]) -> dict[str, float]:
    """Each name with its cumulative weight, the weights bent up or down in every second history."""
    factors = rng.choice(((1,), (0.2, 1, 1, 4)))
    bent = accumulate(weight * (1 if name == "send" else rng.choice(factors)) for name, weight in weights.items())
    return dict(zip(weights, bent, strict=True))


def _pick(rng: Random, cumulative: dict[str, float]) -> str:
    return rng.choices(tuple(cumulative), cum_weights=tuple(cumulative.values()))[0]


def draw_script(seed: int, steps: int = 30) -> Script:
    """The history of a seed: about ``steps`` steps, a few dozen entries, mostly of three persons."""
    rng = Random(seed)
    partitions = rng.choice((1, 2, 3, 3))
    drawn: list[Step] = []
    sent: list[tuple[int, dict[str, Any]]] = []
    now_ms = START_MS
    # Every history has its own habits, so that what is rare in one is common in another.
    ops = _habits(rng, WEIGHTS)
    habits = Habits(_habits(rng, KINDS), _habits(rng, TRACKS), rng.choice(((5, 3, 2), (9, 1, 1))))
    for number in range(rng.randrange(steps // 2, steps + steps // 2)):
        op = "send" if number == 0 else _pick(rng, ops)
        wait_ms = rng.choice(_WAITS)
        now_ms += wait_ms
        values = _draw_values(rng, now_ms, sent, habits) if op == "send" else ()
        drawn.append(Step(op, rng.getrandbits(32), wait_ms, values))
    return Script(seed, partitions, tuple(rng.choice((0, 0, 5)) for _ in range(partitions)), tuple(drawn))


def _when(rng: Random, now_ms: int) -> int:
    choice = rng.random()
    if choice < 0.4:
        return now_ms - rng.choice((0, 1, 5, 1000, rng.randrange(3 * HOUR_MS), rng.randrange(2 * DAY_MS)))
    if choice < 0.6:
        return now_ms - rng.choice(WIDTHS_MS) + rng.choice((-1, 0, 1))
    if choice < 0.66:
        # Around the edge of `future`, so that the broker's time and nobody's clock must decide.
        return now_ms + MAX_FUTURE_MS + rng.choice((-1500, -1, 0, 1, 700, 30_000))
    if choice < 0.9:
        return now_ms - rng.randrange(100 * DAY_MS)
    # Few distinct instants, so that ties are common; some as far apart as a visit may just not be.
    return START_MS - rng.choice((1, 2, 3, 50)) * DAY_MS + rng.choice((0, 0, 0, 30 * MINUTE_MS))


def _draw_values(rng: Random, now_ms: int, sent: list[tuple[int, dict[str, Any]]], habits: Habits) -> tuple[tuple[int, bytes], ...]:
    values = [_draw_value(rng, now_ms, sent, habits) for _ in range(rng.choice((1, 2, 3, 5)))]
    if sent and rng.random() < 0.15:
        # An event of long ago and its re-stamped copy at once: in two partitions, either may turn out to be the first.
        person, event = sent[-1]
        event = {**event, "event_id": f"r{len(sent)}"}
        for at_ms in (now_ms - rng.randrange(36, 100) * DAY_MS, now_ms - rng.randrange(DAY_MS)):
            event = {**event, "occurred_at": at_ms}
            sent.append((person, event))
            values.append((person, json.dumps(event).encode()))
        if rng.random() < 0.5:
            values[-2:] = values[:-3:-1]
    return tuple(values)


def _draw_value(rng: Random, now_ms: int, sent: list[tuple[int, dict[str, Any]]], habits: Habits) -> tuple[int, bytes]:
    """(person number, bytes): a new event, a copy of an earlier one, or what admission rejects."""
    if sent and rng.random() < 0.28:
        # Often of a recent one: its copies then stand within one cut's broker time, in other partitions.
        person, event = rng.choice(sent[-5:] if rng.random() < 0.6 else sent)
        event = dict(event)
        change = rng.random()
        if change < 0.35:
            event["occurred_at"] = _when(rng, now_ms)
        if change > 0.25 and change < 0.6:
            changed = _draw_event(rng, habits, person, sent)
            event = {**changed, "event_id": event["event_id"], "occurred_at": event["occurred_at"]}
        if change > 0.9:
            event["properties"] = "rejected"
        _identify(rng, event, person)
    else:
        person = rng.choices(range(len(PERSONS)), habits.persons)[0]
        event = _draw_event(rng, habits, person, sent)
        # Of two digits, so that event ids do not sort as they arrive.
        event["event_id"] = f"e{rng.randrange(10, 99)}" if rng.random() < 0.8 else f"x{len(sent)}"
        event["occurred_at"] = _when(rng, now_ms)
        _identify(rng, event, person)
        reject = rng.random()
        if reject < 0.02:
            return person, b'{"broken'
        if reject < 0.06:
            del event[rng.choice(("event_id", "occurred_at", "type"))]
        else:
            sent.append((person, event))
    return person, json.dumps(event, ensure_ascii=False).encode()


def _identify(rng: Random, event: dict[str, Any], person: int) -> None:
    kind, who = PERSONS[person].split(":")
    event["user_id" if kind == "user" else "anonymous_id"] = int(who) if kind == "user" and rng.random() < 0.5 else who
    event["source_kind"] = rng.choice(("web", "crm"))
    event["context"] = {"device": {"type": rng.choice(("phone", "phone", "desktop", "tv"))}}


def _draw_event(rng: Random, habits: Habits, person: int, sent: list[tuple[int, dict[str, Any]]]) -> dict[str, Any]:
    kind = _pick(rng, habits.kinds)
    if kind == "retraction":
        return {"type": "retraction", "properties": {"target_event_id": _draw_target(rng, person, sent)}}
    if kind == "page":
        return {"type": "page", "properties": {"path": rng.choice("ab")}}
    if kind == "track":
        return {"type": "track", **_track(rng, _pick(rng, habits.tracks))}
    if kind == "email":
        name = rng.choice((*EMAIL_KINDS, "Email Sent", "Email Opened", "Email Link Clicked"))
        return {"type": "email", "name": name, "properties": {"campaign_id": rng.choice("kl"), "message_id": rng.choice("ghij")}}
    if kind == "identify":
        keys = rng.sample(("first_name", "locale", "country", "tier", "timezone"), rng.randrange(1, 4))
        return {"type": "identify", "traits": {key: rng.choice(ZONES if key == "timezone" else "mnop") for key in keys}}
    if kind == "consent":
        said = {"marketing": rng.choice(("granted", "granted", "granted", "denied"))}
        return {"type": "consent", "properties": {"purposes": said if rng.random() < 0.8 else {**said, "analytics": "denied"}}}
    return {"type": "group"}


def _draw_target(rng: Random, person: int, sent: list[tuple[int, dict[str, Any]]]) -> str:
    """Mostly one of the person's own events, retractions among them, some retracted before; or one still to come, or nothing."""
    own = [event for of, event in sent if of == person]
    choice = rng.random()
    if choice < 0.4 and own:
        # An old one is folded before the horizon, if a night has passed.
        return str(min(rng.sample(own, min(5, len(own))), key=lambda event: event["occurred_at"])["event_id"])
    if choice < 0.75 and own:
        return str(rng.choice(own[-6:])["event_id"])
    if choice < 0.85:
        # Perhaps of an event to come, or of another person's.
        return f"e{rng.randrange(10, 99)}"
    return rng.choice(sent)[1]["event_id"] if sent and choice < 0.95 else "nothing"


def _track(rng: Random, name: str) -> dict[str, Any]:
    if name in ("Product Viewed", "Product Added", "Product Removed"):
        properties: dict[str, Any] = {"product_id": rng.choice(PRODUCTS), "category": rng.choice("uvwxyz")}
        if name != "Product Viewed":
            properties["quantity"] = rng.choice((1, 1, 2, 3))
    else:
        items = [
            {"product_id": rng.choice(PRODUCTS), "quantity": rng.choice((1, 1, 2, 3, -2)), "price": 1}
            for _ in range(rng.choice((0, 1, 2, 7)))
        ]
        total = rng.choice((1, 2, "9.99", -1, 0))
        properties = {"total": total, "currency": rng.choice(("usd", "EUR", "JPY")), "products": items}
    return {"name": name, "properties": {key: value for key, value in properties.items() if rng.random() < 0.93}}

"""The SQL in duck.py equals the oracle, and both equal literals, before either judges the product."""

from __future__ import annotations

import json
from random import Random

import pytest

from tests.golden.duck import FEATURES, DuckLog, duck_values
from twofold.local.convert import convert_shop, write_jsonl
from twofold.testing import oracle
from twofold.timeline import DAY_MS

T = 1_735_732_800_000  # 2025-01-01T12:00:00Z
WINDOWS_MS = (7 * DAY_MS, 30 * DAY_MS)


def write(path, lines):
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def line(event_id, type_, at, name=None, properties=None, **who):
    event = {"event_id": event_id, "type": type_, "name": name, "occurred_at": at, "properties": properties}
    return json.dumps(event | (who or {"user_id": "1"}), ensure_ascii=False).encode()


def of_oracle(entries, t, persons=None):
    records = oracle.recompute_entries(entries, persons, t, [oracle.FILE_TOPIC])
    return {person: {feature: record["values"][feature] for feature in FEATURES} for person, record in records}


def test_literals(tmp_path):
    def order(event_id, at, total, *products, currency=None):
        items = [{"product_id": p, "quantity": q} for p, q in products]
        return line(event_id, "track", at, "Order Completed", {"total": total, "currency": currency, "products": items})

    path = write(
        tmp_path / "log.jsonl",
        [
            line("a", "page", T - 7 * DAY_MS),
            b"",
            line("a", "page", T - 1),  # a copy: loses
            line("b", "screen", "2025-01-01T13:59:59.9999+02:00"),  # T - 1, floored
            line("c", "page", T - 7 * DAY_MS - 1),
            line("d", "page", T),
            line("d", "page", T, anonymous_id="x"),
            line("e", "email", T - 5, "Email Sent"),
            line("f", "email", T - 5, "Email Opened"),
            order("g", T - 30 * DAY_MS, "10.005", ("p", 2), ("q", "3"), (None, 5)),
            order("h", T - 30 * DAY_MS - 1, -0.005, ("p", 1), ("r", -1), ("", 1)),
            order("i", T - 9, 12.5, ("s", None), ("q", 0), currency="jpy"),
            order("j", T - 8, None),
            line("k", "track", T - 8, "Order Completed", {"revenue": "1.0005", "currency": "KWD", "products": None}),
            line("l", "track", T - 8, "Order Refunded", {"total": "9"}),
            b"{broken",
            line(None, "page", T - 1),
            line("m", "page", "yesterday"),
            line("n", "pages", T - 1),
            line("o", "page", T - 1, user_id=None, anonymous_id=""),
        ],
    )
    assert duck_values(path, T) == {
        "anon:x": dict(zip(FEATURES, (0, 0, 0, {}, 0, [], 0, None), strict=True)),
        "user:1": dict(
            zip(
                FEATURES,
                (2, 5, 4, {"USD": 1000, "JPY": 13, "KWD": 1001}, 11, ["q", "p", "s"], 1, T - 8),
                strict=True,
            )
        ),
    }
    assert duck_values(path, T) == of_oracle(oracle.admit_lines(path.read_bytes().splitlines(keepends=True)), T)
    assert duck_values(path, T, ["nobody"]) == {"nobody": dict(zip(FEATURES, (0, 0, 0, {}, 0, [], 0, None), strict=True))}


def _generated(rng):
    """A small log of valid events with copies, ties, nulls, several currencies and quantities of every sign."""
    lines = []
    for n in range(220):
        at = T - rng.choice((0, 1, 5, 7 * DAY_MS, 30 * DAY_MS, rng.randrange(90 * DAY_MS))) + rng.choice((-1, 0, 1))
        who = rng.choice(({"user_id": "1"}, {"user_id": "2", "anonymous_id": "x"}, {"anonymous_id": "x"}, {"user_id": 3}))
        event_id = f"e{n if rng.random() < 0.9 else rng.randrange(n + 1)}"
        products = [
            {"product_id": rng.choice(("p", "q", "é", "\uffee", "😀", None)), "quantity": rng.choice((1, 2, "3", -2, 0, None))}
            for _ in range(rng.randrange(5))
        ]
        money = {
            "currency": rng.choice((None, "usd", "JPY", "KWD")),
            rng.choice(("total", "revenue")): rng.choice(("1.005", -1.005, 7, "0.0005", None)),
        }
        lines.append(
            rng.choice(
                (
                    line(event_id, "page", at, **who),
                    line(event_id, "track", at, "Order Completed", money | {"products": products}, **who),
                    line(event_id, "track", at, "Order Completed", money | {"products": products}, **who),
                    line(event_id, "track", at, "Order Refunded", {"total": "3"}, **who),
                    line(event_id, "email", at, rng.choice(("Email Sent", "Email Opened")), **who),
                    line(event_id, "retraction", at, None, {"target_event_id": f"e{rng.randrange(230)}"}, **who),
                )
            )
        )
    return lines


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_equal_to_the_oracle_on_generated_lines(tmp_path, seed):
    path = write(tmp_path / "log.jsonl", _generated(Random(seed)))
    entries = list(oracle.admit_lines(oracle.read_lines([path])))
    assert all(entry.verdict == "ok" for entry in entries)
    assert len(oracle.winners(entries, [oracle.FILE_TOPIC])) < len({(entry.person, entry.event_id) for entry in entries})
    log = DuckLog(path)
    for t in (T, T - 1, T + 1, T + 2, T - 7 * DAY_MS, T + 7 * DAY_MS, T + 30 * DAY_MS + 1, T + 400 * DAY_MS):
        assert log.values(t) == of_oracle(entries, t), t
    log.close()


def test_equal_to_the_oracle_on_the_simulated_shop(tmp_path):
    path = tmp_path / "shop.jsonl"
    write_jsonl(convert_shop(seed=7, persons=60, events=3_000), path)
    entries = list(oracle.admit_lines(oracle.read_lines([path])))
    assert {entry.verdict for entry in entries} > {"ok"}
    times = sorted(entry.at_ms for entry in entries if entry.at_ms is not None)
    edge = times[len(times) // 2]
    log = DuckLog(path)
    for t in (edge, edge + 1, times[-1] + 1, *(edge + width + nudge for width in WINDOWS_MS for nudge in (-1, 0, 1))):
        assert log.values(t) == of_oracle(entries, t), t
    log.close()

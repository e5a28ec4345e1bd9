"""Admission in plain Python, row by row of the contract: verdicts and facts written out by hand."""

from __future__ import annotations

import pytest

from twofold.events import EVENT_TYPES, FACT_KINDS, REASONS, Admission, FactBody, admit, decode_entry, encode_entry, make_entry
from twofold.testing import hostile
from twofold.testing.hostile_values import ABSENT, AT, BROKER_MS, Raw, event, order, track
from twofold.timeline import Position

AT_MS = BROKER_MS - 60_000


def verdict(value: bytes | None) -> str:
    return admit(value, BROKER_MS).verdict


def facts(value: bytes) -> tuple[FactBody, ...]:
    admission = admit(value, BROKER_MS)
    assert admission.verdict == "ok"
    return admission.facts


def test_an_ok_entry():
    assert admit(event(), BROKER_MS) == Admission("ok", "user:u-1", "e-1", AT_MS, "web", "phone", (FactBody("page", key="/home"),))


def test_a_rejected_entry_says_nothing_but_its_reason():
    assert admit(event(event_id=ABSENT), BROKER_MS) == Admission("missing_event_id")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "malformed"),
        (b"", "malformed"),
        (b"{}", "schema"),
        (b"null", "malformed"),
        (b"[" + event() + b"]", "malformed"),
        (b"\xef\xbb\xbf" + event(), "malformed"),
        (b" \r\n\t" + event() + b"\n", "ok"),
        (event() + b" x", "malformed"),
        (event() + event(), "malformed"),
        (event(extra=Raw("NaN")), "malformed"),
        (event(extra=Raw("-Infinity")), "malformed"),
        (event(extra=Raw("01")), "malformed"),
        (event(extra=Raw(r'"\ud800"')), "malformed"),
        (event(extra=Raw(r'"\ude00\ud83d"')), "malformed"),
        (event(extra=Raw(r'"\ud83d\ude00"')), "ok"),
        (event(extra=Raw(r'"\\ud800"')), "ok"),
        (event().replace(b"/home", b"\xff"), "malformed"),
        (event().replace(b"/home", b"\xed\xa0\x80"), "malformed"),
        (event(extra=Raw('{"a":1,"a":1}')), "malformed"),
        (event(extra=Raw(r'[{"a":1,"\u0061":1}]')), "malformed"),
        (event(extra=Raw("[" * 99 + "]" * 99)), "ok"),
        (event(extra=Raw("[" * 100 + "]" * 100)), "malformed"),
        (event(extra=Raw("1" * 1_000)), "ok"),
        (event(extra=Raw("1" * 1_001)), "malformed"),
        (event(extra=Raw("-" + "1" * 1_000)), "malformed"),
        (event(extra={"n" * 50_000: 1}), "ok"),
        (event(extra={"n" * 50_001: 1}), "malformed"),
        (event(extra={"😀" * 25_000: 1}), "ok"),
        (event(extra={"😀" * 25_001: 1}), "malformed"),
        (b"{'a':1}", "malformed"),
        # one reason before the next
        (b"x" * (1 << 20), "malformed"),
        (b"x" * ((1 << 20) + 1), "oversize"),
        (order(*[{"product_id": "p"}] * 999), "ok"),
        (order(*[{"product_id": "p"}] * 1_000), "oversize"),
        (order(*[True] * 1_000), "oversize"),
        (event(type="identify", traits={f"t{i}": 1 for i in range(1_001)}, event_id=ABSENT), "oversize"),
        (event(properties={"path": "x" * (512 * 1024 - len("user:u-1e-1webphonepage"))}), "ok"),
        (event(properties={"path": "x" * (512 * 1024 - len("user:u-1e-1webphonepage") + 1)}), "oversize"),
        (event(type="nope", event_id=ABSENT), "schema"),
        (event(event_id=ABSENT, user_id=ABSENT), "missing_event_id"),
        (event(user_id=ABSENT, occurred_at=5), "missing_identity"),
        (event(occurred_at=5), "bad_time"),
        (event(occurred_at=ABSENT), "bad_time"),
        (event(occurred_at=None), "bad_time"),
        (event(occurred_at=BROKER_MS + 300_000), "ok"),
        (event(occurred_at=BROKER_MS + 300_001), "future"),
        # envelope
        (event(type="track"), "schema"),
        (event(type="email", name=None), "schema"),
        (event(type="Page"), "schema"),
        (event(type=5), "schema"),
        (event(properties=[]), "schema"),
        (event(traits="x"), "schema"),
        (event(context=5), "schema"),
        (event(properties=None, traits=None, context=None), "ok"),
        (event(context={"device": "phone"}), "ok"),
        (event(context={"device": {"type": True}}), "schema"),
        (event(name=1.5), "schema"),
        (event(source_kind=["web"]), "schema"),
        # ids
        (event(event_id=""), "missing_event_id"),
        (event(event_id="x" * 100), "ok"),
        (event(event_id="x" * 101), "schema"),
        (event(user_id="😀" * 100), "ok"),
        (event(user_id=Raw(r'"a\u0000"')), "schema"),
        (event(user_id=Raw("1.0")), "schema"),
        (event(user_id=True, anonymous_id="a"), "schema"),
        (event(user_id="", anonymous_id=""), "missing_identity"),
        # judged even where a fallback wins, and only where the table names it
        (event(properties={"path": "/", "url": 1.5}), "schema"),
        (track("Order Completed", total=1, revenue=True), "schema"),
        (track("Order Refunded", total=1, revenue=True), "ok"),
        (event(properties={"path": "/", "products": 5, "product_id": True}), "ok"),
        (track("Product Added", quantity="1.0"), "schema"),
        (track("Product Added", quantity=Raw("1.0")), "schema"),
        (track("Product Added", quantity=10**9 + 1), "schema"),
        (track("Product Added", quantity=-(10**9)), "ok"),
        (order(None), "schema"),
        (track("Order Completed", products={}), "schema"),
        (order({"price": True}), "schema"),
        (order({"currency": True}), "ok"),
        (order(currency="eu"), "schema"),
        (order(currency=""), "schema"),
        (order(total=Raw("1e3")), "schema"),
        (order(total="1,5"), "schema"),
        (order(total="9" * 15), "schema"),
        (order(total="10000000000000"), "ok"),
        (order(total="10000000000000.01"), "schema"),
        (event(type="consent", properties={"purposes": ["marketing"]}), "schema"),
    ],
)
def test_verdicts(value, expected):
    assert verdict(value) == expected


@pytest.mark.parametrize(
    ("text", "at_ms"),
    [
        (AT, AT_MS),
        ("1990-01-01T00:00:00Z", 631_152_000_000),
        ("1989-12-31T23:59:59.999Z", None),
        ("2024-02-29T12:00:00.1239+05:30", 1_709_188_200_123),
        ("2026-02-29T00:00:00Z", None),
        ("2026-04-31T00:00:00Z", None),
        ("2026-05-31T00:00:00-00:30", BROKER_MS - 86_400_000 + 1_800_000),
        ("2026-05-31T00:00:00+18:00", BROKER_MS - 86_400_000 - 64_800_000),
        ("2026-05-31T00:00:00+18:01", None),
        ("2026-05-31T23:59:60Z", None),
        ("2026-05-31T24:00:00Z", None),
        ("2026-05-31t00:00:00Z", None),
        ("2026-05-31T00:00:00", None),
        ("T12:00:00Z", None),
        (BROKER_MS, BROKER_MS),
        (str(BROKER_MS), None),
        (Raw(f"{BROKER_MS}.0"), None),
    ],
)
def test_times(text, at_ms):
    admission = admit(event(occurred_at=text), BROKER_MS)
    assert (admission.verdict, admission.at_ms) == (("ok", at_ms) if at_ms is not None else ("bad_time", None))


def test_order_facts():
    products = [
        {"product_id": 7, "category": "c", "quantity": "2", "price": "3.335"},
        {"product_id": "", "price": Raw("-0.005"), "quantity": -1},
        {},
    ]
    assert facts(order(*products, order_id=12, total=ABSENT, revenue=Raw("10.005"), currency="eur")) == (
        FactBody("order", key="12", amount_minor=1001, currency="EUR"),
        FactBody("purchase", product="7", category="c", quantity=2, amount_minor=334, currency="EUR"),
        FactBody("purchase", quantity=-1, amount_minor=-1, currency="EUR"),
        FactBody("purchase", quantity=1, currency="EUR"),
    )


@pytest.mark.parametrize(
    ("currency", "amount", "minor"),
    [
        ("JPY", "10.5", 11),
        ("jpy", "-10.5", -11),
        ("BHD", "1.0005", 1001),
        ("CLF", "1.00005", 10001),
        (None, "0.145", 15),
        ("zzz", "1", 100),
    ],
)
def test_minor_units(currency, amount, minor):
    (fact,) = facts(track("Order Cancelled", total=Raw(amount), currency=currency))
    assert (fact.kind, fact.amount_minor, fact.currency) == ("refund", minor, (currency or "USD").upper())


def test_traits_and_consent():
    traits = {"b": Raw("1.50"), "a": True, "z": None, "😀": "y", "\uffff": "x", "": "", "e": Raw("1e3"), "o": {}, "n": Raw("-0.0")}
    assert facts(event(type="identify", traits=traits)) == tuple(
        FactBody("trait", key=key, value=value)
        for key, value in [("", ""), ("a", "true"), ("b", "1.5"), ("n", "0"), ("\uffff", "x"), ("😀", "y")]
    )
    purposes = {"marketing": "granted", "ads": "Granted", "calls": None, "mail": ["granted"]}
    assert facts(event(type="consent", properties={"purposes": purposes})) == tuple(
        FactBody("consent", key=key, value=value)
        for key, value in [("ads", "denied"), ("calls", "denied"), ("mail", "denied"), ("marketing", "granted")]
    )


@pytest.mark.parametrize("type_", EVENT_TYPES)
def test_no_silent_entry(type_):
    properties = {"target_event_id": "e-0"} if type_ == "retraction" else ABSENT
    (fact,) = facts(event(type=type_, name="n", properties=properties, traits=ABSENT))
    named = {"page": ("page",), "screen": ("page",), "track": ("custom",), "retraction": ("retraction",)}
    assert fact.kind in named.get(type_, ("other",))


@pytest.mark.parametrize(("target", "key"), [("e-0", "e-0"), (7, "7"), (0, "0"), ("x" * 101, "x" * 101), (" ", " ")])
def test_a_retraction_names_its_target(target, key):
    (fact,) = facts(event(type="retraction", properties={"target_event_id": target}))
    assert fact == FactBody("retraction", key=key)


@pytest.mark.parametrize("properties", [ABSENT, {}, *({"target_event_id": t} for t in (None, "", 1.5, True, [], {}, ["e-0"]))])
def test_a_retraction_without_a_target_is_rejected(properties):
    assert admit(event(type="retraction", properties=properties), BROKER_MS).verdict == "schema"


def test_kinds_that_came_later_have_later_codes():
    assert FACT_KINDS[-2:] == ("other", "retraction")


def test_the_message_of_an_entry():
    entry = make_entry("1/x", Position("topic", 3, 9), BROKER_MS, event())
    assert decode_entry(encode_entry(entry)) == entry
    assert encode_entry(make_entry("1/x", Position("topic", 3, 10), 5, None)) == (
        b'{"version":"1/x","topic_id":"topic","partition":3,"offset":10,"broker_ms":5,"verdict":"malformed"}'
    )


def test_the_corpus_reaches_every_verdict():
    corpus = hostile.corpus()
    assert len(corpus) >= 300
    assert {verdict(value) for _name, value in corpus} == {"ok", *REASONS}

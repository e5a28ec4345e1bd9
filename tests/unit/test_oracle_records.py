"""The oracle's records against literals worked out by hand: which copy wins, may we send, next change, lines to records."""

from __future__ import annotations

import itertools
import json

import pytest

from tests.unit.histories import EMPTY, T, each, entry, value
from twofold.errors import UsageError
from twofold.events import Entry, FactBody
from twofold.families import FAMILIES
from twofold.testing import oracle
from twofold.timeline import DAY_MS, HOUR_MS, LATEST_MS, Offsets, PartitionKey


# --- who wins ---------------------------------------------------------------------------------------------------------
def page(event_id, *, n=1, **where):
    """A copy that tells by its number of facts that it won."""
    return entry(event_id, T - 10, *[FactBody("page")] * n, **where)


def winning(entries, order=("T", "U")):
    return {(e.person, e.event_id): len(e.facts) for e in oracle.winners(entries, order)}


def test_the_first_copy_by_broker_time_topic_partition_offset_wins_whole():
    at = T - 5
    ranked = [
        page("e", n=1, broker_ms=at - 1, topic="U", partition=3, offset=9),
        page("e", n=2, broker_ms=at, topic="T", partition=0, offset=8),
        page("e", n=3, broker_ms=at, topic="T", partition=0, offset=9),
        page("e", n=4, broker_ms=at, topic="T", partition=1, offset=0),
        page("e", n=5, broker_ms=at, topic="U", partition=0, offset=0),
        page("e", n=6, broker_ms=at + 1, topic="T", partition=0, offset=0),
    ]
    for start in range(len(ranked)):
        for order in itertools.permutations(ranked[start:], min(3, len(ranked) - start)):
            assert winning(order) == {("user:1", "e"): min(len(e.facts) for e in order)}
    assert winning([ranked[1], ranked[4]], ("U", "T")) == {("user:1", "e"): 5}


def test_a_rejected_copy_never_wins_and_other_persons_keep_their_own():
    rejected = Entry("1/x", "T", 0, 1, T - 100, "schema", "user:1", "e")
    bare = Entry("1/x", "T", 0, 2, T - 100, "malformed")
    assert winning([rejected, bare, page("e", n=2), page("e", n=3, person="user:2")]) == {("user:1", "e"): 2, ("user:2", "e"): 3}
    assert winning([rejected, bare]) == {}


def test_one_position_is_one_entry_and_other_ids_are_other_entries():
    twice = page("e", offset=7)
    assert winning([twice, twice]) == {("user:1", "e"): 1}
    assert value("page_views_1h", oracle.winners([twice, page("f"), twice], ["T"])) == 2


def test_duplicates_with_another_body_another_time_another_kind():
    first = entry("e", T - 40 * DAY_MS, FactBody("order", amount_minor=100, currency="USD"), broker_ms=T - 2)
    other = entry(
        "e", T - 1, FactBody("order", amount_minor=900, currency="EUR"), FactBody("purchase", quantity=5), broker_ms=T - 1
    )
    third = entry("e", T - 1, FactBody("page"), broker_ms=T)
    found = oracle.values(oracle.winners([third, other, first], ["T"]), T)
    assert found["revenue_lifetime"] == {"USD": 100}
    assert (found["orders_30d"], found["units_30d"], found["page_views_1h"]) == (0, 0, 0)


def test_an_unknown_topic_is_refused_by_name():
    with pytest.raises(UsageError, match="'V'"):
        oracle.winners([page("e", topic="V")], ["T"])


def test_values_refuse_two_copies_of_one_event():
    with pytest.raises(AssertionError, match="twice"):
        oracle.values([page("e"), page("e")], T)


# --- sendable ---------------------------------------------------------------------------------------------------------
def consent(event_id, at, value, key="marketing"):
    return entry(event_id, at, FactBody("consent", key=key, value=value))


UNSUBSCRIBED, COMPLAINED = FactBody("email_unsubscribed"), FactBody("email_complained")


@pytest.mark.parametrize(
    ("history", "reasons"),
    [
        ([], ["consent_missing"]),
        ([consent("a", T - 9, "granted")], []),
        ([consent("a", T, "granted")], ["consent_missing"]),
        ([consent("a", T - 9, "granted", key="analytics")], ["consent_missing"]),
        ([consent("a", T - 9, "denied")], ["consent_denied"]),
        ([consent("a", T - 9, "denied"), consent("b", T - 8, "granted")], []),
        ([consent("a", T - 9, "granted"), consent("b", T - 8, "denied")], ["consent_denied"]),
        # the same millisecond: the opt-out wins whatever the ids say
        ([consent("a", T - 9, "denied"), consent("b", T - 9, "granted")], ["consent_conflicting"]),
        ([consent("a", T - 9, "granted"), consent("b", T - 9, "denied")], ["consent_denied"]),
        ([consent("a", T - 9, "denied", key="other"), consent("b", T - 9, "granted")], []),
        ([consent("a", T - 9, "granted"), entry("u", T - 10, UNSUBSCRIBED)], []),
        ([consent("a", T - 9, "granted"), entry("u", T - 9, UNSUBSCRIBED)], ["unsubscribed"]),
        ([consent("a", T - 9, "granted"), entry("u", T - 1, UNSUBSCRIBED)], ["unsubscribed"]),
        ([consent("a", T - 9, "granted"), entry("u", T, UNSUBSCRIBED)], []),
        ([consent("a", T - 9, "granted"), entry("c", T - 9, COMPLAINED)], ["complained"]),
        ([consent("a", T - 9, "granted"), entry("c", T - 10, COMPLAINED)], []),
        ([entry("u", T - 9, UNSUBSCRIBED), consent("a", T - 5, "granted")], []),
        ([entry("u", T - 9, UNSUBSCRIBED), entry("c", T - 9, COMPLAINED)], ["consent_missing", "unsubscribed", "complained"]),
        (
            [consent("a", T - 9, "denied"), entry("u", T - 10, UNSUBSCRIBED), entry("c", T - 9, COMPLAINED)],
            ["consent_denied", "complained"],
        ),
        (
            [consent("a", T - 9, "granted"), consent("0", T - 9, "denied"), entry("u", T - 9, UNSUBSCRIBED)],
            ["consent_conflicting", "unsubscribed"],
        ),
    ],
)
def test_sendable_is_a_whitelist_with_its_reasons(history, reasons):
    assert oracle.sendable(history, T) == {"ok": not reasons, "reasons": reasons}
    assert oracle.sendable(history[::-1], T) == {"ok": not reasons, "reasons": reasons}


# --- next change ------------------------------------------------------------------------------------------------------
def test_next_change_is_one_after_an_event_or_one_after_its_window():
    at = T - 10 * DAY_MS
    page_at = each("page", at)
    assert oracle.next_change_at(page_at, at - 5) == at + 1
    assert oracle.next_change_at(page_at, at) == at + 1
    assert oracle.next_change_at(page_at, at + 1) == at + HOUR_MS + 1
    assert oracle.next_change_at(page_at, at + HOUR_MS + 1) == at + DAY_MS + 1
    assert oracle.next_change_at(page_at, T) == at + 30 * DAY_MS + 1
    assert oracle.next_change_at(page_at, at + 30 * DAY_MS + 1) is None
    assert oracle.next_change_at(each("consent", at, key="other", value="granted"), at) is None


# --- lines to records -------------------------------------------------------------------------------------------------
def line(event_id, type_, at_ms, user="1", **more):
    return json.dumps({"event_id": event_id, "type": type_, "user_id": user, "occurred_at": at_ms, **more}).encode() + b"\n"


LINES = [
    line("a", "page", T - 5),
    b"\n",
    b"{broken\n",
    line("a", "page", T - 4, context={"device": {"type": "tv"}}),
    line("b", "track", T - 3, user="2", name="Order Completed", properties={"total": "12.345", "currency": "eur"}),
    line("c", "page", T - 2)[:-1],
]


def test_records_of_lines_have_the_shape_of_the_command():
    found = dict(oracle.recompute_lines(LINES, None, T))
    assert list(found) == ["user:1", "user:2"]
    record = found["user:2"]
    assert list(record) == ["person", "values", "sendable", "fields", "freshness"]
    own = {name for family in FAMILIES.values() for name in family.told}
    assert {**record, "values": {name: value for name, value in record["values"].items() if name not in own}} == {
        "person": "user:2",
        "values": {name: value for name, value in EMPTY.items() if name not in own}
        | {"orders_lifetime": 1, "orders_30d": 1, "first_order_at": T - 3, "last_order_at": T - 3}
        | {"revenue_lifetime": {"EUR": 1235}, "average_order": {"EUR": 1235}},
        "sendable": {"ok": False, "reasons": ["consent_missing"]},
        "fields": dict.fromkeys(EMPTY, "exact"),
        "freshness": {"state": "oracle", "t": T},
    }
    assert found["user:1"]["values"]["page_views_1h"] == 2


def test_named_persons_in_their_order_an_unknown_one_gets_the_default():
    found = list(oracle.recompute_lines(LINES, ["user:2", "nobody"], T))
    assert [person for person, _record in found] == ["user:2", "nobody"]
    assert found[1][1]["values"] == EMPTY


def test_lines_stand_at_the_index_of_the_non_empty_line():
    admitted = list(oracle.admit_lines(LINES))
    assert [(e.topic_id, e.partition, e.offset, e.broker_ms) for e in admitted] == [("file", 0, n, LATEST_MS) for n in range(5)]
    assert [e.verdict for e in admitted] == ["ok", "malformed", "ok", "ok", "ok"]
    # at a real broker time, an event from later than five minutes after it is rejected
    assert [e.verdict for e in oracle.admit_lines([line("x", "page", T)], broker_ms=T - 300_001)] == ["future"]
    # the broker time decides between copies before the offset does
    pages = [line("a", "page", T - 5), line("a", "page", T - 2 * DAY_MS)]
    (record,) = dict(oracle.recompute_lines(pages, None, T, broker_ms=lambda offset: T - offset)).values()
    assert (record["values"]["page_views_1h"], record["values"]["page_views_7d"]) == (0, 1)


def test_upto_bounds_the_log_half_open_per_partition():
    entries = [page("a", offset=4), page("b", offset=5), page("c", partition=1, offset=0)]

    def counted(ends):
        upto = Offsets({PartitionKey("T", partition): end for partition, end in ends.items()})
        return {p: r["values"]["page_views_1h"] for p, r in oracle.recompute_entries(entries, None, T, ["T"], upto=upto)}

    assert counted({0: 4}) == {}
    assert counted({0: 5}) == {"user:1": 1}
    assert counted({0: 6, 1: 1}) == {"user:1": 3}


def test_a_record_is_the_same_in_any_order_of_entries():
    entries = list(oracle.admit_lines(LINES))
    expected = list(oracle.recompute_entries(entries, None, T, ["file"]))
    for order in itertools.permutations(entries):
        assert list(oracle.recompute_entries(order, None, T, ["file"])) == expected


def test_files_are_read_in_turn_and_a_missing_one_is_named(tmp_path):
    first, second = tmp_path / "1.jsonl", tmp_path / "2.jsonl"
    first.write_bytes(b"a\r\nb\x0bc\n\nd")
    second.write_bytes(b"e\n")
    assert list(oracle.read_lines([first, second])) == [b"a\r\n", b"b\x0bc\n", b"\n", b"d\n", b"e\n"]
    with pytest.raises(UsageError, match=r"3\.jsonl"):
        list(oracle.read_lines([tmp_path / "3.jsonl"]))

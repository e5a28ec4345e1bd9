"""The judges of a run, on a log by hand: silent where all is right, and one line for each thing that is not."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.chaos.reads import Read, wrong_reads
from tests.chaos.verdict import missing_lines, unequal_counts, unequal_ledger
from twofold.audit import Served
from twofold.catalogue import VERSION
from twofold.events import Entry, make_entry
from twofold.testing.oracle import record_of, winners
from twofold.timeline import Position

T0 = 1_735_732_800_000
CONSENT_MAX_LAG_MS = 60_000


def _event(number: int, person: str, **more: Any) -> bytes:
    event = {
        "event_id": f"e{number}",
        "type": "page",
        "name": "Home",
        "source_kind": "web",
        "occurred_at": T0 + number,
        "user_id": person,
    }
    return json.dumps({**event, **more}).encode()


def _consent(number: int, person: str, said: str) -> bytes:
    return _event(number, person, type="consent", name=None, properties={"purposes": {"marketing": said}})


VALUES = (
    _event(0, "a"),
    _consent(1, "a", "granted"),
    _event(2, "b"),
    b"{",
    _event(4, "a"),
    _event(0, "a"),
    _consent(6, "a", "denied"),
)
LOG = [make_entry(VERSION, Position("t", 0, place), T0 + place * 100_000, value) for place, value in enumerate(VALUES)]


def _served(upto: int, t: int, state: str = "fresh", **more: Any) -> Served:
    """A's record over the first ``upto`` entries, as it should be but for ``more`` of its values."""
    values = record_of("user:a", winners([e for e in LOG[:upto] if e.person == "user:a"], ["t"]), t)["values"]
    high = {"t": {"0": upto}}
    return Served(
        person="user:a",
        t=t,
        served_ms=t,
        snapshot="s0",
        seq=0,
        cut={},
        high=high,
        version=VERSION,
        installed=VERSION,
        state=state,
        values={**values, **more},
    )


def _wrong(*reads: Read) -> list[str]:
    return wrong_reads(reads, LOG, ["t"], CONSENT_MAX_LAG_MS)


def test_a_read_is_held_to_its_own_offsets_and_not_to_the_whole_log() -> None:
    reads = [Read(_served(upto, T0 + 700_000), False, 0) for upto in range(len(LOG) + 1)]
    assert _wrong(*reads) == []
    (line,) = _wrong(Read(_served(3, T0 + 700_000, page_views_30d=7), False, 0))
    assert "page_views_30d was 7, is 1" in line


def test_a_field_that_is_not_called_exact_may_differ() -> None:
    served = _served(3, T0 + 700_000, page_views_30d=7)
    told = Served(
        **{**{name: getattr(served, name) for name in served.__struct_fields__}, "inexact": {"page_views_30d": "conflict"}}
    )
    assert _wrong(Read(told, False, 0)) == []


def test_permission_holds_at_its_offsets_and_against_what_was_long_known() -> None:
    granted, denied = LOG[1].broker_ms, LOG[6].broker_ms
    assert _wrong(Read(_served(2, granted + 1_000), True, 0)) == []
    # The denial is in the log, but no longer than consent may lag.
    assert _wrong(Read(_served(6, denied + 50_000, "stale"), True, 50_000)) == []
    assert "against its own offsets: ['consent_denied']" in _wrong(Read(_served(7, denied + 1_000), True, 0))[0]
    (line,) = _wrong(Read(_served(6, denied + 90_000), True, 0))
    assert "against what was known: ['consent_denied']" in line


@pytest.mark.parametrize(("state", "lag_ms"), [("batch_only", None), ("gap", 0), ("stale", 60_001), ("stale", None)])
def test_permission_of_a_record_that_may_not_give_any_is_wrong(state: str, lag_ms: int | None) -> None:
    (line,) = _wrong(Read(_served(2, LOG[1].broker_ms + 1_000, state), True, lag_ms))
    assert f"sendable at a lag of {lag_ms} ms" in line


def test_an_acknowledged_line_is_in_the_log_and_nothing_else_is() -> None:
    sent = [b"a", b"b", b"b", b"c"]
    assert missing_lines(sent, [b"c", b"b", b"a", b"b", b"a"]) == []
    assert len(missing_lines(sent, [b"a", b"b", b"c"])) == 1
    assert missing_lines(sent, [b"a", b"b", b"b", b"c", b"d"]) == ["in the log and never sent: b'd'"]


def _rows(log: list[Entry]) -> list[dict[str, Any]]:
    names = ("topic_id", "partition", "offset", "verdict", "person", "event_id")
    return [{name: getattr(entry, name) for name in names} for entry in log]


def test_the_ledger_balances_or_says_where_it_does_not() -> None:
    rows = _rows(LOG)
    assert unequal_ledger(LOG, rows, [*LOG, LOG[2]]) == []
    assert "archive holds" in unequal_ledger(LOG, [*rows, rows[3]], LOG)[0]
    assert "archive lacks" in unequal_ledger(LOG, rows[:-1], LOG)[0]
    assert "which the log does not" in unequal_ledger(LOG[:-1], rows, LOG[:-1])[0]
    assert "archive says" in unequal_ledger(LOG, [{**rows[0], "verdict": "schema"}, *rows[1:]], LOG)[0]
    assert "facts lacks" in unequal_ledger(LOG, rows, LOG[1:])[0]
    other = make_entry(VERSION, LOG[0].position, LOG[0].broker_ms, VALUES[2])
    assert "facts says otherwise" in unequal_ledger(LOG, rows, [other, *LOG])[0]


def test_entries_are_ok_and_rejected_by_reason() -> None:
    counts = {"entries": 7, "ok": 6, "rejected": 1, "rejected_malformed": 1, "duplicates": 1, "persons": 2, "facts": 5}
    assert unequal_counts(LOG, counts) == []
    assert len(unequal_counts(LOG, {**counts, "ok": 5})) == 2
    assert len(unequal_counts(LOG, {**counts, "rejected_malformed": 0, "rejected_schema": 1})) == 1

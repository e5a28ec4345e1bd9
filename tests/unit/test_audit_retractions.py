"""The audit and retractions: what a record had not read yet is lag or late, what waits for the night is held to nothing; no bug."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests.unit.manifests import TOPIC
from tests.unit.served_home import EVERYONE, HOUR, Home, order, sent, view
from twofold.events import Entry
from twofold.timeline import DAY_MS, HOUR_MS, MINUTE_MS, Position


def taken_back(target: str) -> dict:
    return {"type": "retraction", "properties": {"target_event_id": target}}


def home_of(folder: Path, *pairs: tuple[Entry, bytes]) -> Home:
    return Home(folder, [entry for entry, _ in pairs], {entry.position: value for entry, value in pairs}, audit=EVERYONE)


@pytest.mark.parametrize(("came", "verdict"), [(HOUR[4], "lag"), (HOUR[7], "late")])
@pytest.mark.parametrize("before_ms", [-MINUTE_MS, 2 * HOUR_MS, 30 * DAY_MS])
def test_a_retraction_that_a_record_had_not_yet_is_lag_or_late_and_no_bug(
    tmp_path: Path, came: int, verdict: str, before_ms: int
) -> None:
    """It acts at every t, so its own time, which may lie after t, plays no part in the audit either."""
    own_time = came - before_ms
    home = home_of(
        tmp_path,
        sent(0, HOUR[1], HOUR[1], order("5.00", "EUR")),
        sent(1, HOUR[2], HOUR[2], order("7.50", "EUR")),
        # Of nothing; of what counts; once more, by an entry that has the very id that it takes back.
        sent(2, own_time, came, taken_back("nothing")),
        sent(3, own_time, came, taken_back("e1")),
        sent(1, own_time, came + 5, taken_back("e1")),
    )
    home.log[4] = msgspec.structs.replace(home.log[4], offset=4)
    home.values[home.log[4].position] = home.values.pop(Position(TOPIC, 0, 1))
    home.values[home.log[1].position] = sent(1, HOUR[2], HOUR[2], order("7.50", "EUR"))[1]
    home.archive(2)
    home.night(1)
    home.follow(2)
    home.now = HOUR[5]
    home.serve(["user:1"], HOUR[3])
    home.archive(5)
    home.follow(5)
    home.now = HOUR[8]
    home.serve(["user:1"], HOUR[3])
    audited = home.audit()
    (judged,) = audited.worst
    assert (judged.verdict, judged.wrong) == (verdict, {})
    shift = judged.lag or judged.late
    assert (shift.entries, shift.ms) == (1, abs(HOUR[5] - came))
    assert shift.features["orders_lifetime"] == -1 and shift.features["revenue_lifetime"] == {"EUR": -750}
    # What has folded it is equal.
    assert (audited.report.summary.bugs, audited.report.summary.equal) == (0, 1)


def test_an_event_that_lagged_and_was_taken_back_later_is_both(tmp_path: Path) -> None:
    home = home_of(
        tmp_path,
        sent(0, HOUR[1], HOUR[1], order("5.00", "EUR")),
        sent(1, HOUR[2], HOUR[2], order("7.50", "EUR")),
        sent(2, HOUR[6], HOUR[6], taken_back("e1")),
    )
    home.follow(1)
    home.now = HOUR[5]
    home.serve(["user:1"])
    home.archive(3)
    home.night(3)
    (judged,) = home.audit().worst
    assert judged.verdict == "lag" and judged.wrong == {}
    assert (judged.lag.entries, judged.lag.ms, judged.lag.features["orders_lifetime"]) == (1, 3 * HOUR_MS, 1)
    assert (judged.late.entries, judged.late.ms, judged.late.features["orders_lifetime"]) == (1, HOUR_MS, -1)


def test_a_field_that_waits_for_a_retraction_is_held_to_nothing_and_all_others_are(tmp_path: Path) -> None:
    """The order is folded before the horizon: until the night it counts, and the record says so."""
    home = home_of(
        tmp_path,
        sent(0, HOUR[1] - 90 * DAY_MS, HOUR[1], order("5.00", "EUR")),
        sent(1, HOUR[2], HOUR[2], view("p1", "c1")),
        sent(2, HOUR[3], HOUR[3], taken_back("e0")),
    )
    home.archive(2)
    home.night(2)
    home.archive(3)
    home.follow(3)
    home.now = HOUR[5]
    home.serve(["user:1"])
    (line,) = home.lines()
    assert line["values"]["orders_lifetime"] == 1 and line["inexact"]["orders_lifetime"] == "pending_retraction"
    found = home.audit(again=True)
    summary = found.report.summary
    assert (summary.judged, summary.bugs, summary.equal) == (1, 0, 1)
    assert summary.inexact_fields == len(line["inexact"]) > 0
    # A field that does not wait is held to the log beside those that do.
    home.alter(0, lambda line: line["values"].update(product_views_30d=7))
    (judged,) = home.audit(again=True).worst
    assert judged.wrong == {"product_views_30d": 6}
    # Served without a word of it, the same values are wrong.
    home.alter(0, lambda line: line.update(inexact={}))
    (judged,) = home.audit(again=True).worst
    assert judged.verdict == "bug" and judged.wrong["orders_lifetime"] == 1
    home.alter(0, lambda old: old.update(line))
    home.audit()
    home.night(3)
    home.serve(["user:1"])
    summary = home.audit().report.summary
    assert (summary.judged, summary.equal, summary.inexact_fields) == (1, 1, 0)

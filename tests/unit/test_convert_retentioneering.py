"""Retentioneering: page views, product events, e-mail visits."""

import gzip
import os
from collections import Counter
from pathlib import Path

import pytest

from twofold.errors import UsageError
from twofold.events import admit
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.convert.retentioneering import COLUMNS, PAGES, TRACKS
from twofold.timeline import parse_instant

REAL = Path(os.environ.get("TWOFOLD_DATA") or Path(__file__).parents[2] / ".." / "shared" / "data") / "retentioneering-ecom"


def _convert(tmp_path, *rows):
    path = tmp_path / "ecom.csv.gz"
    path.write_bytes(gzip.compress("\n".join([",".join(COLUMNS), *rows, ""]).encode()))
    return list(CONVERTERS["retentioneering"](path))


def test_a_session_by_email_begins_with_a_click_and_traits_follow_changes(tmp_path):
    events = _convert(
        tmp_path,
        "u1,s1,product_view,2024-03-13 10:21:28,mobile,email,2024-01,loyal",
        "u1,s1,home,2024-03-13 10:21:14,mobile,email,2024-01,new",
        "u1,s2,purchase,2024-03-14 10:21:14,desktop,direct,2024-01,loyal",
    )
    assert [event["event_id"] for event in events] == [
        "ret-00002-traits", "ret-00002-email", "ret-00002", "ret-00001-traits", "ret-00001", "ret-00003",
    ]  # fmt: skip
    click, home, order = events[1], events[2], events[5]
    assert click["name"] == "Email Link Clicked" and click["occurred_at"] == home["occurred_at"] == "2024-03-13T10:21:14Z"
    assert home["properties"] == {"path": "/"} and home["source_kind"] == "email"
    assert order["name"] == "Order Completed" and order["context"]["device"] == {"type": "desktop"}
    assert events[0]["traits"] == {"cohort": "2024-01", "tier": "new"}


def test_an_unknown_event_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"row 1.*'teleport'"):
        _convert(tmp_path, "u1,s1,teleport,2024-03-13 10:21:28,mobile,email,2024-01,loyal")


if REAL.is_dir():

    def test_the_real_set_is_admitted_whole():
        kinds = Counter()
        for event in CONVERTERS["retentioneering"](REAL):
            admission = admit(encode_event(event), parse_instant("2024-07-01T00:00:00Z"))
            assert admission.verdict == "ok"
            kinds.update(fact.kind for fact in admission.facts)
        assert len(PAGES) + len(TRACKS) == 19
        assert (kinds["view"], kinds["cart_add"], kinds["order"], kinds["page"]) == (6_851, 1_346, 470, 21_187)
        assert kinds["custom"] == 812 + 277 + 119 + 44

"""The simulated shop: same seed, same bytes; everything that the facts table names; the promised disorder."""

import hashlib
import os
import subprocess
import sys
from collections import Counter, defaultdict

import msgspec
import pytest

from twofold.errors import UsageError
from twofold.events import EMAIL_KINDS, FACT_KINDS, RETRACTION_KIND, admit
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.convert.shop import DEFAULT_END_MS
from twofold.local.convert.shop_events import timestamp, timestamp_at_offset
from twofold.timeline import DAY_MS, parse_instant

DIGEST = (
    "import hashlib; from twofold.local.convert import CONVERTERS, encode_event\n"
    "h = hashlib.sha256()\n"
    "for e in CONVERTERS['shop'](None, seed=7, events=3000, persons=100): h.update(encode_event(e) + b'\\n')\n"
    "print(h.hexdigest())"
)


def _lines(**options):
    return [encode_event(event) for event in CONVERTERS["shop"](None, **options)]


@pytest.fixture(scope="module")
def feed():
    lines = _lines(seed=3, persons=400, events=40_000)
    return [(line, admit(line, DEFAULT_END_MS)) for line in lines]


def test_same_seed_same_bytes_also_in_another_process():
    own = hashlib.sha256(b"".join(line + b"\n" for line in _lines(seed=7, events=3000, persons=100))).hexdigest()
    for hash_seed in ("0", "1"):
        other = subprocess.run(
            [sys.executable, "-c", DIGEST],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
        assert other.stdout.strip() == own
    assert _lines(seed=8, events=100) != _lines(seed=7, events=100)


def test_every_kind_of_fact_occurs(feed):
    kinds = Counter(fact.kind for _line, admission in feed for fact in admission.facts)
    # The shop takes nothing back.
    assert set(kinds) == {*FACT_KINDS} - {RETRACTION_KIND} and set(EMAIL_KINDS.values()) <= set(kinds)
    facts = [fact for _line, admission in feed for fact in admission.facts]
    assert {"USD", "GBP", "EUR", "JPY", "KWD"} <= {fact.currency for fact in facts if fact.kind == "order"}
    assert {fact.value for fact in facts if fact.kind == "consent" and fact.key == "marketing"} == {"granted", "denied"}
    assert {fact.key for fact in facts if fact.kind == "trait"} >= {"first_name", "locale", "country", "tier"}
    assert {"group", "alias"} <= {fact.key for fact in facts if fact.kind == "other"}


def test_activity_is_skewed_over_known_and_anonymous_people(feed):
    people = Counter(admission.person for _line, admission in feed if admission.person)
    assert len([person for person in people if person.startswith("user:")]) > 200
    assert len([person for person in people if person.startswith("anon:")]) > 100
    assert sum(count for _person, count in people.most_common(20)) > 0.3 * len(feed)


def test_shares_of_copies_late_and_rejected_entries(feed):
    ok = [(line, admission) for line, admission in feed if admission.verdict == "ok"]
    copies = defaultdict(set)
    count = Counter()
    for line, admission in ok:
        copies[admission.person, admission.event_id].add(line)
        count[admission.person, admission.event_id] += 1
    doubled = [key for key, times in count.items() if times > 1]
    assert 0.035 < len(doubled) / len(feed) < 0.06
    assert 0.2 < sum(len(copies[key]) > 1 for key in doubled) / len(doubled) < 0.6, "a share of the copies must differ"
    rejected = Counter(admission.verdict for _line, admission in feed if admission.verdict != "ok")
    assert set(rejected) == {"missing_identity", "bad_time", "schema", "malformed"} and 0 < rejected.total() / len(feed) < 0.003
    # Fifty lines of disorder are some four hours here: what is two days behind is late, or a late copy.
    newest, late, disorder = 0, 0, 0
    for at in (admission.at_ms for _line, admission in ok):
        late += at < newest - 2 * DAY_MS
        disorder += at < newest
        newest = max(newest, at)
    assert 0.04 < late / len(ok) < 0.08 and disorder / len(ok) > 0.5


def test_no_event_is_later_than_the_end_or_earlier_than_late_allows(feed):
    times = [admission.at_ms for _line, admission in feed if admission.verdict == "ok"]
    assert max(times) < DEFAULT_END_MS and min(times) >= DEFAULT_END_MS - (120 + 60 + 41) * DAY_MS
    assert max(times) > DEFAULT_END_MS - DAY_MS


def test_times_come_in_three_notations(feed):
    raw = [msgspec.json.decode(line)["occurred_at"] for line, admission in feed if admission.verdict == "ok"]
    assert any(isinstance(value, int) for value in raw)
    assert {str(value)[-1] == "Z" for value in raw} == {True, False}
    for at in (0, 951_827_696_789, -1, DEFAULT_END_MS):
        assert parse_instant(timestamp(at)) == at
        assert {parse_instant(timestamp_at_offset(at, minutes)) for minutes in (-480, 330)} == {at}


def test_clean_feed_on_request_and_span_from_either_end():
    lines = _lines(events=2_000, persons=1, duplicates=0, late=0, shuffle=0, rejects=0, days=2, start_ms=DAY_MS * 9_000)
    admissions = [admit(line, DEFAULT_END_MS) for line in lines]
    times = [admission.at_ms for admission in admissions]
    assert {admission.verdict for admission in admissions} == {"ok"}
    assert len({admission.event_id for admission in admissions}) == len(lines) == 2_000
    assert min(times) >= DAY_MS * 9_000 - 90_000 and max(times) < DAY_MS * 9_002
    assert max(admit(line, DEFAULT_END_MS).at_ms for line in _lines(events=50, rejects=0, end_ms=DAY_MS * 9_000)) < DAY_MS * 9_000


def test_misuse_is_named():
    for options in ({"start_ms": 1, "end_ms": 2}, {"persons": 0}, {"late": 2.0}, {"duplicates": 1.0}):
        with pytest.raises(UsageError):
            CONVERTERS["shop"](None, **options)
    with pytest.raises(UsageError, match="FILE"):
        CONVERTERS["shop"]("some.csv")

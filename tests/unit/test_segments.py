"""Segments with names: their versions, when an age turns next, and the file that they are read from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.catalogue import CATALOGUE
from twofold.errors import SegmentError
from twofold.rule_grammar import parse_rule
from twofold.segments import NO_SEGMENTS, Segment, Segments, next_change_ms, next_entry_or_exit_ms
from twofold.settings import load_settings
from twofold.stores.segments_file import load_segments, read_segments
from twofold.testing.rule_strategies import WIDTHS_MS, rules, values
from twofold.timeline import DAY_MS

T = 1_735_732_800_000


def segment(name: str, rule: str, description: str = "") -> Segment:
    return Segment(name, parse_rule(rule, CATALOGUE), description)


# --- versions ---------------------------------------------------------------------------------------------------------------------
def test_a_version_is_what_the_rule_says_and_nothing_else():
    one, same = segment("a", "tier='x'  AND (orders_lifetime>3)"), segment("b", "tier = 'x' and orders_lifetime > 3", "text")
    assert one.version == same.version != segment("a", "tier = 'x' and orders_lifetime > 4").version
    assert len(one.version) == 12 and Segments([one]).version != Segments([same]).version
    assert Segments([one, same]).version == Segments([same, one]).version
    assert NO_SEGMENTS.version == "" and len(NO_SEGMENTS) == 0 and NO_SEGMENTS.names_at({}, T) == ()


@given(st.lists(rules(CATALOGUE, T), max_size=4), values(CATALOGUE, T))
def test_nobody_of_these_values_enters_or_leaves_before_the_next_change(drawn, found):
    named = Segments(Segment(f"s{n}", rule) for n, rule in enumerate(drawn))
    now, until = named.names_at(found, T), next_change_ms(named, found, T)
    turns = {at + width + off for at in found.values() if isinstance(at, int) for width in WIDTHS_MS for off in (0, 1, 2)}
    for later in turns:
        if later > T and (until is None or later < until):
            assert named.names_at(found, later) == now
    assert until is None or until > T
    other = [later for later in sorted(turns) if later > T and named.names_at(found, later) != now]
    assert next_entry_or_exit_ms(named, found, T) == (other[0] if other else None)


def test_the_next_change_is_the_first_age_that_turns():
    named = Segments([segment("a", "last_order_at older than 2 d or last_cart_add_at within 1 d"), segment("b", "tier = 'x'")])
    found = {"last_order_at": T - DAY_MS, "last_cart_add_at": T, "tier": None}
    assert next_change_ms(named, found, T) == T + DAY_MS + 1
    assert next_change_ms(named, {**found, "last_cart_add_at": T - DAY_MS}, T) == T + 1
    assert next_change_ms(named, {**found, "last_cart_add_at": T - DAY_MS}, T + 1) == T + DAY_MS + 1
    assert next_change_ms(named, {**found, "last_order_at": None, "last_cart_add_at": None}, T) is None
    # A day later one age takes the place of the other, and nobody leaves.
    assert [named.names_at(found, T + DAY_MS + off) for off in (0, 1)] == [("a",), ("a",)]
    assert next_entry_or_exit_ms(named, found, T) is None
    assert next_entry_or_exit_ms(named, {**found, "last_order_at": T}, T) == T + DAY_MS + 1


# --- the file ---------------------------------------------------------------------------------------------------------------------
def test_the_shipped_file_is_read_wherever_one_stands(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shipped = load_segments(load_settings(environ={}), CATALOGUE)
    assert 4 <= len(shipped) <= 6 and all(segment.description for segment in shipped)
    assert [segment.name for segment in shipped] == sorted(segment.name for segment in shipped)
    assert load_segments(load_settings(environ={}, segments={"file": ""}), CATALOGUE) is NO_SEGMENTS


def test_a_rule_may_be_folded_and_counts_its_own_columns(tmp_path):
    file = tmp_path / "s.yaml"
    file.write_text("segments:\n  a:\n    description: A\n    rule: >-\n      tier = 'x'\n      and order_lifetime > 3\n")
    with pytest.raises(SegmentError, match=r"^s\.yaml:4: segment 'a', rule column 16: unknown feature 'order_lifetime'; did you"):
        read_segments(file, CATALOGUE, "s.yaml")


RULE = "rule: tier = 'x'"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("segments:\n  loyal: {description: L, rule: order_lifetime >= 3}", ":2: segment 'loyal', rule column 1: unknown feature"),
        (
            f"segments:\n  a: {{description: A, {RULE}}}\n  a: {{description: A, {RULE}}}",
            ":3: 'a' stands twice in `segments`, first in line 2",
        ),
        (
            "segments:\n  a:\n    description: A\n    rule: tier = 'x'\n    rule: tier = 'y'",
            ":5: 'rule' stands twice in segment 'a', first in line 4",
        ),
        ("segments:\n  a:\n    description: A\n    rul: tier = 'x'", ":4: segment 'a': unknown key 'rul'; did you mean 'rule'?"),
        ("segments:\n  a:\n    color: red", ":3: segment 'a': unknown key 'color'; a segment has description and rule"),
        ("segments:\n  a:\n    description: A\n    rule: 3", ":4: segment 'a': rule must be text: put it in quotes"),
        ("segments:\n  a:\n    description: [A]\n    rule: tier = 'x'", ":3: segment 'a': description must be text"),
        ("segments:\n  a:\n    description: A", ":2: segment 'a': rule is missing"),
        (f"segments:\n  a:\n    {RULE}", ":2: segment 'a': description is missing"),
        ("segments:\n  a: tier = 'x'", ":2: segment 'a' must be a mapping: `rule: orders_lifetime >= 3`"),
        ("segments:\n  Loyal: {}", ":2: segment 'Loyal': a name has lower-case letters, digits and _, and begins with a letter"),
        ("segments: []", ":1: `segments` must be a mapping"),
        ("segments:\n", ":1: `segments` must be a mapping"),
        ("rules: {}", ":1: unknown key 'rules': the file has one key, `segments`"),
        ("{}", ":1: the key `segments` is missing"),
        ("", ":1: the file must be a mapping"),
        ("segments:\n  a: [", ":2: column 7: not YAML:"),
        ("segments:\n  {1: 2}: 3", ":2: a name in `segments` must be text"),
    ],
)
def test_a_bad_file_is_one_line_with_its_place(tmp_path, text, said):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(SegmentError) as refused:
        read_segments(file, CATALOGUE, "conf/s.yaml")
    assert str(refused.value).startswith(f"conf/s.yaml{said}"), refused.value
    assert "\n" not in str(refused.value) and refused.value.exit_code == 2


def test_a_file_that_cannot_be_read(tmp_path):
    with pytest.raises(SegmentError, match=r"conf/none\.yaml cannot be read: No such file"):
        load_segments(load_settings(environ={}, segments={"file": "conf/none.yaml"}), CATALOGUE)
    (tmp_path / "x.yaml").write_bytes(b"\xff")
    with pytest.raises(SegmentError, match="is not UTF-8"):
        load_segments(load_settings(environ={}, segments={"file": str(tmp_path / "x.yaml")}), CATALOGUE)

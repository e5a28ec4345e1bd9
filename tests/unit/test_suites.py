"""Suites of expectations: the shipped ones load, and a mistake is one line with its file and entry."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.errors import SuiteError
from twofold.spark.suites import load_suite

SHIPPED = Path(__file__).resolve().parents[2] / "conf" / "expectations"
GOOD = """
about: one row a thing
columns: {half: thing / 2}
expectations:
  - name: few
    expect: expect_column_max_to_be_between
    kwargs: {column: half}
    threshold: {max_value: {$PARAMETER: previous_things * 2}}
    at_least: 10
    reason: because more than twice as many have never been seen
"""


@pytest.mark.parametrize("name", ["archive_slice", "state", "wide_person", "personalization"])
def test_the_shipped_suites_load_and_give_reasons(name: str) -> None:
    suite = load_suite(SHIPPED, name)
    used = " ".join(str(value) for e in suite.expectations for value in (e.kwargs, e.rows))
    for column in suite.columns:
        assert column in used, f"{column} is computed for nothing"
    for expected in suite.expectations:
        words = expected.reason.split()
        assert len(words) >= 8 and words[0][0].isupper() and words[-1].endswith("."), expected.name
    assert sorted(file.stem for file in SHIPPED.iterdir()) == ["archive_slice", "personalization", "state", "wide_person"]


def test_a_suite_is_typed(tmp_path: Path) -> None:
    (tmp_path / "things.yaml").write_text(GOOD)
    suite = load_suite(tmp_path, "things")
    (few,) = suite.expectations
    assert suite.columns == {"half": "thing / 2"} and few.column == "half" and few.at_least == 10
    assert few.threshold == {"max_value": {"$PARAMETER": "previous_things * 2"}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("reason: because", "reson: because"), "things.yaml, expectation few, reason: Field required"),
        (("reason: because more than twice as many have never been seen", "reason: so"), "expectation few, reason: String should"),
        (("at_least: 10", "at_least: some"), "expectation few, at_least: Input should be a valid integer"),
        (("- name: few", "- name: Few of them"), "expectation Few of them, name: String should match"),
        (("expect: expect_column_max_to_be_between", "expect: max"), "expectation few, expect: String should match"),
        (("about: one row a thing", "abut: x"), "about: Field required"),
        (("expectations:", "expectation:"), "expectations: Field required"),
        (("about: one row a thing", "about: [1"), "is not YAML"),
    ],
)
def test_a_mistake_names_file_and_entry(tmp_path: Path, change: tuple[str, str], message: str) -> None:
    (tmp_path / "things.yaml").write_text(GOOD.replace(*change))
    with pytest.raises(SuiteError) as found:
        load_suite(tmp_path, "things")
    assert message in str(found.value) and "\n" not in str(found.value) and str(tmp_path) in str(found.value)


def test_two_expectations_of_one_name_and_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "things.yaml").write_text(GOOD + GOOD.split("expectations:")[1])
    with pytest.raises(SuiteError, match="two expectations named 'few'"):
        load_suite(tmp_path, "things")
    with pytest.raises(SuiteError, match=r"others\.yaml cannot be read: No such file.*setting gate\.expectations"):
        load_suite(tmp_path, "others")

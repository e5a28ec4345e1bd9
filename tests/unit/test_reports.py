"""Validation reports without Spark: their files, their page, and the command that shows them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from twofold.cli import main
from twofold.errors import StoreError
from twofold.settings import Settings
from twofold.stores.report_page import page, shown
from twofold.stores.reports import Check, Report, SuiteReport, page_of, read_reports, reports_place, write_report

FAILED = Check(
    name="few_rejected",
    expectation="expect_column_mean_to_be_between",
    outcome="failed",
    threshold={"max_value": 0.5},
    reason="Because <b>more</b> has never been seen.",
    column="rejected",
    observed=0.9,
    unexpected=1234,
    positions=((0, 1, 77), (0, 2, 78)),
    persons=("00ff00ff00ff00ff",),
)
SKIPPED = Check(
    name="persons",
    expectation="expect_table_row_count_to_be_between",
    outcome="skipped",
    threshold={"min_value": {"$PARAMETER": "previous_persons * 2"}},
    reason="Because there were as many before.",
    note="not known yet: previous_persons * 2",
)


def _report(seq: int, *checks: Check, enforced: bool = True, mark: str = "a") -> Report:
    suite = SuiteReport(suite="archive_slice", about="one row an entry", rows=1500, took_ms=1200, checks=checks)
    return Report(
        snapshot=f"s{seq:08d}-{mark}", seq=seq, made_ms=seq * 1000, success=suite.success, enforced=enforced, suites=(suite,)
    )


def _write(settings: Settings, *reports: Report, keep: int = 9) -> None:
    for report in reports:
        write_report(reports_place(settings.table("manifest")), report, page(report), keep)


@pytest.fixture
def home(tmp_path: Path) -> Settings:
    settings = Settings(home=str(tmp_path))
    _write(settings, _report(1, SKIPPED), _report(2, FAILED, SKIPPED), _report(3, FAILED, enforced=False))
    return settings


def test_reports_are_read_as_they_were_written_and_the_oldest_go(home: Settings) -> None:
    place = reports_place(home.table("manifest"))
    first, refused, published = read_reports(place)
    assert (first.success, first.refused) == (True, False) and refused == _report(2, FAILED, SKIPPED)
    assert refused.refused and not published.refused and not published.success
    assert [(suite.suite, check.name) for suite, check in refused.failed()] == [("archive_slice", "few_rejected")]
    _write(home, _report(4, SKIPPED), keep=2)
    assert [report.seq for report in read_reports(place)] == [3, 4]
    assert len(list(Path(place).iterdir())) == 4, "pages go with their reports"
    # Of two refused rebuilds with one number, the one just written stays.
    _write(home, _report(5, FAILED, mark="b"), _report(5, FAILED, mark="a"), keep=1)
    assert [report.snapshot for report in read_reports(place)] == ["s00000005-a"]
    (Path(place) / "s00000006-a.json").write_text("{")
    with pytest.raises(StoreError, match=r"s00000006-a\.json is damaged"):
        read_reports(place)


def test_a_page_needs_nobody_and_says_everything(home: Settings) -> None:
    report = _report(2, FAILED, SKIPPED)
    text = Path(page_of(reports_place(home.table("manifest")), report)).read_text(encoding="utf-8")
    assert text == page(report)
    for said in ("publish refused", "few_rejected", "1,234 rows to blame", "0:1:77", "00ff00ff00ff00ff", "at most 0.5", "0.9"):
        assert said in text, said
    assert "not known yet: previous_persons * 2" in text and "Because &lt;b&gt;more&lt;/b&gt;" in text
    assert "://" not in text and "<script" not in text
    assert "failed, published all the same" in page(_report(3, FAILED, enforced=False))


def test_figures_are_for_people() -> None:
    figures = (None, 3, 1234567, 0.0, 5.0, 0.021234, 1234.5, "x", {"$PARAMETER": "a * 2"})
    assert [shown(value) for value in figures] == ["–", "3", "1,234,567", "0", "5", "0.02123", "1,234.5", "x", "a * 2"]


def test_the_command_lists_and_shows(home: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    at = ["--home", home.home]
    assert main(["reports", *at, "--json"]) == 0
    listed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["seq"], row["success"], row["failed"]) for row in listed][:2] == [
        (1, True, []),
        (2, False, ["archive_slice.few_rejected"]),
    ]
    assert main(["reports", *at]) == 0
    assert "refused" in capsys.readouterr().out
    assert main(["reports", "2", *at]) == 0
    text = capsys.readouterr().out
    assert "few_rejected: 1,234 rows to blame" in text and "0:1:77" in text and "s00000002-a.html" in text
    assert main(["reports", "--latest", *at, "--json"]) == 0
    latest = json.loads(capsys.readouterr().out)
    assert latest["seq"] == 3 and Path(latest["page"]).exists() and latest["suites"][0]["checks"][0]["name"] == "few_rejected"
    assert main(["reports", "7", *at]) == 2 and "no report of sequence number 7" in capsys.readouterr().err
    assert main(["reports", "2", "--latest", *at]) == 2
    assert main(["reports", "--latest", "--home", f"{home.home}/none"]) == 2

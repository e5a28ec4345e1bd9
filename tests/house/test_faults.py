"""Each fault of docs/faults.md names a test that is there, or the run of faults drawn at random, which has every kind there is."""

from __future__ import annotations

import re

from tests.chaos.plan import KINDS
from twofold.local.project import ROOT

TEST = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def test_every_fault_names_a_test_that_is_there():
    rows = [line for line in (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    faults = [row for row in rows if not row.startswith("| Fault")]
    assert len(faults) > 20
    for row in faults:
        named = TEST.findall(row)
        assert named or "`make chaos`" in row, row
        for file, test in named:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file}::{test}"


def test_every_kind_of_random_fault_is_on_the_page():
    page = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8")
    for kind in KINDS.values():
        assert f"| {kind.what} |" in page
    assert "\nchaos: setup" in (ROOT / "Makefile").read_text(encoding="utf-8")

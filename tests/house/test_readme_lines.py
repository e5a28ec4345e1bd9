"""The README's job lines are the ones that `up` and `batch` use."""

from __future__ import annotations

from pathlib import Path

from twofold.local.project import ROOT, spark_submit


def test_the_job_lines_are_the_ones_in_use() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for job in ("speed", "archive", "personalize", "batch"):
        words = spark_submit(job, "--home", "DIR")
        assert " ".join([Path(words[0]).name, *words[1:]]) in readme
        assert (ROOT / words[2]).exists()
        assert (ROOT / words[3]).exists()

"""Every command that the README shows runs, in its order, as written."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.e2e.conftest import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


def commands() -> list[str]:
    """The lines of the block that follows ``<!-- run -->``."""
    block = re.search(r"<!-- run -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return block.group(1).splitlines()


def test_the_commands_of_the_readme_run(tmp_path: Path) -> None:
    environment = {**os.environ, "TWOFOLD_HOME": str(tmp_path / "home")}
    for command in commands():
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400
        )
        assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stderr[-1000:]}"
    records = {r["person"]: r for r in map(json.loads, (ROOT / "build" / "records.jsonl").read_text(encoding="utf-8").splitlines())}
    truth = {r["person"]: r for r in map(json.loads, (ROOT / "build" / "oracle.jsonl").read_text(encoding="utf-8").splitlines())}
    assert records.keys() == truth.keys()
    assert all(list(record) == ["person", "values", "sendable", "fields", "freshness"] for record in records.values())

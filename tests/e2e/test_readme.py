"""Every command that the README shows runs, in its order, as written; then the notebooks, on the home that they leave."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.e2e.conftest import ROOT

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def commands() -> list[str]:
    """The lines of the block that follows ``<!-- run -->``."""
    block = re.search(r"<!-- run -->\n```sh\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    assert block is not None
    return block.group(1).splitlines()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home that the README's commands fill and leave stopped."""
    home = tmp_path_factory.mktemp("readme") / "home"
    environment = {**os.environ, "TWOFOLD_HOME": str(home)}

    def run(command: str) -> None:
        done = subprocess.run(
            ["bash", "-c", command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=400
        )
        assert done.returncode == 0, f"{command}: exit {done.returncode}: {done.stderr[-1000:]}"

    try:
        for command in commands():
            run(command)
    except BaseException:
        # Its last line stops the system: where an earlier one failed, this one does.
        run(commands()[-1])
        raise
    return home


@pytest.mark.usefixtures("home")
def test_the_commands_of_the_readme_run() -> None:
    records = {r["person"]: r for r in map(json.loads, (ROOT / "build" / "records.jsonl").read_text(encoding="utf-8").splitlines())}
    truth = {r["person"]: r for r in map(json.loads, (ROOT / "build" / "oracle.jsonl").read_text(encoding="utf-8").splitlines())}
    assert records.keys() == truth.keys()
    fields = ["person", "values", "sendable", "fields", "freshness", "next_change_at", "segments", "segments_version"]
    assert all(list(record) == fields for record in records.values())


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_runs_from_clean(file: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TWOFOLD_HOME", str(home))
    # A kernel runs in the notebook's folder: a relative path would lead it to another checkout's library, or to none.
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "lib"))
    notebook = nbformat.read(file, as_version=4)
    NotebookClient(notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(file.parent)}}).execute()
    pictures = [output for cell in notebook.cells for output in cell.get("outputs", []) if "image/png" in output.get("data", {})]
    assert len(pictures) >= 3, "a notebook without its plots"

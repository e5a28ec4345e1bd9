"""Notebooks are committed without outputs, define nothing, and need neither Spark nor a broker."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(file: Path, kind: str) -> list[dict[str, Any]]:
    return [cell for cell in json.loads(file.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == kind]


def test_there_are_notebooks() -> None:
    assert [file.stem for file in NOTEBOOKS] == ["01_explore_a_person", "02_wide_tables_and_campaigns", "03_is_it_right"]


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_outputs_are_stripped(file: Path) -> None:
    for cell in cells(file, "code"):
        assert cell["outputs"] == [] and cell["execution_count"] is None, (
            f"{file.name} holds outputs (they may name persons): clear all outputs, save, commit again"
        )


@pytest.mark.parametrize("file", NOTEBOOKS, ids=lambda file: file.stem)
def test_a_notebook_explores_and_defines_nothing(file: Path) -> None:
    for cell in cells(file, "code"):
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            assert not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef), (
                f"{file.name} defines {getattr(node, 'name', '')}: what has a meaning belongs to the library"
            )
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert name.split(".")[0] not in ("pyspark", "delta", "kafka") and not name.startswith(
                    ("twofold.spark", "twofold.kafka", "twofold.local")
                ), f"{file.name} imports {name}: notebooks run without Spark and without a broker"

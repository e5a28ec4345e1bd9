"""The DAG, judged by Airflow itself in its own environment: airflow_dag.py beside this file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow


def test_airflow_reads_and_runs_the_dags() -> None:
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(["make", "airflow-check"], cwd=root, capture_output=True, text=True, check=False, timeout=1_500)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4_000:]

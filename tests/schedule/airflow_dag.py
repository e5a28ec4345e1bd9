"""The DAG file as Airflow sees it, run by Airflow's Python (`make airflow-check`); a stand-in for `twofold` gives exit codes."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.dag_processing.dagbag import DagBag
from airflow.serialization.definitions.dag import SerializedDAG
from airflow.serialization.serialized_objects import DagSerialization
from airflow.timetables.base import TimeRestriction
from airflow.utils.state import DagRunState

FOLDER = Path(__file__).resolve().parents[2] / "conf" / "schedule" / "airflow"
COMMANDS = {
    "twofold_night": "twofold batch --incremental",
    "twofold_week": "twofold batch --compare",
    "twofold_audit": "twofold audit",
}


@pytest.fixture(scope="module")
def bag() -> DagBag:
    return DagBag(dag_folder=str(FOLDER))


def test_the_file_is_read_without_an_error(bag: DagBag) -> None:
    assert bag.import_errors == {}
    assert set(bag.dags) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_the_command_its_retries_and_its_turn(bag: DagBag, name: str) -> None:
    dag = bag.dags[name]
    (task,) = dag.tasks
    assert task.bash_command == f'flock "${{TWOFOLD_HOME:-/var/lib/twofold}}/schedule.lock" {COMMANDS[name]}'
    assert (task.retries, task.retry_delay, task.retry_exponential_backoff) == (3, timedelta(minutes=5), 3.0)
    assert dag.max_active_runs == 1
    # Airflow's scheduler knows a DAG by its serialized form only.
    assert DagSerialization.deserialize_dag(DagSerialization.serialize_dag(dag)).dag_id == name


@pytest.mark.parametrize("name", COMMANDS)
def test_missed_runs_are_caught_up_by_one(bag: DagBag, name: str) -> None:
    dag: SerializedDAG = DagSerialization.deserialize_dag(DagSerialization.serialize_dag(bag.dags[name]))
    assert dag.catchup is False
    now = datetime.now(UTC)
    restriction = TimeRestriction(earliest=dag.start_date, latest=None, catchup=False)
    long_ago = dag.timetable.infer_manual_data_interval(run_after=now - timedelta(days=30))
    first = dag.timetable.next_dagrun_info(last_automated_data_interval=long_ago, restriction=restriction)
    assert first is not None and first.run_after <= now
    second = dag.timetable.next_dagrun_info(last_automated_data_interval=first.data_interval, restriction=restriction)
    assert second is not None and second.run_after > now, "more than one run for what was missed"


@pytest.mark.parametrize(
    ("code", "tries", "state", "alerts"),
    [
        (0, 1, DagRunState.SUCCESS, 0),
        (1, 4, DagRunState.FAILED, 1),
        (2, 1, DagRunState.FAILED, 1),
        (3, 1, DagRunState.FAILED, 1),
    ],
)
@pytest.mark.parametrize("name", COMMANDS)
def test_what_each_exit_code_leads_to(
    name: str, code: int, tries: int, state: DagRunState, alerts: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, told = tmp_path / "calls", tmp_path / "told"
    fake = tmp_path / "bin" / "twofold"
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\necho "$@" >> {calls}\nexit {code}\n', encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("TWOFOLD_HOME", str(tmp_path))
    monkeypatch.setenv("TWOFOLD_ALERT_COMMAND", f"cat >> {told}")
    dag: Any = DagBag(dag_folder=str(FOLDER)).dags[name]
    dag.tasks[0].retry_delay = timedelta(0)
    dag.tasks[0].retry_exponential_backoff = 0
    run = dag.test()
    assert run.state == state
    assert calls.read_text(encoding="utf-8").splitlines() == [COMMANDS[name].removeprefix("twofold ")] * tries
    lines = told.read_text(encoding="utf-8").splitlines() if told.exists() else []
    assert len(lines) == alerts
    assert all(line.startswith(f"twofold: {name} ") and f"(exit {code}," in line for line in lines)

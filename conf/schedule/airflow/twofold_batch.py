"""Airflow: the night, the week and the audit of Twofold, the same commands as conf/schedule/systemd.

Exit 1 is a failure: tried again after 5, 15 and 45 minutes, then the alert. Exit 3 (a refused publish, a served record that was
wrong) and 2 (a wrong call) are final at once: the same again does not mend it, a person must look.
Catch-up: after missed runs each DAG runs once (``catchup=False``), because a rebuild folds everything up to its cut, and an audit
judges everything that was not judged yet.
"""

from __future__ import annotations

import re
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.bash import BashOperator
from airflow.sdk import DAG
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException

ALERT = Path(__file__).resolve().parents[1] / "alert.sh"
#: Wrong call; refused publish, or a served record that was wrong.
FINAL = (2, 3)
#: DAG -> when (UTC), the command, what it is.
SCHEDULE = {
    "twofold_night": ("30 2 * * 1-6", "twofold batch --incremental", "The night's slice on the snapshot before it"),
    "twofold_week": ("30 2 * * 0", "twofold batch --compare", "A full rebuild, compared with the incremental nights"),
    "twofold_audit": ("30 4 * * *", "twofold audit", "What was served, recomputed from raw bytes"),
}


class Command(BashOperator):
    """A command of Twofold whose exit codes 2 and 3 are final."""

    def __init__(self, **options: Any) -> None:
        super().__init__(skip_on_exit_code=FINAL, do_xcom_push=False, append_env=True, **options)

    def execute(self, context: Any) -> Any:
        try:
            return super().execute(context)
        except AirflowSkipException as final:
            # "skip" is the one way in which BashOperator tells exit codes apart.
            raise AirflowFailException(str(final).replace("Skipping", "Not tried again")) from final


def alert(context: Any) -> None:
    """The last try has failed: one line to the log and to TWOFOLD_ALERT_COMMAND."""
    code = re.search(r"exit code (\d+)", str(context.get("exception")))
    subprocess.run([ALERT, context["dag"].dag_id, code[1] if code else "unknown"], check=True, timeout=60)


for name, (when, command, what) in SCHEDULE.items():
    with DAG(
        name,
        description=what,
        schedule=when,
        start_date=datetime(2026, 1, 1, tzinfo=UTC),
        catchup=False,
        max_active_runs=1,
        tags=["twofold"],
    ):
        Command(
            task_id=command.split()[1],
            # One at a time: after a long stop all DAGs are due at once, and wait for each other.
            bash_command=f'flock "${{TWOFOLD_HOME:-/var/lib/twofold}}/schedule.lock" {command}',
            retries=3,
            retry_delay=timedelta(minutes=5),
            retry_exponential_backoff=3.0,
            max_retry_delay=timedelta(minutes=45),
            execution_timeout=timedelta(hours=6),
            on_failure_callback=alert,
        )

"""The schedule without its schedulers: commands that exist, systemd's own opinion of the units, exit codes, alerts."""

from __future__ import annotations

import ast
import configparser
import os
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
import typer

from twofold.cli import app
from twofold.settings import load_settings

ROOT = Path(__file__).resolve().parents[2]
SCHEDULE = ROOT / "conf" / "schedule"
UNITS = SCHEDULE / "systemd"
KINDS = ("night", "week", "audit")
#: Systemd before 254 names these two and goes on without them, as the unit says.
YOUNG_KEYS = ("RestartSteps", "RestartMaxDelaySec")


def unit(name: str) -> configparser.ConfigParser:
    """A unit file; of a key that stands several times the last line."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNITS / name, encoding="utf-8")
    return parser


def by_systemd(kind: str) -> list[str]:
    return shlex.split(unit(f"twofold-{kind}.service")["Service"]["ExecStart"])


def by_airflow(kind: str) -> list[str]:
    tree = ast.parse((SCHEDULE / "airflow" / "twofold_batch.py").read_text(encoding="utf-8"))
    assigned = {ast.unparse(n.targets[0]): n.value for n in tree.body if isinstance(n, ast.Assign)}
    _when, command, _what = ast.literal_eval(assigned["SCHEDULE"])[f"twofold_{kind}"]
    return shlex.split(command)


@pytest.mark.parametrize("kind", KINDS)
def test_both_schedules_call_one_command_and_it_exists(kind: str) -> None:
    turn, words = by_systemd(kind)[:2], by_systemd(kind)[2:]
    assert turn == ["/usr/bin/flock", "${TWOFOLD_HOME}/schedule.lock"]
    assert words == by_airflow(kind)
    program, name, *options = words
    assert program == "twofold"
    command = typer.main.get_command(app).commands[name]  # type: ignore[attr-defined]
    known = {option for parameter in command.params for option in parameter.opts}
    assert set(options) <= known, f"twofold {name} has no {set(options) - known}"


@pytest.mark.parametrize("kind", KINDS)
def test_the_timer_catches_up_once_and_the_service_says_what_is_final(kind: str) -> None:
    timer, service = unit(f"twofold-{kind}.timer"), unit(f"twofold-{kind}.service")
    assert timer["Timer"]["Persistent"] == "true"
    assert service["Service"]["Type"] == "oneshot"
    assert service["Service"]["Restart"] == "on-failure"
    assert service["Service"]["RestartPreventExitStatus"].split() == ["2", "3"]
    assert service["Unit"]["StartLimitBurst"] == "4"
    assert service["Unit"]["OnFailure"] == "twofold-alert@%N.service"


def test_systemd_accepts_every_unit(tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd is not on this machine: its units were not verified")
    for file in UNITS.iterdir():
        (tmp_path / file.name).write_text(file.read_text(encoding="utf-8").replace("/opt/twofold", str(ROOT)), encoding="utf-8")
    files = sorted(str(file) for file in tmp_path.iterdir())
    done = subprocess.run(
        ["systemd-analyze", "verify", *files], capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"}
    )
    complaints = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "twofold" in line]
    assert [line for line in complaints if not any(f"'{key}'" in line for key in YOUNG_KEYS)] == []
    for kind in KINDS:
        when = unit(f"twofold-{kind}.timer")["Timer"]["OnCalendar"]
        assert subprocess.run(["systemd-analyze", "calendar", when], capture_output=True, check=False).returncode == 0


def stand_in(folder: Path, exit_code: int) -> dict[str, str]:
    """An environment in which ``twofold`` is a script that notes its arguments and ends with ``exit_code``."""
    script = folder / "bin" / "twofold"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f'#!/bin/sh\necho "$@" >> {folder}/calls\nexit {exit_code}\n', encoding="utf-8")
    script.chmod(0o755)
    return {"PATH": f"{script.parent}:{os.environ['PATH']}", "TWOFOLD_HOME": str(folder)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("code", "again", "alerted"), [(0, False, False), (1, True, True), (2, False, True), (3, False, True)])
def test_an_exit_code_reaches_systemd_and_its_alert(kind: str, code: int, again: bool, alerted: bool, tmp_path: Path) -> None:
    environment = stand_in(tmp_path, code)
    words = [word.replace("${TWOFOLD_HOME}", str(tmp_path)) for word in by_systemd(kind)]
    done = subprocess.run(words, env=environment, check=False)
    assert done.returncode == code
    assert (tmp_path / "calls").read_text(encoding="utf-8").split() == by_airflow(kind)[1:]
    # systemd's own rule: on-failure is any code but 0, without the prevented ones; OnFailure follows the last try.
    final = unit(f"twofold-{kind}.service")["Service"]["RestartPreventExitStatus"].split()
    assert (code != 0 and str(code) not in final) == again
    if not alerted:
        return
    program, *arguments = shlex.split(unit("twofold-alert@.service")["Service"]["ExecStart"])
    told = tmp_path / "told"
    said = subprocess.run(
        [program.replace("/opt/twofold", str(ROOT)), *(word.replace("%i", f"twofold-{kind}") for word in arguments)],
        env={**environment, "MONITOR_EXIT_STATUS": str(code), "TWOFOLD_ALERT_COMMAND": f"cat > {told}"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stderr == told.read_text(encoding="utf-8")
    assert said.stderr.startswith(f"twofold: twofold-{kind} ")
    log = "audit" if kind == "audit" else "batch"
    assert f"(exit {code}, log {tmp_path}/logs/{log}.log)" in said.stderr
    assert said.stderr.count("\n") == 1


def test_the_alert_of_a_refused_publish_names_the_reason(tmp_path: Path) -> None:
    log = tmp_path / "logs" / "batch.log"
    log.parent.mkdir()
    log.write_text("batch: an old reason\nINFO noise\nbatch: the cut goes backwards\nWARN noise\n", encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "TWOFOLD_HOME": str(tmp_path)}
    said = {
        code: subprocess.run(
            [str(SCHEDULE / "alert.sh"), "night", code], env=environment, capture_output=True, text=True, check=True
        ).stderr
        for code in ("1", "3")
    }
    assert said["3"].endswith(": the cut goes backwards\n")
    assert "the cut" not in said["1"], "a failure leaves no line of its own: the newest may be another run's"


def test_the_alert_of_an_audit_names_the_records_and_not_a_rebuild(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "batch.log").write_text("batch: the cut goes backwards\n", encoding="utf-8")
    (tmp_path / "logs" / "audit.log").write_text("audit: an old one\naudit: 1 of 9 served records\n", encoding="utf-8")
    environment = {"PATH": os.environ["PATH"], "TWOFOLD_HOME": str(tmp_path)}
    for what in ("twofold-audit", "twofold_audit"):
        words = [str(SCHEDULE / "alert.sh"), what, "3"]
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True).stderr
        assert said.startswith(f"twofold: {what} found records that were served wrong (exit 3, log ")
        assert said.endswith(": 1 of 9 served records\n")


def test_an_alert_command_that_fails_is_no_success(tmp_path: Path) -> None:
    environment = {"PATH": os.environ["PATH"], "TWOFOLD_HOME": str(tmp_path), "TWOFOLD_ALERT_COMMAND": "exit 7"}
    done = subprocess.run([str(SCHEDULE / "alert.sh"), "night", "3"], env=environment, capture_output=True, check=False)
    assert done.returncode == 7


def test_the_alert_command_is_no_setting() -> None:
    # The services of the schedule share one environment file with it.
    assert load_settings(environ={"TWOFOLD_ALERT_COMMAND": "true", "TWOFOLD_HOME": "there"}).home == "there"

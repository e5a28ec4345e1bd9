"""`twofold audit` and what `twofold status` says of it: exit codes, the table, the JSON, and no person where none is asked for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.layered_home import drawn_log
from tests.unit.served_home import HOUR, Home, small
from twofold.cli import main


def ran(capsys: pytest.CaptureFixture[str], home: Home, *words: str) -> tuple[int, str, str]:
    code = main(["audit", "--home", home.settings.home, *words])
    told = capsys.readouterr()
    return code, told.out, told.err


def test_the_command_and_its_exit_codes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = small(tmp_path)
    code, out, err = ran(capsys, home)
    assert (code, err) == (0, "") and "0 served records judged" in out and "audit.sample_share is 0" in out
    home.serve(["user:1"])
    home.archive(6)
    code, out, err = ran(capsys, home, "--again", "--json")
    found = json.loads(out)
    assert (code, err, found["summary"]["lag"]["records"], found["summary"]["bugs"]) == (0, "", 1, 0)
    assert found["worst"][0]["lag"]["revenue_lifetime"] == {"EUR": 750} and "user:1" not in out
    home.alter(0, lambda line: line["values"].update(revenue_lifetime={"EUR": 499}, first_name="Ann"))
    code, out, err = ran(capsys, home, "--since", str(HOUR[5] + 1))
    assert code == 0 and "0 served records judged" in out
    code, out, err = ran(capsys, home, "--since", str(HOUR[5]))
    assert code == 3 and err.count("\n") == 1 and "1 of 1 served records are not what the raw log gives" in err
    text = " ".join(out.split())
    assert "1 wrong, 1 lag, 1 late" in text and "revenue_lifetime 1 EUR -1" in text and "7200 / 7200 / 7200" in text
    assert "user:1" not in out + err and "Ann" not in out + err
    code, out, err = ran(capsys, home, "--again", "--values")
    assert code == 3 and "user:1" in out and "Ann" in out and "user:1" not in err and "Ann" not in err
    code, out, err = ran(capsys, home, "--again", "--values", "--json")
    (record,) = json.loads(out)["records"]
    assert record["wrong"]["revenue_lifetime"] == {"served": {"EUR": 499}, "recomputed": {"EUR": 500}}
    assert ran(capsys, home, "--since", "yesterday")[0] == 2
    assert ran(capsys, Home(tmp_path / "b", *drawn_log(0)), "--home", str(tmp_path / "nowhere"))[0] == 2
    assert ran(capsys, home)[0] == 3


def test_status_tells_the_log_and_the_last_audit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    home = small(tmp_path)
    home.archive(2)
    place = ["--home", home.settings.home]
    assert main(["status", "--json", *place]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["served_log"] is None and told["audit"] is None
    home.serve(["user:1"])
    home.alter(0, lambda line: line["values"].update(tier="gold"))
    home.audit()
    home.audit(again=True)
    assert main(["status", "--json", *place]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["served_log"]["files"] == 1 and told["served_log"]["bytes"] > 500
    assert (told["audit"]["made_ms"], told["audit"]["judged"], told["audit"]["bugs"]) == (HOUR[5], 1, 1)
    assert main(["status", *place]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "in 1 files" in shown and "audit 2025-01-01T17:00:00.000Z: 1 judged, 1 wrong, 0 lag" in shown

"""`twofold batch`: which rebuild its options ask for."""

from __future__ import annotations

import pytest

from twofold.cli import main
from twofold.local import night


@pytest.mark.parametrize(("options", "mode"), [([], "full"), (["--incremental"], "incremental"), (["--compare"], "compare")])
def test_each_option_asks_for_its_rebuild(monkeypatch, tmp_path, options, mode) -> None:
    asked = []

    def run_batch(_settings, _as_of_ms, _config, _report, mode="full") -> night.Night:
        asked.append(mode)
        return night.Night(3, {}, "refused")

    monkeypatch.setattr(night, "run_batch", run_batch)
    assert main(["batch", "--home", str(tmp_path), *options]) == 3
    assert asked == [mode]


def test_an_incremental_night_cannot_be_compared(tmp_path, capsys) -> None:
    assert main(["batch", "--home", str(tmp_path), "--incremental", "--compare"]) == 2
    assert "leave out --incremental" in capsys.readouterr().err

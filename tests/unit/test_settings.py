"""Settings: where a value comes from, and the one line for a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.errors import SettingsError
from twofold.settings import load_settings


def test_later_sources_win(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("home: a\nkafka:\n  partitions: 3\nspeed:\n  linger_ms: 9\n")
    environ = {"TWOFOLD_KAFKA__PARTITIONS": "5", "TWOFOLD_HOME": "b", "TWOFOLD_DATA": "sets", "OTHER": "x"}
    settings = load_settings(file, environ=environ, home="c")
    assert (settings.home, settings.kafka.partitions, settings.speed.linger_ms) == ("c", 5, 9)
    assert load_settings(environ={**environ, "TWOFOLD_CONFIG": str(file)}).home == "b"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("kafka:\n  partitons: 3\n", "kafka.partitons"),
        ("speed:\n  mode: fast\n", "speed.mode"),
        ("[1]", "mapping"),
        ("a: [", "YAML"),
    ],
)
def test_a_wrong_setting_is_named_in_one_line(tmp_path: Path, text: str, named: str) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError, match=named) as error:
        load_settings(file, environ={})
    assert "\n" not in str(error.value)

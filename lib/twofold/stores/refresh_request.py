"""How a whole refresh of `personalization` is asked for: a file in the home's folder ``run``, gone once it is answered."""

from __future__ import annotations

import json
import time
from pathlib import Path

from twofold.stores.json_file import write_json


def _file(home: Path) -> Path:
    return home / "run" / "refresh.json"


def request_refresh(home: Path) -> None:
    """Ask for a refresh of every person from now on."""
    write_json(_file(home), {"at_ms": time.time_ns() // 1_000_000})


def requested(home: Path) -> int | None:
    """When a refresh was asked for that has not been answered (epoch ms), or ``None``."""
    try:
        return int(json.loads(_file(home).read_text(encoding="utf-8"))["at_ms"])
    except FileNotFoundError:
        return None


def answer(home: Path, at_ms: int) -> None:
    """The refresh asked for at ``at_ms`` is done; a later request stays."""
    if requested(home) == at_ms:
        _file(home).unlink(missing_ok=True)

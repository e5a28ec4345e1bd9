"""How a part says that it is ready: one small file a part in the home's folder ``run``."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

from twofold.stores.json_file import write_json


def ready_file(home: Path, part: str) -> Path:
    return home / "run" / f"{part}.json"


def write_ready(home: Path, part: str, **info: Any) -> None:
    """Say that a part's work has begun; replaced atomically."""
    write_json(ready_file(home, part), {"pid": os.getpid(), "state": "ready", "at_ms": time.time_ns() // 1_000_000, **info})


def read_ready(home: Path, part: str) -> dict[str, Any] | None:
    """What a part last said, or ``None``."""
    try:
        return dict(json.loads(ready_file(home, part).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None

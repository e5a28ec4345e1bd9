"""How a part says that it is ready: one small file a part in the home's folder ``run``."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any


def ready_file(home: Path, part: str) -> Path:
    return home / "run" / f"{part}.json"


def write_ready(home: Path, part: str, **info: Any) -> None:
    """Say that a part's work has begun; replaced atomically."""
    file = ready_file(home, part)
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(
        json.dumps({"pid": os.getpid(), "state": "ready", "at_ms": time.time_ns() // 1_000_000, **info}), encoding="utf-8"
    )
    partial.replace(file)


def read_ready(home: Path, part: str) -> dict[str, Any] | None:
    """What a part last said, or ``None``."""
    try:
        return dict(json.loads(ready_file(home, part).read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None

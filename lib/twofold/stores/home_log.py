"""What a home remembers of its log: the topic's id and where it started, stored once when the home was created, never re-read."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from twofold.errors import HomeError
from twofold.stores.json_file import write_json
from twofold.timeline import Offsets


@dataclass(frozen=True)
class HomeLog:
    """The log of a home: topic id of `events`, its start when the home was created, and that instant (epoch ms)."""

    topic_id: str
    log_start: Offsets
    created_ms: int


def _file(home: Path) -> Path:
    return home / "home.json"


def read_home_log(home: Path) -> HomeLog:
    """Raises :class:`HomeError` when the home has no log yet."""
    try:
        data = json.loads(_file(home).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HomeError(f"the home {home} has no log yet: start it with `twofold up`") from error
    return HomeLog(data["topic_id"], Offsets.from_json(data["log_start"]), data["created_ms"])


def write_home_log(home: Path, log: HomeLog) -> None:
    """Store the log once; an existing one is never changed. Raises :class:`HomeError` when it is of another topic."""
    if _file(home).exists():
        known = read_home_log(home)
        if known.topic_id != log.topic_id:
            raise HomeError(f"the home {home} belongs to topic {known.topic_id}, the broker has {log.topic_id}: use another home")
        return
    write_json(_file(home), {"topic_id": log.topic_id, "log_start": log.log_start.to_json(), "created_ms": log.created_ms})

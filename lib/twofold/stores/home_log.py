"""What a home remembers of its log: the topic's id and where it started, stored once when the home was created, never re-read.

Homes that share tables elsewhere (a node that runs the batch, one that serves) share that memory: it lies beside the tables.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from twofold.errors import HomeError
from twofold.settings import Settings
from twofold.stores.files import S3Folder, folder
from twofold.stores.json_file import write_json
from twofold.timeline import Offsets


@dataclass(frozen=True)
class HomeLog:
    """The log of a home: topic id of `events`, its start when the home was created, and that instant (epoch ms)."""

    topic_id: str
    log_start: Offsets
    created_ms: int


_SHARED = "log.json"


def _file(home: Path) -> Path:
    return home / "home.json"


def _of(data: dict[str, Any]) -> HomeLog:
    return HomeLog(data["topic_id"], Offsets.from_json(data["log_start"]), data["created_ms"])


def _data(log: HomeLog) -> dict[str, Any]:
    return {"topic_id": log.topic_id, "log_start": log.log_start.to_json(), "created_ms": log.created_ms}


def read_home_log(home: Path) -> HomeLog:
    """Raises :class:`HomeError` when the home has no log yet."""
    try:
        data = json.loads(_file(home).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HomeError(f"the home {home} has no log yet: start it with `twofold up`") from error
    return _of(data)


def write_home_log(home: Path, log: HomeLog) -> None:
    """Store the log once; an existing one is never changed. Raises :class:`HomeError` when it is of another topic."""
    if _file(home).exists():
        known = read_home_log(home)
        if known.topic_id != log.topic_id:
            raise HomeError(f"the home {home} belongs to topic {known.topic_id}, the broker has {log.topic_id}: use another home")
        return
    write_json(_file(home), _data(log))


def shared_home_log(settings: Settings) -> HomeLog:
    """The home's log; a new home takes it from beside its tables. Raises :class:`HomeError` when there is none there either."""
    try:
        return read_home_log(settings.home_path)
    except HomeError:
        found = folder(settings.tables_place).read(_SHARED) if settings.tables else None
        if found is None:
            raise
        write_home_log(settings.home_path, _of(json.loads(found)))
        return read_home_log(settings.home_path)


def share_home_log(settings: Settings, log: HomeLog) -> HomeLog:
    """Store the log of a home, and beside its tables; the first home's counts for all. The log that counts."""
    if settings.tables:
        place, body = settings.tables_place, json.dumps(_data(log)).encode()
        if place.on_s3:
            S3Folder(place).write_if(_SHARED, body, IfNoneMatch="*")
        elif folder(place).read(_SHARED) is None:
            folder(place).write(_SHARED, body)
        log = _of(json.loads(folder(place).read(_SHARED) or body))
    write_home_log(settings.home_path, log)
    return read_home_log(settings.home_path)

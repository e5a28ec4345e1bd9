"""What others ask of the one writer of `archive`: to delete entries, to compact. One file a request, one an answer.

A request is a file in the home's folder ``requests/archive``; it goes once its answer lies in ``answers/archive``. A writer that
dies between the two carries it out again: both are harmless twice. Only the writer of the same home answers.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from itertools import count
from pathlib import Path
from typing import Any

from twofold.errors import ArchiveError, UsageError
from twofold.stores.json_file import write_json
from twofold.timeline import Position

#: Positions of one request: they stand in one condition, which Spark compiles.
MAX_POSITIONS = 10_000
_ROUND_S, _ROUNDS_A_LOOK = 0.1, 20


def _requests(home: Path) -> Path:
    return home / "requests" / "archive"


def _answer(home: Path, request: str) -> Path:
    return home / "answers" / "archive" / f"{request}.json"


def _ask(home: Path, kind: str, **more: Any) -> str:
    # Named by the clock, so that they are served in the order in which they were asked.
    request = f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"
    write_json(_requests(home) / f"{request}.json", {"kind": kind, **more})
    return request


def ask_delete(home: Path, positions: Collection[Position]) -> str:
    """Ask for the entries at these positions to be deleted; returns the request's name. Raises :class:`UsageError`."""
    if not 0 < len(positions) <= MAX_POSITIONS:
        raise UsageError(f"a request deletes 1 to {MAX_POSITIONS} positions, not {len(positions)}: ask several times")
    return _ask(home, "delete", positions=[list(position) for position in sorted(positions)])


def ask_compact(home: Path) -> str:
    """Ask for small files to be joined; returns the request's name."""
    return _ask(home, "compact")


def waiting(home: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Requests without an answer, the oldest first."""
    for file in sorted(_requests(home).glob("*.json")):
        try:
            yield file.stem, json.loads(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            continue


def answer(home: Path, request: str, found: dict[str, Any]) -> None:
    """Say what came of a request: ``{"ok": True, …}``, or ``{"ok": False, "error": line}``."""
    write_json(_answer(home, request), found)
    (_requests(home) / f"{request}.json").unlink(missing_ok=True)


def answered(home: Path, request: str) -> dict[str, Any] | None:
    """The answer, taken away with the look; ``None`` while there is none. Raises :class:`ArchiveError` where it is an error."""
    try:
        found: dict[str, Any] = json.loads(_answer(home, request).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    _answer(home, request).unlink(missing_ok=True)
    if not found.pop("ok"):
        raise ArchiveError(f"the writer of the archive could not do it: {found['error']}")
    return found


def wait_answer(home: Path, request: str, timeout_s: float, served: Callable[[], bool]) -> dict[str, Any]:
    """Wait for the answer while ``served()`` says that somebody may give it; a request that nobody answers is withdrawn.

    Raises :class:`ArchiveError`.
    """
    deadline = time.monotonic() + timeout_s
    for rounds in count():
        # Asked first: an answer given by a writer that stopped right after it still counts.
        alive = rounds % _ROUNDS_A_LOOK != 0 or served()
        found = answered(home, request)
        if found is not None:
            return found
        if not alive or time.monotonic() > deadline:
            (_requests(home) / f"{request}.json").unlink(missing_ok=True)
            why = f"did not answer within {timeout_s:g} s" if alive else "is not running any more"
            raise ArchiveError(f"the writer of the archive {why}: look at {home / 'logs' / 'archive.log'}, then ask again")
        time.sleep(_ROUND_S)
    raise AssertionError

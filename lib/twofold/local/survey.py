"""The state of a home: what runs, how far each layer has read, and what was rejected last."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from twofold.errors import BrokerError, HomeError, PartError, StoreError, TopicError
from twofold.kafka.topics import log_offsets
from twofold.local.parts import status_parts
from twofold.reader import Reader
from twofold.settings import Settings
from twofold.stores.archive_entries import newest_rejection
from twofold.stores.archive_log import archive_end
from twofold.stores.audit_reports import newest_audit_report
from twofold.stores.personalization import read_told
from twofold.stores.served_log import served_files
from twofold.timeline import EMPTY_OFFSETS, Offsets


def survey(settings: Settings) -> dict[str, Any]:
    """``{"parts", "log_end", "high", "archive_end", "cut", "snapshot", "seq", "lag_entries", "lag_s", "newest_rejection",
    "served_log", "audit"}``; the last two are ``None`` where nothing is logged, and before the first audit.
    """
    parts = status_parts(settings)
    try:
        _start, log_end = log_offsets(settings)
    except (BrokerError, TopicError):
        log_end = EMPTY_OFFSETS
    archive = settings.table("archive")
    with Reader(settings) as reader:
        stores = reader.status()
    return {
        "parts": parts,
        "log_end": log_end.to_json() or stores.log_end,
        "high": stores.high,
        "archive_end": archive_end(archive).to_json(),
        "cut": stores.cut,
        "snapshot": stores.snapshot,
        "seq": stores.seq,
        "as_of": stores.as_of,
        "lag_entries": stores.lag_entries,
        "lag_s": None if stores.lag_ms is None else stores.lag_ms / 1000,
        "newest_rejection": newest_rejection(archive),
        "served_log": _served_log(settings),
        "audit": _audit(settings),
    }


def _served_log(settings: Settings) -> dict[str, Any] | None:
    files = served_files(settings.served_path)
    if not files and not settings.audit.sample_share:
        return None
    size_bytes = sum(file.size_bytes for file in files)
    return {"files": len(files), "bytes": size_bytes, "max_bytes": settings.audit.max_bytes}


def _audit(settings: Settings) -> dict[str, Any] | None:
    report = newest_audit_report(settings)
    if report is None:
        return None
    found = report.summary
    told = {"judged": found.judged, "bugs": found.bugs, "lag": found.lag.records, "late": found.late.records}
    return {"made_ms": report.made_ms, **told, "not_judged": report.not_judged, "not_logged": report.not_logged}


def wait_for_log_end(settings: Settings, timeout_s: float, report: Callable[[int], None] = lambda _left: None) -> dict[str, Any]:
    """Wait until follower (and so speed), archive and personalize, if it runs, have passed the log end seen at the call.

    Raises :class:`PartError`.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        try:
            _start, log_end = log_offsets(settings)
            break
        except BrokerError:
            # It may be starting again.
            if time.monotonic() > deadline:
                raise
    while True:
        high, archived, told = _high(settings), archive_end(settings.table("archive")), read_told(settings.home_path)
        left = log_end.entries_since(high) + log_end.entries_since(archived) + (0 if told is None else log_end.entries_since(told))
        if not left:
            passed = {"log_end": log_end.to_json(), "high": high.to_json(), "archive_end": archived.to_json()}
            return passed if told is None else {**passed, "personalized": told.to_json()}
        report(left)
        if time.monotonic() > deadline:
            layers = (("speed or follower", high), ("archive", archived), ("personalize", log_end if told is None else told))
            slow = [name for name, seen in layers if not seen.covers(log_end)]
            dead = [name for name, part in status_parts(settings).items() if not part["alive"]]
            raise PartError(
                f"{' and '.join(slow)} did not pass the log end within {timeout_s:g} s"
                + (f"; not running: {', '.join(dead)}" if dead else "")
                + f" (logs: {settings.home_path / 'logs'})"
            )
        time.sleep(0.1)


def _high(settings: Settings) -> Offsets:
    from twofold.stores.lmdb_hot import LmdbHotReader

    try:
        reader = LmdbHotReader(settings.hot_path, settings.hot.map_size_bytes)
    except (StoreError, HomeError):
        return EMPTY_OFFSETS
    try:
        return reader.vectors().high
    finally:
        reader.close()

"""Compaction and rollback as commands run them: through the writer that is there, in a job where Spark is needed."""

from __future__ import annotations

from collections.abc import Callable

from filelock import FileLock, Timeout

from twofold.errors import StoreError, UsageError
from twofold.local.night import Night, run_job
from twofold.settings import Settings
from twofold.stores.archive_requests import ask_compact, wait_answer

COMPACTED = ("archive", "manifest")


def compact(
    settings: Settings, table: str, timeout_s: float, config: str | None, report: Callable[[str], None] = lambda _step: None
) -> Night:
    """Join a table's small files. A running archive stream does it itself; else a Spark job does.

    Raises :class:`UsageError` for another table, :class:`ArchiveError` when the stream does not answer.
    """
    if table not in COMPACTED:
        raise UsageError(f"{table!r} is not compacted: {' and '.join(COMPACTED)} are; the other tables keep their files large")
    if table == "archive" and _writes_archive(settings):
        report("asked the running archive stream")
        request = ask_compact(settings.home_path)
        return Night(0, wait_answer(settings.home_path, request, timeout_s, lambda: _writes_archive(settings)))
    report("spark")
    return run_job(settings, "maintain", [f"compact-{table}"], config, report)


def roll_back(settings: Settings, seq: int, version: str, now_ms: int, config: str | None) -> Night:
    """Make an old snapshot current again. Raises as ``stores.rollback`` does."""
    from twofold.stores import rollback
    from twofold.stores.manifest import row_json

    if settings.tables_place.on_s3:
        # What would be refused is refused before Spark starts.
        rollback.rollback_row(settings, seq, version, now_ms)
        return run_job(settings, "maintain", [f"rollback-{seq}"], config, lambda _step: None)
    return Night(0, row_json(rollback.roll_back(settings, seq, version, now_ms)))


def _writes_archive(settings: Settings) -> bool:
    """Whether a process of this home is the archive's writer now."""
    lock = FileLock(str(settings.home_path / "archive.lock"))
    try:
        with lock.acquire(timeout=0):
            return False
    except Timeout:
        return True
    except OSError as error:
        raise StoreError(f"the home {settings.home_path} cannot be used: {error.strerror}") from error

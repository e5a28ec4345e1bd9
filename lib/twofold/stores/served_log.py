"""The log of served records: what a sample of persons was told, one JSON line a record, for `twofold audit` to judge.

Files lie in the home's folder ``served``, one a process and day, readable by their owner only: they hold persons' values. Lines are
appended whole. Whatever keeps a line from being written never stops a read: the lines are counted, a warning says so once, and a
line of the log tells how many are missing as soon as it can be written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import xxhash

from twofold.audit import Served
from twofold.errors import StoreError
from twofold.settings import Settings
from twofold.stores.json_file import write_json
from twofold.timeline import DAY_MS, parse_instant, show_time

_log = logging.getLogger(__name__)

#: What is buffered is written at this size, or with the first read after this age, and at close.
_BUFFER_BYTES, _BUFFER_MS = 1 << 16, 1_000
#: No home's salt: every node chooses the same persons.
_SAMPLE_SEED = 4_711
_ENCODER = msgspec.json.Encoder()


class Lost(msgspec.Struct, frozen=True, tag_field="kind", tag="lost"):
    """Records that were served and could not be logged, and why; ``at_ms``: epoch ms of the first."""

    lost: int
    reason: str
    at_ms: int


_DECODER: msgspec.json.Decoder[Served | Lost] = msgspec.json.Decoder(Served | Lost)  # type: ignore[arg-type]


def sampled(person: str, share: float) -> bool:
    """Whether a person belongs to the sample: the same on every node; who is in a smaller share is in every larger one."""
    return xxhash.xxh64_intdigest(person.encode(), seed=_SAMPLE_SEED) < share * 2**64


# --- writing ----------------------------------------------------------------------------------------------------------------------
class ServedLog:
    """Takes served records of one process. Close it: what is buffered is written then."""

    def __init__(self, settings: Settings) -> None:
        self._folder, self._max_bytes = settings.served_path, settings.audit.max_bytes
        self._share = settings.audit.sample_share
        self._buffer = bytearray()
        self._lines = self._since_ms = 0
        self._file: int | None = None
        self._day = -1
        self._untold: Lost | None = None
        self._warned = False
        #: Records of this process that could not be logged.
        self.lost = 0

    def wants(self, person: str) -> bool:
        """Whether the records of a person are logged."""
        return sampled(person, self._share)

    def add(self, served: Served) -> None:
        """Take a record; it is on disk after the next :meth:`flush`."""
        now_ms = served.served_ms
        if now_ms // DAY_MS != self._day:
            self.flush()
            self._leave_file()
            self._day = now_ms // DAY_MS
        if not self._lines:
            self._since_ms = now_ms
        self._buffer += _ENCODER.encode(served) + b"\n"
        self._lines += 1
        if len(self._buffer) >= _BUFFER_BYTES:
            self.flush()

    def tick(self, now_ms: int) -> None:
        """Write what has been waiting for long enough: to be called with each read."""
        if self._lines and now_ms - self._since_ms >= _BUFFER_MS:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered. What cannot be written is counted in ``lost``; this raises nothing."""
        if not self._lines:
            return
        data, lines, since_ms = bytes(self._buffer), self._lines, self._since_ms
        self._buffer.clear()
        self._lines = 0
        try:
            if sum(file.size_bytes for file in served_files(self._folder)) + len(data) > self._max_bytes:
                self._lose(lines, f"{self._folder} has reached audit.max_bytes", since_ms)
                return
            self._tell_lost()
            self._append(data)
        except OSError as error:
            self._lose(lines, f"{self._folder} cannot be written: {error.strerror}", since_ms)

    def _lose(self, lines: int, reason: str, at_ms: int) -> None:
        self.lost += lines
        first = self._untold is None and not self._warned
        untold = self._untold or Lost(0, reason, at_ms)
        self._untold = Lost(untold.lost + lines, reason, untold.at_ms)
        if first:
            # The audit hears at once that the log has stopped; how many more are missing, once it goes on or is closed.
            self._warned = True
            _log.warning("twofold: served records are not logged any more: %s; reads go on", reason)
            with contextlib.suppress(OSError):
                self._tell_lost()

    def _tell_lost(self) -> None:
        if self._untold is not None:
            self._append(_ENCODER.encode(self._untold) + b"\n")
            self._untold = None

    def _append(self, data: bytes) -> None:
        """Whole, or not at all. Raises ``OSError``."""
        if self._file is None:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            name = f"{show_time(self._day * DAY_MS)[:10]}-{os.getpid()}-{secrets.token_hex(4)}.jsonl"
            self._file = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        whole = os.fstat(self._file).st_size
        left = memoryview(data)
        try:
            while left:
                left = left[os.write(self._file, left) :]
        except OSError:
            # A full disk takes a part: nothing of it may stay.
            with contextlib.suppress(OSError):
                os.ftruncate(self._file, whole)
            raise

    def _leave_file(self) -> None:
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def close(self) -> None:
        """Write what is buffered, and how many records are missing."""
        self.flush()
        with contextlib.suppress(OSError):
            self._tell_lost()
        self._leave_file()


# --- reading ----------------------------------------------------------------------------------------------------------------------
class ServedFile(NamedTuple):
    """A file of the log: the UTC day of its lines (epoch ms), and its size when it was looked at."""

    path: Path
    day_ms: int
    size_bytes: int


class Progress(msgspec.Struct):
    """How far a file was judged: bytes up to which every line was looked at, and where below that the lines begin that wait.

    ``torn``: the end without a line's end was told of.
    """

    read: int = 0
    waiting: list[int] = []
    torn: bool = False


class Line(NamedTuple):
    """A line of a file and where it begins; ``found`` is ``None`` where it cannot be read, as a crash may leave the last one."""

    start: int
    end: int
    found: Served | Lost | None
    whole: bool


def served_files(folder: Path) -> list[ServedFile]:
    """The files of the log, the oldest day first."""
    found = []
    for path in sorted(folder.glob("*.jsonl")) if folder.is_dir() else ():
        day_ms = parse_instant(f"{path.name[:10]}T00:00:00Z")
        # An audit may remove it meanwhile.
        with contextlib.suppress(FileNotFoundError):
            if day_ms is not None:
                found.append(ServedFile(path, day_ms, path.stat().st_size))
    return found


def read_lines(file: ServedFile, progress: Progress) -> Iterator[Line]:
    """Lines that wait, and those from ``progress.read`` on as far as the file went. Raises :class:`StoreError`."""
    try:
        with file.path.open("rb") as lines:
            for start in progress.waiting:
                lines.seek(start)
                yield _line(start, lines.readline())
            lines.seek(progress.read)
            start = progress.read
            while start < file.size_bytes and (data := lines.readline(file.size_bytes - start)):
                yield _line(start, data)
                start += len(data)
    except OSError as error:
        raise StoreError(f"the served log {file.path} cannot be read: {error.strerror}; run as the owner of the home") from error


def _line(start: int, data: bytes) -> Line:
    whole = data.endswith(b"\n")
    found: Served | Lost | None = None
    if whole:
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            found = _DECODER.decode(data)
    return Line(start, start + len(data), found, whole)


# --- what was judged --------------------------------------------------------------------------------------------------------------
def _progress_file(folder: Path) -> Path:
    return folder / "progress.json"


def read_progress(folder: Path) -> dict[str, Progress]:
    """File name -> how far it was judged. Raises :class:`StoreError` where that is damaged."""
    file = _progress_file(folder)
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Progress])
    except FileNotFoundError:
        return {}
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(f"{file} is damaged: {error}; remove it, and what is still there is judged again") from error


def write_progress(folder: Path, progress: dict[str, Progress]) -> None:
    """Remember it, atomically."""
    data: dict[str, Any] = msgspec.to_builtins(progress)
    write_json(_progress_file(folder), data)


def remove_judged(folder: Path, progress: dict[str, Progress], keep_days: int, now_ms: int) -> int:
    """Remove files whose day ended ``keep_days`` ago or more and of which every line was judged; returns how many."""
    gone = 0
    for file in served_files(folder):
        known = progress.get(file.path.name)
        old = file.day_ms + (keep_days + 1) * DAY_MS <= now_ms
        if known is not None and old and not known.waiting and (known.torn or known.read >= file.size_bytes):
            file.path.unlink(missing_ok=True)
            del progress[file.path.name]
            gone += 1
    return gone


__all__ = [
    "Line",
    "Lost",
    "Progress",
    "ServedFile",
    "ServedLog",
    "read_lines",
    "read_progress",
    "remove_judged",
    "sampled",
    "served_files",
    "write_progress",
]

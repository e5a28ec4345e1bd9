"""One writer a table. On S3 two Spark drivers would overwrite each other's commits, so a writer holds a lease there.

In a home a file lock that dies with its process keeps a second writer out. Tables on S3 may be written from several homes: beside
them lies one object a writer, taken and renewed by conditional writes, so that of two takers one wins. Its age is read on the
store's clock, never by comparing two machines'. A writer of the same home takes its predecessor's lease over at once: the lock
says that it is dead. A lease is no proof against a driver that sleeps between its last look and its commit for longer than the
lease; docs/places.md says what then still holds.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import socket
import threading
import uuid
from email.utils import parsedate_to_datetime
from typing import Any

from filelock import FileLock, Timeout

from twofold.errors import SecondWriter, StoreError, WriterFenced
from twofold.settings import Settings
from twofold.stores.files import S3Folder

#: The store's clock shows whole seconds, twice.
_CLOCK_GRAIN_MS = 2_000
_RENEWALS_PER_LEASE = 3
_TAKES = 3


class Writer:
    """The right to write what one job writes, held until :meth:`close` or the end of the process. A context manager."""

    def __init__(self, settings: Settings, name: str, lock: FileLock, lease: _Lease | None) -> None:
        self.name = name
        self._settings, self._lock, self._lease = settings, lock, lease

    def confirm(self) -> None:
        """Make sure of the right, just before a commit. Raises :class:`WriterFenced` when another has taken it."""
        if self._lease is not None:
            self._lease.renew()

    @property
    def lost(self) -> bool:
        return self._lease is not None and self._lease.lost

    def close(self) -> None:
        try:
            if self._lease is not None:
                self._lease.release()
        finally:
            self._lock.release()

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.close()


def take_writer(settings: Settings, name: str, error: type[SecondWriter] = SecondWriter, what: str = "") -> Writer:
    """Become the one writer ``name``; ``what`` it is called in the line of the ``error`` that a second one gets (exit 3)."""
    what = what or name
    settings.home_path.mkdir(parents=True, exist_ok=True)
    lock = FileLock(str(settings.home_path / f"{name}.lock"))
    try:
        lock.acquire(timeout=0)
    except Timeout as held:
        raise error(f"another {what} is running on {settings.home_path}: wait for it or stop it, then start again") from held
    try:
        lease = _Lease(settings, name, error, what) if settings.tables_place.on_s3 else None
    except BaseException:
        lock.release()
        raise
    return Writer(settings, name, lock, lease)


_process: dict[tuple[str, str], Writer] = {}
_process_lock = threading.Lock()


def process_writer(settings: Settings, name: str) -> Writer:
    """The writer ``name`` of this process, for a stream: taken at its first start and kept until the process ends.

    Raises :class:`SecondWriter` when another process has it.
    """
    key = (str(settings.home_path), name)
    with _process_lock:
        if key not in _process or _process[key].lost:
            _process[key] = take_writer(settings, name)
        return _process[key]


@atexit.register
def release_writers() -> None:
    """Give up what this process's streams wrote; after the last batch, so nobody waits for it to be found dead."""
    with _process_lock:
        for key in list(_process):
            with contextlib.suppress(StoreError):
                _process.pop(key).close()


def fenced() -> str | None:
    """Name of a writer that this process has lost to another, if any."""
    return next((writer.name for writer in _process.values() if writer.lost), None)


def _home_id(settings: Settings) -> str:
    """An id that a home keeps for ever: what says that a lease is this home's own."""
    file = settings.home_path / "writer-id"
    try:
        with file.open("x", encoding="utf-8") as out:
            out.write(uuid.uuid4().hex)
    except FileExistsError:
        pass
    return file.read_text(encoding="utf-8")


class _Lease:
    """One object ``leases/NAME.json`` beside the tables: who writes, and a number that changes at each renewal."""

    def __init__(self, settings: Settings, name: str, error: type[SecondWriter], what: str) -> None:
        self._files, self._file = S3Folder(settings.tables_place / "leases"), f"{name}.json"
        self._where, self._error, self._what = settings.tables_place, error, what
        self._lease_ms = settings.s3.lease_ms
        self._who = {
            "home": str(settings.home_path),
            "home_id": _home_id(settings),
            "host": socket.gethostname(),
            "lease_ms": self._lease_ms,
        }
        self._lock, self._stop, self.lost = threading.Lock(), threading.Event(), False
        self._tag = self._take()
        threading.Thread(target=self._keep, name=f"lease-{name}", daemon=True).start()

    def _body(self, **more: Any) -> tuple[str, bytes]:
        number = uuid.uuid4().hex
        return number, json.dumps({**self._who, "number": number, **more}).encode()

    def _write(self, condition: dict[str, str], **more: Any) -> str | None:
        """The new tag, or ``None`` when another's write came first. A write whose answer was lost counts as ours."""
        number, body = self._body(**more)
        tag = self._files.write_if(self._file, body, **condition)
        if tag is not None:
            return tag
        found = self._files.read_tagged(self._file)
        return str(found[1]["ETag"]) if found is not None and json.loads(found[0])["number"] == number else None

    def _take(self) -> str:
        who: dict[str, Any] = {}
        for _attempt in range(_TAKES):
            tag = self._write({"IfNoneMatch": "*"})
            if tag is not None:
                return tag
            found = self._files.read_tagged(self._file)
            if found is None:
                continue
            who = json.loads(found[0])
            free = who.get("released") or who["home_id"] == self._who["home_id"]
            if not free and _age_ms(found[1]) <= who["lease_ms"] + _CLOCK_GRAIN_MS:
                break
            tag = self._write({"IfMatch": found[1]["ETag"]})
            if tag is not None:
                return tag
        raise self._error(
            f"another {self._what} is running on {self._where} (host {who.get('host')}, home {who.get('home')}): stop it, "
            f"or after a crash wait {who.get('lease_ms', self._lease_ms) // 1000} s, then start again"
        )

    def renew(self) -> None:
        """Raises :class:`WriterFenced` when the lease is another's."""
        with self._lock:
            if not self.lost:
                tag = self._write({"IfMatch": self._tag})
                if tag is not None:
                    self._tag = tag
                    return
                self.lost = True
        raise WriterFenced(f"another {self._what} has taken over {self._where}: this one stops, its last batch is not committed")

    def _keep(self) -> None:
        while not self._stop.wait(self._lease_ms / 1000 / _RENEWALS_PER_LEASE):
            try:
                self.renew()
            except StoreError:
                # The store does not answer: whoever commits will hear it.
                continue
            except WriterFenced:
                return

    def release(self) -> None:
        self._stop.set()
        with self._lock:
            if not self.lost:
                self._write({"IfMatch": self._tag}, released=True)
                self.lost = True


def _age_ms(answer: dict[str, Any]) -> float:
    """How long ago an object was written, by the store's clock alone."""
    now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
    return float((now - answer["LastModified"]).total_seconds() * 1000)

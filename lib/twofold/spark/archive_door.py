"""The archive writer's door: what others ask of the table is done by the process that appends to it, never beside it.

A DELETE that runs while rows are appended loses to them again and again, and on local disk and S3 two drivers could even
overwrite each other's commits. So the writer serves requests itself, in a thread of its own: a DELETE while no append is under way
(an append waits for it), an OPTIMIZE at any time, because it never conflicts. An idle stream serves too: requests are looked for
every second.

A DELETE's commit says that it is maintenance, and carries the committed end as an empty range, so that the newest commits still
tell how far the archive is. An OPTIMIZE carries no range: the stream may have gone on when it commits.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import groupby
from typing import Any

from twofold.settings import Settings
from twofold.stores.archive_log import archive_end
from twofold.stores.archive_requests import answer, waiting

_POLL_S = 1.0
_METADATA = "spark.databricks.delta.commitInfo.userMetadata"
#: A row that is deleted rewrites its whole file: files are joined to this size and no further.
_FILE_BYTES = 256 * 1024 * 1024
_COMPACTION = {
    "spark.databricks.delta.optimize.maxFileSize": str(_FILE_BYTES),
    "spark.databricks.delta.optimize.minFileSize": str(_FILE_BYTES // 2),
}


def at_positions(positions: Iterable[tuple[str, int, int]]) -> str:
    """SQL condition that holds for the entries at these positions."""
    parts = []
    for (topic, partition), group in groupby(sorted(positions), key=lambda position: position[:2]):
        offsets = ", ".join(str(int(offset)) for _topic, _partition, offset in group)
        name = topic.replace("\\", "\\\\").replace("'", "\\'")
        parts.append(f"(topic_id = '{name}' AND partition = {int(partition)} AND offset IN ({offsets}))")
    return " OR ".join(parts)


def optimize(spark: Any, location: str, metadata: dict[str, Any]) -> dict[str, int]:
    """Join small files of a table: ``{"added", "removed"}`` files. Rows and their order in time stay as they are."""
    session = spark.newSession()
    for key, value in {**_COMPACTION, _METADATA: json.dumps(metadata)}.items():
        session.conf.set(key, value)
    (done,) = session.sql(f"OPTIMIZE delta.`{location}`").collect()
    return {"added": done.metrics.numFilesAdded, "removed": done.metrics.numFilesRemoved}


_open: dict[str, ArchiveDoor] = {}


class ArchiveDoor:
    """Serves the requests of a home's archive. The process that holds it must be the one writer of the table."""

    def __init__(self, spark: Any, settings: Settings, confirm: Callable[[], None]) -> None:
        """``confirm`` raises when the right to write the table is another's by now."""
        self._spark, self._home, self._location = spark, settings.home_path, settings.table("archive")
        self._confirm = confirm
        self._queue, self._change = threading.Lock(), threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="archive-door", daemon=True)

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Held around each append and each delete: one at a time, and who waits is next."""
        with self._queue:
            self._change.acquire()
        try:
            yield
        finally:
            self._change.release()

    def open(self) -> None:
        """Serve from now on, in a thread that ends with the process, or when the same home's door is opened again in it."""
        earlier = _open.pop(str(self._home), None)
        if earlier is not None:
            earlier.close()
        _open[str(self._home)] = self
        self._thread.start()

    def close(self) -> None:
        """Serve no more; returns once nothing is under way."""
        self._stop.set()
        self._thread.join()

    def _keep(self) -> None:
        while not self._stop.wait(_POLL_S):
            self.serve()

    def serve(self) -> int:
        """Do what is asked now, the oldest first; returns how many requests were answered."""
        count = 0
        for request, wanted in waiting(self._home):
            try:
                found = {"ok": True, **self._do(request, wanted)}
            except Exception as error:
                # Whatever it is, the one who asked hears it, and the stream goes on.
                found = {"ok": False, "error": " ".join(str(error).split())[:500]}
            answer(self._home, request, found)
            count += 1
        return count

    def _do(self, request: str, wanted: dict[str, Any]) -> dict[str, Any]:
        metadata = {"kind": "maintenance", "request": request}
        if wanted["kind"] == "compact":
            self._confirm()
            return optimize(self._spark, self._location, metadata)
        return self._delete(wanted["positions"], metadata)

    def _delete(self, positions: list[Any], metadata: dict[str, Any]) -> dict[str, Any]:
        session = self._spark.newSession()
        condition = at_positions(tuple(position) for position in positions)
        with self.changing():
            self._confirm()
            end = archive_end(self._location).to_json()
            session.conf.set(_METADATA, json.dumps({**metadata, "start": end, "end": end} if end else metadata))
            (done,) = session.sql(f"DELETE FROM delta.`{self._location}` WHERE {condition}").collect()
        return {"deleted": done.num_affected_rows}

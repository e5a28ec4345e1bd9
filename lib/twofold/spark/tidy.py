"""Keeps `personalization` small: few files, and not many more rows than people. Beside the appends, in a thread of its own."""

from __future__ import annotations

from threading import Thread
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from twofold.settings import PersonalizeSettings
from twofold.spark.personalization import compact, gather_files
from twofold.stores.places import open_table
from twofold.timeline import MINUTE_MS

#: How often the table's files are counted.
_LOOK_EVERY_MS = MINUTE_MS // 2
#: A process's first tidying compiles for longer than it works, and live batches wait meanwhile: it comes with few files and rows,
#: in the minutes in which everything else compiles as well.
_FIRST_SHARE, _FIRST_ROWS = 8, 100_000


class Tidy:
    """Looks at the table now and then; what it starts ends by itself."""

    def __init__(self, spark: Any, location: str, settings: PersonalizeSettings) -> None:
        self._spark, self._location, self._settings = spark, location, settings
        self._looked_ms = 0
        self._persons = 0
        self._thread: Thread | None = None
        self._failure: BaseException | None = None

    def is_due(self, now_ms: int) -> bool:
        """Whether the table has many files, and none of this runs. Raises what an earlier tidying died of."""
        if self._failure is not None:
            raise self._failure
        if now_ms < self._looked_ms + _LOOK_EVERY_MS or (self._thread is not None and self._thread.is_alive()):
            return False
        self._looked_ms = now_ms
        files = self._files()
        early = self._thread is None and _rows(files) <= _FIRST_ROWS
        return len(files) >= max(2, self._settings.tidy_files // (_FIRST_SHARE if early else 1))

    def start(self, era: int) -> None:
        """Tidy the eras up to ``era``, to which nothing is appended any more."""
        whole = _rows(self._files()) > self._settings.tidy_rows_per_person * self._persons
        self._thread = Thread(target=self._run, args=(era, whole), name="tidy", daemon=True)
        self._thread.start()

    def _files(self) -> pa.Table:
        return pa.table(open_table(self._location).get_add_actions(flatten=True))

    def _run(self, era: int, whole: bool) -> None:
        # A pool of its own: beside it live batches get their share of the cores.
        self._spark.sparkContext.setLocalProperty("spark.scheduler.pool", "tidy")
        try:
            if whole:
                compact(self._spark, self._location, era)
                files = self._files()
                self._persons = _rows(files.filter(pc.equal(files["partition.era"], era)))
            else:
                gather_files(self._spark, self._location)
        except BaseException as error:
            self._failure = error


def _rows(files: pa.Table) -> int:
    return pc.sum(files["num_records"]).as_py() or 0

"""The table `personalization` without Spark: a log of rows, and the current one of each person.

A row holds at its instant ``t`` and offsets ``o``. Of a person's rows the one with the highest ``batch`` is current. A current row
is ``stale`` once ``valid_until`` has passed, and no longer ``sendable`` once ``sendable_until`` has: whoever reads says when.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from twofold.stores.places import dataset_of, open_table, table_exists
from twofold.stores.ready import read_ready, ready_file, write_ready
from twofold.timeline import EMPTY_OFFSETS, Offsets

#: (name, Spark type, comment) of what stands beside ``person`` and the features; first, because Delta keeps statistics of them.
ROW_COLUMNS = (
    ("person", "string", "person key"),
    ("batch", "bigint", "number of the write: of a person's rows the highest is current"),
    ("era", "bigint", "partition: tidying rewrites whole eras, and appends go to a newer one meanwhile"),
    ("t", "bigint", "instant of the row, epoch ms"),
    (
        "valid_until",
        "bigint",
        "first instant at which values (decayed scores apart) or segments may differ, epoch ms; null: never",
    ),
    ("sendable", "boolean", "whether the person may be written to, at t; advisory: ask the library before sending"),
    ("sendable_until", "bigint", "sendable counts as false from here on, epoch ms; null where it is false"),
    ("seq", "bigint", "sequence number of the snapshot"),
    ("snapshot", "string", "snapshot id"),
    ("o", "string", "offsets vector of the row: {topic id: {partition: next}}, JSON"),
)
#: The last column: longest, and read by few.
RECORD_COLUMN = ("record", "string", "the whole record, JSON, as `twofold record --json` writes it")


class Commit(NamedTuple):
    """What a commit of the writer says: its number, the snapshot that every row has been refreshed from, the offsets below which
    whoever was touched has a row, and the version of the rules of the rows' segments."""

    batch: int = 0
    refreshed: int = -1
    told: Offsets = EMPTY_OFFSETS
    segments: str = ""

    def to_json(self) -> dict[str, Any]:
        return {"batch": self.batch, "refreshed": self.refreshed, "told": self.told.to_json(), "segments": self.segments}


def newest_commit(location: str) -> Commit:
    """The writer's newest commit; the first of all where there is none."""
    if table_exists(location):
        table = open_table(location)
        for limit in (8, None):
            for commit in table.history(limit):
                try:
                    data = json.loads(commit.get("userMetadata") or "")
                    told = Offsets.from_json(data["told"])
                    return Commit(int(data["batch"]), int(data["refreshed"]), told, data.get("segments", ""))
                except (ValueError, KeyError, TypeError):
                    # Maintenance, or nobody's: walked over.
                    continue
    return Commit()


#: Where the writer says how far the table is, beside the parts' files of readiness.
_TOLD = "personalization"


def write_told(home: Path, told: Offsets) -> None:
    """Say that whoever was touched below ``told`` has a row."""
    write_ready(home, _TOLD, told=told.to_json())


def read_told(home: Path) -> Offsets | None:
    """How far the table is, or ``None`` where nothing has written it since the home was started."""
    said = read_ready(home, _TOLD)
    return None if said is None else Offsets.from_json(said["told"])


def forget_told(home: Path) -> None:
    """What an earlier writer said counts no more."""
    ready_file(home, _TOLD).unlink(missing_ok=True)


def current_rows(
    location: str, now_ms: int, persons: Collection[str] | None = None, columns: Iterable[str] | None = None
) -> pa.Table:
    """The current row of every person (or of ``persons``), with ``stale``; ``sendable`` as it counts at ``now_ms``.

    ``columns``: only these (``person`` and ``batch`` always).
    """
    dataset = dataset_of(open_table(location))
    chosen = dataset.schema.names if columns is None else list(dict.fromkeys(("person", "batch", *columns)))
    needed = [*chosen, *(name for name in ("valid_until", "sendable_until") if name not in chosen)]
    found = dataset.to_table(columns=needed, filter=None if persons is None else ds.field("person").isin(list(persons)))
    rows = found.take(_newest(found))
    stale = pc.fill_null(pc.less_equal(rows["valid_until"], now_ms), False)
    if "sendable" in chosen:
        holds = pc.fill_null(pc.greater(rows["sendable_until"], now_ms), False)
        rows = rows.set_column(rows.schema.get_field_index("sendable"), "sendable", pc.and_(rows["sendable"], holds))
    return rows.select(chosen).append_column("stale", stale)


def _newest(rows: pa.Table) -> pa.Array:
    """Places of the rows with a person's highest batch."""
    keys = rows.select(["person", "batch"]).append_column("place", pa.array(range(len(rows)), pa.int64()))
    keys = keys.take(pc.sort_indices(keys, [("batch", "ascending")]))
    return keys.group_by("person", use_threads=False).aggregate([("place", "last")])["place_last"]


def current_row(location: str, person: str, now_ms: int) -> dict[str, Any] | None:
    """The current row of one person, or ``None``."""
    found = current_rows(location, now_ms, [person]).to_pylist()
    return found[0] if found else None


def rows_of_batch(location: str, batch: int, columns: list[str]) -> pa.Table:
    """Columns of the rows that one batch wrote; opens that batch's files only."""
    return dataset_of(open_table(location)).to_table(columns=columns, filter=ds.field("batch") == batch)


def current_view_sql(rows: str, columns: Iterable[str], now: str) -> str:
    """The current view as SQL of any engine: ``rows`` a table or a path's function, ``now`` an expression of epoch ms.

    Spark: ``delta.`PATH``` and ``unix_millis(current_timestamp())``; DuckDB: a registered table and ``epoch_ms(now())``.
    """
    lapsing = {"sendable": f"p.sendable AND coalesce(p.sendable_until > {now}, false) AS sendable"}
    chosen = ", ".join(lapsing.get(name, f"p.{name}") for name in columns)
    newest = f"SELECT person AS newest_person, max(batch) AS newest_batch FROM {rows} GROUP BY person"
    return (
        f"SELECT {chosen}, coalesce(p.valid_until <= {now}, false) AS stale FROM {rows} p "
        f"JOIN ({newest}) n ON p.person = n.newest_person AND p.batch = n.newest_batch"
    )

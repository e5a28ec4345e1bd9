"""What the archive's commits say: the offsets each one folded, and the entries that admission rejected. No Spark.

Every commit of the archive stream carries ``{"start", "end", "app", "batch"}`` in its ``userMetadata`` (offsets as
``{topic id: {partition: next}}``). Commits of maintenance carry none and are walked over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow.dataset as ds

from twofold.stores.places import dataset_of, open_table, table_exists
from twofold.timeline import EMPTY_OFFSETS, Offsets


class CommittedRange(NamedTuple):
    """One commit of the stream: table version, offsets before it and after it."""

    version: int
    start: Offsets
    end: Offsets


def _range(commit: dict[str, Any]) -> CommittedRange | None:
    text = commit.get("userMetadata")
    if not text:
        return None
    try:
        data = json.loads(text)
        return CommittedRange(int(commit["version"]), Offsets.from_json(data["start"]), Offsets.from_json(data["end"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        # Somebody else's metadata: not a range of ours.
        return None


def committed_ranges(location: str, version: int | None = None) -> list[CommittedRange]:
    """The ranges of all commits up to ``version`` (default: all), oldest first; empty when there is no archive."""
    if not table_exists(location):
        return []
    found = [r for commit in open_table(location).history() if (r := _range(commit)) is not None]
    return sorted(r for r in found if version is None or r.version <= version)


def archive_end(location: str, version: int | None = None) -> Offsets:
    """The last committed end (at a version of the table, default: now), empty before the first commit."""
    if not table_exists(location):
        return EMPTY_OFFSETS
    table = open_table(location, version)
    for limit in (8, None):
        for commit in table.history(limit):
            found = _range(commit)
            if found is not None and (version is None or found.version <= version):
                return found.end
    return EMPTY_OFFSETS


def deletions(location: str, since_ms: int) -> list[int]:
    """Versions of the table's commits since ``since_ms`` (epoch ms, the writer's clock) that deleted entries, oldest first."""
    found = open_table(location).history()
    return sorted(int(c["version"]) for c in found if c.get("operation") == "DELETE" and int(c.get("timestamp", 0)) >= since_ms)


def quarantine(location: str, reason: str | None = None) -> Iterator[dict[str, Any]]:
    """Rejected entries: ``topic_id, partition, offset, broker_ms, verdict, value``, in position order within a file."""
    if not table_exists(location):
        return
    columns = ["topic_id", "partition", "offset", "broker_ms", "verdict", "value"]
    rejected = ds.field("verdict") != "ok" if reason is None else ds.field("verdict") == reason
    for batch in dataset_of(open_table(location)).to_batches(columns=columns, filter=rejected):
        yield from batch.to_pylist()

"""A table comes to be once: one creator at a time on a machine, and what a torn creation left is removed first.

A creation that is killed, or finds the disk full, may leave a log without a commit. Spark then calls the place a table, and
neither creates nor finds one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from twofold.stores.places import as_place


def remove_torn(location: str) -> None:
    """Remove the log of a table that has no commit. On S3 each file comes whole or not at all, so there nothing is torn."""
    if as_place(location).on_s3:
        return
    log = Path(location) / "_delta_log"
    # Spark gives a commit its name when it is whole; until then it begins with a dot.
    if log.is_dir() and not any(file.suffix in (".json", ".parquet") and file.name[0] != "." for file in log.iterdir()):
        shutil.rmtree(log)


@contextmanager
def creating(location: str) -> Iterator[None]:
    """Hold this around the creation of a table that several processes may create."""
    if as_place(location).on_s3:
        yield
        return
    folder = Path(location)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.creating"):
        remove_torn(location)
        yield

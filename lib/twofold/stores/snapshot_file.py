"""The snapshot file: every person of one published batch in one read-only LMDB file, person key -> packed person."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import lmdb
import pyarrow.dataset as ds

from twofold.errors import StoreError
from twofold.stores.lmdb_env import close_shared, open_shared
from twofold.stores.person_blobs import pack_batch
from twofold.stores.places import data_files
from twofold.views import ManifestRow, PersonSnapshot

#: No person key starts with NUL, so the file's own keys cannot be a person.
_ID_KEY = b"\0snapshot"
_COLUMNS = ("person", "older_json", "older_ids", "retracted_ids", "recent")
_BATCH_ROWS = 20_000
_PUTS_PER_TRANSACTION = 50_000


def snapshot_path(folder: Path, snapshot: str) -> Path:
    return folder / f"{snapshot}.lmdb"


def write(path: Path, snapshot: str, persons: Iterable[tuple[str, bytes]], progress: Callable[[int], None] | None = None) -> int:
    """Write (person, blob) pairs in ascending key order; the name exists only once the file is whole. Returns the count."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.unlink(missing_ok=True)
    # Sparse: only pages in use take room. The bound is the address space, not the disk.
    env = lmdb.open(str(partial), map_size=1 << 40, subdir=False, lock=False, sync=False, metasync=False)
    count = 0
    try:
        source = iter(persons)
        while True:
            with env.begin(write=True) as txn:
                if count == 0:
                    txn.put(_ID_KEY, snapshot.encode())
                put = 0
                for person, blob in source:
                    if not txn.put(person.encode("utf-8"), blob, append=True):
                        raise StoreError(
                            f"snapshot {snapshot}: persons do not come in ascending order; this is a fault of the rebuild"
                        )
                    put += 1
                    if put == _PUTS_PER_TRANSACTION:
                        break
            count += put
            if progress is not None:
                progress(count)
            if put < _PUTS_PER_TRANSACTION:
                break
        env.sync(True)
    except BaseException:
        env.close()
        partial.unlink(missing_ok=True)
        raise
    env.close()
    partial.replace(path)
    return count


def _file_persons(path: str, filesystem: Any) -> Iterator[tuple[bytes, str, bytes]]:
    file = ds.dataset(path, format="parquet", filesystem=filesystem)
    # A version of before retractions lacks the column.
    columns = [name for name in _COLUMNS if name in file.schema.names]
    for batch in file.to_batches(columns=columns, batch_size=_BATCH_ROWS, use_threads=False):
        for person, blob in pack_batch(batch):
            yield person.encode("utf-8"), person, blob


def build(path: Path, state_table: str, version: int, row: ManifestRow, progress: Callable[[int], None] | None = None) -> int:
    """Build the file of snapshot ``row`` from a version of ``state`` (files sorted by person). Returns the number of persons.

    Raises :class:`StoreError` when the version was let go.
    """
    paths, filesystem = data_files(state_table, version)
    files = [_file_persons(path, filesystem) for path in paths]
    merged = heapq.merge(*files, key=lambda item: item[0])
    try:
        return write(path, row.snapshot, ((person, blob) for _utf8, person, blob in merged), progress)
    except FileNotFoundError as error:
        raise StoreError(f"version {version} of the table {state_table} is not readable any more: {error}") from error


class SnapshotFile:
    """One open snapshot file. Hold it for a whole read; the file may be deleted meanwhile."""

    def __init__(self, path: Path, row: ManifestRow) -> None:
        if not path.exists():
            raise StoreError(f"snapshot file {path} is missing: fetch it, or rebuild with `twofold batch`")
        try:
            self._env = open_shared(path, False, lock=False, max_readers=512)
        except (lmdb.Error, OSError) as error:
            raise StoreError(f"snapshot file {path} cannot be opened: {error}; rebuild with `twofold batch`") from error
        self.row = row
        self._txn = self._env.begin(buffers=True)
        found = self._txn.get(_ID_KEY)
        if found is None or bytes(found).decode() != row.snapshot:
            raise StoreError(
                f"snapshot file {path} is not of snapshot {row.snapshot}: fetch it again, or rebuild with `twofold batch`"
            )

    def person(self, person: str) -> PersonSnapshot | None:
        blob = self._txn.get(person.encode("utf-8"))
        return None if blob is None else PersonSnapshot.unpack(blob)

    def persons(self) -> Iterator[str]:
        with self._env.begin() as txn:
            for key in txn.cursor().iternext(keys=True, values=False):
                if not key.startswith(b"\0"):
                    yield key.decode("utf-8")

    def close(self) -> None:
        self._txn.abort()
        close_shared(self._env)


class EmptySnapshot:
    """The snapshot before the first batch: nobody is in it."""

    def __init__(self, row: ManifestRow) -> None:
        self.row = replace(row)

    def person(self, person: str) -> PersonSnapshot | None:  # noqa: ARG002
        return None

    def persons(self) -> Iterator[str]:
        return iter(())

    def close(self) -> None:
        """Nothing to release."""

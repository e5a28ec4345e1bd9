"""Where snapshot files are: built in one home, published at a place, fetched by every home that serves them.

A file is at the place before the manifest row that names it. Without the setting ``snapshots`` the place is the home's own folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from filelock import FileLock

from twofold.errors import StoreError
from twofold.settings import Settings
from twofold.stores.files import folder, replace_whole
from twofold.stores.snapshot_file import SnapshotFile, snapshot_path
from twofold.views import ManifestRow

_SUFFIX = ".lmdb"


def _elsewhere(settings: Settings) -> bool:
    return str(settings.snapshots_place) != str(settings.snapshots_path)


def publish_snapshot(settings: Settings, snapshot: str) -> None:
    """Put a file that was built in this home at the place: whole, or not at all."""
    if _elsewhere(settings):
        file = snapshot_path(settings.snapshots_path, snapshot)
        folder(settings.snapshots_place).put(file, file.name)


def fetch_snapshot(settings: Settings, row: ManifestRow) -> Path:
    """The file of a published snapshot in this home, fetched and looked into when it is not here yet.

    A fetch that is killed leaves nothing under the file's name. Raises :class:`StoreError` when the place lacks the file.
    """
    file = snapshot_path(settings.snapshots_path, row.snapshot)
    if file.exists() or not _elsewhere(settings):
        return file
    settings.snapshots_path.mkdir(parents=True, exist_ok=True)
    incoming = settings.snapshots_path / "incoming"
    with FileLock(str(settings.snapshots_path / "fetch.lock")):
        if file.exists():
            return file
        # Whatever a killed fetch left: the lock says that nobody writes it.
        shutil.rmtree(incoming, ignore_errors=True)
        arrived = incoming / file.name
        if not folder(settings.snapshots_place).get(file.name, arrived):
            raise StoreError(f"snapshot file {settings.snapshots_place}/{file.name} is missing: rebuild with `twofold batch`")
        SnapshotFile(arrived, row).close()
        replace_whole(arrived, file)
        shutil.rmtree(incoming, ignore_errors=True)
    return file


def remove_fetched(settings: Settings, kept: Collection[str]) -> None:
    """Remove this home's copies of snapshots that are not ``kept``; readers keep what they hold open."""
    if not _elsewhere(settings):
        return
    for file in settings.snapshots_path.glob(f"s*{_SUFFIX}"):
        if file.stem not in kept:
            file.unlink(missing_ok=True)


def remove_published(settings: Settings, kept: Collection[str]) -> None:
    """Remove the files of snapshots that are not ``kept``, and what dead rebuilds left, from this home and from the place."""
    here = settings.snapshots_path
    for file in (*here.glob("s*.partial*"), *here.glob(f"s*{_SUFFIX}")) if here.exists() else ():
        if file.suffix != _SUFFIX or file.stem not in kept:
            file.unlink(missing_ok=True)
    if _elsewhere(settings):
        place = folder(settings.snapshots_place)
        for name in place.names():
            if name.startswith("s") and (not name.endswith(_SUFFIX) or name.removesuffix(_SUFFIX) not in kept):
                place.remove(name)

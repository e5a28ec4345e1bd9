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
from twofold.stores.files import Folder, LocalFolder, folder, replace_whole
from twofold.stores.snapshot_file import SnapshotFile, snapshot_path
from twofold.views import ManifestRow

_SUFFIX = ".lmdb"


def _elsewhere(settings: Settings) -> bool:
    return str(settings.snapshots_place) != str(settings.snapshots_path)


def _places(settings: Settings) -> list[Folder]:
    """This home's folder, and the place where that is another."""
    here: Folder = LocalFolder(settings.snapshots_path)
    return [here, folder(settings.snapshots_place)] if _elsewhere(settings) else [here]


def publish_snapshot(settings: Settings, snapshot: str) -> None:
    """Put a file that was built in this home at the place: whole, or not at all."""
    if _elsewhere(settings):
        file = snapshot_path(settings.snapshots_path, snapshot)
        folder(settings.snapshots_place).put(file, file.name)


def is_published(settings: Settings, snapshot: str) -> bool:
    """Whether the file of a snapshot is where readers fetch it."""
    if _elsewhere(settings):
        return snapshot + _SUFFIX in folder(settings.snapshots_place).names()
    return snapshot_path(settings.snapshots_path, snapshot).exists()


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


def let_go(settings: Settings, kept: Collection[str], current_seq: int, dry_run: bool) -> tuple[int, int]:
    """Remove whole files of snapshots that are not ``kept``, here and at the place: (files, bytes).

    A number above the current one is a rebuild's that is about to publish it, or a dead one's that the next rebuild clears away.
    """
    files = size_bytes = 0
    for place in _places(settings):
        for name, found in place.walk().items():
            snapshot = name.removesuffix(_SUFFIX)
            if name.endswith(_SUFFIX) and snapshot not in kept and _seq(snapshot) <= current_seq:
                files, size_bytes = files + 1, size_bytes + found.size_bytes
                if not dry_run:
                    place.remove(name)
    return files, size_bytes


def _seq(snapshot: str) -> int:
    """The sequence number in a snapshot's name; what is not named like one is nobody's to remove."""
    digits = snapshot[1:9]
    return int(digits) if snapshot.startswith("s") and digits.isdigit() else 1 << 62

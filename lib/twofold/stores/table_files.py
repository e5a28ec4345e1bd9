"""The data files that lie in a Delta table's folder, and whether a version still has all of its own. No Spark."""

from __future__ import annotations

from twofold.errors import StoreError
from twofold.stores.files import Found, folder
from twofold.stores.places import as_place, file_names


def stored_files(location: str) -> dict[str, Found]:
    """Every data file that lies in the table's folder, whatever version needs it, written or still being written."""
    found = folder(as_place(location)).walk()
    return {name: stat for name, stat in found.items() if name.endswith(".parquet") and not name.startswith(("_", "."))}


def check_whole(location: str, version: int) -> None:
    """Raises :class:`StoreError` when a version lacks data files: it was let go, and `twofold vacuum` removed them."""
    needed = file_names(location, version)
    missing = needed - stored_files(location).keys()
    if missing:
        raise StoreError(
            f"version {version} of the table {location} is not readable any more ({len(missing)} of {len(needed)} files were "
            "removed by `twofold vacuum`): `twofold snapshots` shows what is"
        )


def remove_files(location: str, names: list[str]) -> None:
    """Remove data files, and the check sums that Hadoop keeps beside them on local disk."""
    files = folder(as_place(location))
    for name in names:
        above, _, last = name.rpartition("/")
        files.remove(name)
        files.remove(f"{above}/.{last}.crc" if above else f".{last}.crc")

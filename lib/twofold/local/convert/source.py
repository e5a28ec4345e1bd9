"""What every converter of a file checks about its file."""

from __future__ import annotations

from pathlib import Path

from twofold.errors import UsageError


def the_file(name: str, file: str | Path | None, usual: str) -> Path:
    """The file to convert: ``file``, or the file of the ``usual`` name in it when it is a folder.

    Raises :class:`UsageError` when there is none.
    """
    if file is None:
        raise UsageError(f"convert {name} needs a FILE: the path of {usual}")
    path = Path(file)
    if path.is_dir():
        path = path / usual
    if not path.is_file():
        raise UsageError(f"convert {name}: no file {path}")
    return path


def wrong_shape(name: str, path: Path, row: int, what: str) -> UsageError:
    """The error of a row (1-based, header not counted) that is not of the set's shape."""
    return UsageError(f"convert {name}: {path} row {row}: {what}; is this the {name} data set?")


def utc_text(name: str, path: Path, row: int, text: str) -> str:
    """``YYYY-MM-DD HH:MM:SS`` (taken as UTC) as RFC 3339. Raises :class:`UsageError` for another shape."""
    if len(text) != 19 or text[10] != " ":
        raise wrong_shape(name, path, row, f"{text!r} is no time YYYY-MM-DD HH:MM:SS")
    return f"{text[:10]}T{text[11:]}Z"

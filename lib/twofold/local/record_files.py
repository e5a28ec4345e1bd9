"""Files of person keys and of records."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from twofold import show
from twofold.errors import UsageError


def chosen_persons(file: Path | None, everyone: bool) -> list[str] | None:
    """Person keys of a file, or ``None`` for everyone. Raises :class:`UsageError` unless exactly one is asked for."""
    if (file is None) == (not everyone):
        raise UsageError("say whose records: --persons FILE (one person key a line) or --all")
    if file is None:
        return None
    try:
        return [line for line in file.read_text(encoding="utf-8").split("\n") if line]
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{file} cannot be read: {error}") from error


def write_records(records: Iterator[Any], out: Path, total: int | None) -> int:
    """Write records (or anything msgspec encodes) one a line; the file appears when it is whole. Returns the count."""
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(out.name + ".partial")
    encoder = msgspec.json.Encoder()
    count = 0
    try:
        with partial.open("wb") as lines, show.progress_bar() as bar:
            task = bar.add_task("records", total=total)
            for found in records:
                lines.write(encoder.encode(found) + b"\n")
                count += 1
                if count % 500 == 0:
                    bar.update(task, completed=count)
        partial.replace(out)
    finally:
        partial.unlink(missing_ok=True)
    return count

"""Suites of expectations as they stand in ``conf/expectations``: what is expected, from which threshold on, and why.

A file is a suite. Its ``columns`` are SQL over the columns of the table it is about; its expectations name these columns and
are great-expectations' own by type. Limits may be arithmetic over what is known of this rebuild and of the snapshot before
it: ``{$PARAMETER: previous_persons * 0.98}``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from twofold.errors import SuiteError

_Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
_Text = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]

PARAMETER = "$PARAMETER"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Expected(_Entry):
    """One expectation. ``kwargs`` say of what, ``threshold`` from where on it fails, ``reason`` why there."""

    name: _Name
    expect: Annotated[str, StringConstraints(pattern=r"^expect_[a-z_]+$")]
    kwargs: dict[str, Any] = Field(default_factory=dict)
    threshold: dict[str, Any] = Field(default_factory=dict)
    reason: Annotated[str, StringConstraints(min_length=20, strip_whitespace=True)]
    #: Below so many rows (with a value in the column, where there is one) the figure says nothing: skipped.
    at_least: Annotated[int, Field(ge=0)] = 0
    #: SQL for the rows to blame, where the type of the expectation does not tell them.
    rows: _Text | None = None

    @property
    def column(self) -> str | None:
        """The column that it is about, or ``None``."""
        return self.kwargs.get("column")


class Suite(_Entry):
    """One file: a line on what a row is, derived columns, expectations."""

    about: _Text
    columns: dict[_Name, _Text] = Field(default_factory=dict)
    expectations: Annotated[tuple[Expected, ...], Field(min_length=1)]


def load_suite(folder: str | Path, name: str) -> Suite:
    """The suite ``<folder>/<name>.yaml``. Raises :class:`SuiteError`: one line with the file and the entry."""
    file = Path(folder).absolute() / f"{name}.yaml"
    try:
        data = yaml.safe_load(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SuiteError(f"the suite {file} cannot be read: {error.strerror} (setting gate.expectations)") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise SuiteError(f"the suite {file} is not YAML: {' '.join(str(error).split())}") from error
    try:
        suite = Suite.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        raise SuiteError(f"the suite {file}, {_place(data, first['loc'])}: {first['msg']}") from error
    names = [expected.name for expected in suite.expectations]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SuiteError(f"the suite {file} has two expectations named {twice!r}: each result needs a name of its own")
    return suite


def _place(data: Any, loc: tuple[int | str, ...]) -> str:
    """Where an error lies, an expectation by its name rather than by its number."""
    if len(loc) >= 2 and loc[0] == "expectations" and isinstance(loc[1], int):
        entry = data["expectations"][loc[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        rest = ".".join(str(part) for part in loc[2:])
        return f"expectation {name or f'number {loc[1] + 1}'}" + (f", {rest}" if rest else "")
    return ".".join(str(part) for part in loc) or "the whole file"

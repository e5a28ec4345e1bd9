"""The page of the docs that tells of the families' features, as text, from what the families themselves say.

``python -m twofold.testing.features_page > docs/features.md`` writes it; a test holds the two together.
"""

from __future__ import annotations

import json

from twofold.catalogue import CATALOGUE
from twofold.events import FactBody
from twofold.families import FAMILIES
from twofold.families.family import Told
from twofold.features import Feature
from twofold.timeline import DAY_MS

_HEAD = """\
# Features of the families

A *family* is a few features that rest on the same facts: one module of `lib/twofold/families/`, which has everything of theirs
and is found by being there. The other features are data, in `lib/twofold/catalogue.py`. This page is made from the families
(`python -m twofold.testing.features_page`).

Common to all: windows are `[t - w, t)`, in milliseconds. Facts are ordered by (event time, event id, ordinal), never by arrival.
Days are UTC days unless a zone is named. No window is longer than 30 days, because the longest one decides how far back a
snapshot keeps facts; what must look further back is a lifetime state. What is rounded is rounded half away from zero, from
integers, so that Python and the JVM give the same bits.
"""
_TYPES = {"texts": "list of text", "integers": "list of integers"}


def features_page() -> str:
    """The page in Markdown."""
    lines = [_HEAD, "| Feature | Type | Window | Of nothing |", "|---|---|---|---|"]
    told = [(CATALOGUE.features[name], said) for family in FAMILIES.values() for name, said in family.told.items()]
    lines += [f"| `{f.name}` | {_type(f)} | {_window(f)} | `{json.dumps(said.nothing)}` |" for f, said in told]
    for feature, said in told:
        lines += ["", f"## `{feature.name}`", "", f"{said.rule}.", "", *_example(said)]
    return "\n".join(lines) + "\n"


def _type(feature: Feature) -> str:
    assert feature.show is not None
    if feature.show.columns:
        return f"list of ({', '.join(f'{name}: {type_}' for name, type_ in feature.show.columns)})"
    type_ = CATALOGUE.value_type(feature)
    return _TYPES.get(type_, type_) + (" or null" if CATALOGUE.nullable(feature) else "")


def _window(feature: Feature) -> str:
    widths = {primary.window.width_ms for primary in CATALOGUE.primaries_of(feature.name)}
    return ", ".join("lifetime" if width is None else f"{width // DAY_MS} days" for width in sorted(widths, key=lambda w: w or 0))


def _example(said: Told) -> list[str]:
    rows = [f"| {at} | {_fact(body)} |" for at, body in said.example.facts]
    value = json.dumps(said.example.value)
    return ["| at | fact |", "|---|---|", *rows, "", f"At {said.example.at}: `{value}`: {said.example.why}."]


def _fact(body: FactBody) -> str:
    columns = {name: getattr(body, name) for name in body.__struct_fields__ if name != "kind"}
    return " ".join([body.kind, *(f"{name}={value}" for name, value in columns.items() if value is not None)])


if __name__ == "__main__":
    print(features_page(), end="")

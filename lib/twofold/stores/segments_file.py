"""The file of the segments (setting ``segments.file``): read and checked as a whole, before anything is evaluated.

segments:
  loyal:
    description: Ordered three times or more
    rule: orders_lifetime >= 3
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

import yaml

from twofold.errors import SegmentError, nearest
from twofold.features import Catalogue
from twofold.rule_grammar import parse_rule
from twofold.segments import NO_SEGMENTS, Segment, Segments
from twofold.settings import Settings

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_KEYS = ("description", "rule")


def load_segments(settings: Settings, catalogue: Catalogue) -> Segments:
    """The rule set of a home. Raises :class:`SegmentError`: one line with file, line, segment, column, and the way out."""
    path = settings.segments_path
    return NO_SEGMENTS if path is None else read_segments(path, catalogue, settings.segments.file)


def read_segments(path: Path, catalogue: Catalogue, shown: str) -> Segments:
    """The rule set of a file, which errors call ``shown``."""
    try:
        root = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except OSError as error:
        raise SegmentError(f"{shown} cannot be read: {error.strerror} (setting segments.file; empty: no segments)") from error
    except UnicodeDecodeError as error:
        raise SegmentError(f"{shown} is not UTF-8: save it as UTF-8") from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f":{mark.line + 1}: column {mark.column + 1}" if mark is not None else ""
        raise SegmentError(
            f"{shown}{place}: not YAML: {getattr(error, 'problem', None) or ' '.join(str(error).split())}"
        ) from error
    return _File(shown, catalogue).segments(root)


class _File:
    """One file as YAML nodes, which know their lines and still have a key that stands twice."""

    def __init__(self, shown: str, catalogue: Catalogue) -> None:
        self._shown, self._catalogue = shown, catalogue

    def _refuse(self, node: yaml.Node | None, what: str) -> NoReturn:
        line = 1 if node is None else node.start_mark.line + 1
        raise SegmentError(f"{self._shown}:{line}: {what}")

    def _pairs(self, node: yaml.Node | None, what: str, example: str) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        if not isinstance(node, yaml.MappingNode):
            self._refuse(node, f"{what} must be a mapping: {example}")
        found: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self._refuse(key, f"a name in {what} must be text: {example}")
            if key.value in found:
                first = found[key.value][0].start_mark.line + 1
                self._refuse(key, f"{key.value!r} stands twice in {what}, first in line {first}: rename one")
            found[key.value] = (key, value)
        return found

    def segments(self, root: yaml.Node | None) -> Segments:
        top = self._pairs(root, "the file", "`segments:` with a name a segment below it")
        for name, (key, _value) in top.items():
            if name != "segments":
                self._refuse(key, f"unknown key {name!r}: the file has one key, `segments`")
        if "segments" not in top:
            self._refuse(root, "the key `segments` is missing")
        named = self._pairs(top["segments"][1], "`segments`", "a name a segment, with a rule and a description below it")
        return Segments(self._segment(name, key, value) for name, (key, value) in named.items())

    def _segment(self, name: str, key: yaml.Node, node: yaml.Node) -> Segment:
        if not _NAME.fullmatch(name):
            self._refuse(key, f"segment {name!r}: a name has lower-case letters, digits and _, and begins with a letter")
        parts = self._pairs(node, f"segment {name!r}", "`rule: orders_lifetime >= 3`")
        for part, (where, _value) in parts.items():
            if part not in _KEYS:
                way = nearest(part, _KEYS, f"a segment has {' and '.join(_KEYS)}")
                self._refuse(where, f"segment {name!r}: unknown key {part!r}; {way}")
        texts = {part: self._text(name, part, value) for part, (_key, value) in parts.items()}
        for part in _KEYS:
            if not texts.get(part, "").strip():
                self._refuse(key, f"segment {name!r}: {part} is missing")
        place = f"{self._shown}:{parts['rule'][1].start_mark.line + 1}: segment {name!r}, rule"
        return Segment(name, parse_rule(texts["rule"], self._catalogue, place), " ".join(texts["description"].split()))

    def _text(self, name: str, part: str, node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode) or node.tag != "tag:yaml.org,2002:str":
            self._refuse(node, f"segment {name!r}: {part} must be text: put it in quotes")
        return str(node.value)

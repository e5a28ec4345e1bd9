"""Every worked example of docs/segments.md is what the rule says."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from twofold.catalogue import CATALOGUE
from twofold.local.project import ROOT
from twofold.rule_grammar import parse_rule
from twofold.rules import evaluator

T = 1_800_000_000_000
EXAMPLES = re.findall(r"^\| `(.+?)` \| `(\{.*?\})` \| (yes|no)", (ROOT / "docs" / "segments.md").read_text(encoding="utf-8"), re.M)


def as_value(shown: Any) -> Any:
    """``t - 5`` is an instant."""
    before = re.fullmatch(r"t - ([0-9]+)", shown) if isinstance(shown, str) else None
    return shown if before is None else T - int(before.group(1))


@pytest.mark.parametrize(("rule", "values", "holds"), EXAMPLES, ids=[rule for rule, _values, _holds in EXAMPLES])
def test_a_worked_example(rule, values, holds):
    found = {name: as_value(value) for name, value in json.loads(values).items()}
    assert evaluator(parse_rule(rule, CATALOGUE))(found, T) is (holds == "yes")


def test_every_operator_has_one():
    written = " ".join(rule for rule, _values, _holds in EXAMPLES)
    operators = ["=", "!=", "<", "<=", ">", ">=", "in (", "contains", "is null", "is not null", "is empty", "is not empty"]
    for operator in [*operators, "older than", "within", "and", "or", "not", "("]:
        assert f" {operator}" in f" {written}", operator

"""The writer and the registry of converters."""

import json
from decimal import Decimal

import pytest

from twofold.errors import UsageError
from twofold.local.convert import CONVERTERS, PROGRESS_EVERY, encode_event, write_jsonl


def test_bytes_are_compact_utf8_and_money_is_exact():
    assert encode_event({"b": Decimal("19.90"), "a": "Zoë"}) == '{"b":19.90,"a":"Zoë"}'.encode()
    assert encode_event(b"{broken") == b"{broken"


def test_writer_counts_and_leaves_nothing_half_written(tmp_path):
    seen = []
    out = tmp_path / "new" / "out.jsonl"
    assert write_jsonl(({"n": n} for n in range(PROGRESS_EVERY + 1)), out, seen.append) == PROGRESS_EVERY + 1
    assert seen == [PROGRESS_EVERY]
    lines = out.read_bytes().split(b"\n")
    assert lines[-1] == b"" and [json.loads(line)["n"] for line in lines[:-1]] == list(range(PROGRESS_EVERY + 1))

    def fails():
        yield {"n": 1}
        raise UsageError("broken input")

    with pytest.raises(UsageError):
        write_jsonl(fails(), tmp_path / "half.jsonl")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new"]


@pytest.mark.parametrize("name", ["online-retail", "cdnow", "retentioneering"])
def test_a_file_is_needed_and_must_be_of_the_set(name, tmp_path):
    wrong = tmp_path / "wrong"
    wrong.write_text("not,the,set\n1,2,3\n")
    for file in (None, tmp_path / "nowhere", wrong):
        with pytest.raises(UsageError, match=name):
            list(CONVERTERS[name](file))
    with pytest.raises(UsageError, match="option"):
        list(CONVERTERS[name](wrong, seed=1))

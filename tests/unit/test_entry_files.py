"""Entries found by person in sorted files, against a plain filter over all that was added."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from twofold.columns import id_hash
from twofold.stores import sorted_files
from twofold.stores.entry_files import PERSON_HASH, EntryFiles
from twofold.timeline import Offsets, PartitionKey

SCHEMA = pa.schema(
    {
        "person": pa.string(),
        "topic_id": pa.string(),
        "partition": pa.int32(),
        "offset": pa.int64(),
        "facts": pa.list_(pa.struct({"kind": pa.string()})),
        PERSON_HASH: pa.int64(),
    }
)
PEOPLE = [f"p{n}" for n in range(12)]
TOPICS = ("a", "b")

Row = tuple[str, str, int, int]
ROWS = st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(TOPICS), st.integers(0, 2), st.integers(0, 9)), max_size=30)
CUTS = st.dictionaries(st.builds(PartitionKey, st.sampled_from(TOPICS), st.integers(0, 2)), st.integers(0, 10)).map(Offsets)


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {
                "person": person,
                "topic_id": topic_id,
                "partition": partition,
                "offset": offset,
                "facts": [{"kind": person}] * (offset % 3),
                PERSON_HASH: id_hash(person),
            }
            for person, topic_id, partition, offset in rows
        ],
        SCHEMA,
    )


def told(rows: pa.Table) -> Counter[Row]:
    assert rows.schema == SCHEMA
    for row in rows.to_pylist():
        assert row["facts"] == [{"kind": row["person"]}] * (row["offset"] % 3)
    return Counter((row["person"], row["topic_id"], row["partition"], row["offset"]) for row in rows.to_pylist())


def is_below(row: Row, cut: Offsets) -> bool:
    return row[3] < cut.next(PartitionKey(row[1], row[2]))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory):
    return tmp_path_factory.mktemp("entries") / "files"


@given(batches=st.lists(ROWS, max_size=9), fanout=st.integers(2, 4), most=st.sampled_from([5, 40, 10**6]), data=st.data())
def test_what_is_found_is_what_a_plain_filter_finds(place, batches, fanout, most, data) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sorted_files, "_FANOUT", fanout)
        patch.setattr(sorted_files, "_MOST_ROWS", most)
        files, rows = EntryFiles(place, SCHEMA), list[Row]()
        for batch in batches:
            files.add(table(batch))
            rows += batch
            if data.draw(st.booleans()):
                cut = data.draw(CUTS)
                files.forget(cut)
                rows = [row for row in rows if not is_below(row, cut)]
        whom = data.draw(st.lists(st.sampled_from([*PEOPLE, "nobody"])))
        assert told(files.of([id_hash(person) for person in whom])) == Counter(row for row in rows if row[0] in whom)
        assert told(files.of_persons(pa.array(whom, pa.string()))) == Counter(row for row in rows if row[0] in whom)
        assert sorted(files.column("person").to_pylist()) == sorted(row[0] for row in rows)
        since = data.draw(CUTS)
        assert sorted(files.persons(since).to_pylist()) == sorted({row[0] for row in rows if not is_below(row, since)})
        on_disk = sum(len(pa.ipc.open_file(path).read_all()) for path in place.iterdir())
        assert on_disk == len(rows), "files that hold nothing any more are removed"


def test_people_of_one_hash_are_told_apart(place, monkeypatch) -> None:
    """Their rows are found together, and only those of who was asked for are given."""
    monkeypatch.setattr(sorted_files, "id_hash", lambda _person: 1)
    files = EntryFiles(place, SCHEMA)
    files.add(table([("p1", "a", 0, 0), ("p2", "a", 0, 1)]).set_column(5, PERSON_HASH, pa.array([1, 1], pa.int64())))
    assert len(files.of([1])) == 2
    assert told(files.of_persons(pa.array(["p2"]))) == Counter([("p2", "a", 0, 1)])


def test_few_files_stay(place) -> None:
    files = EntryFiles(place, SCHEMA)
    for number in range(200):
        files.add(table([(PEOPLE[number % 12], "a", 0, number)]))
    assert len(list(place.iterdir())) <= 3 * 8
    assert len(files.of(np.array([id_hash(PEOPLE[0])]))) == len([n for n in range(200) if n % 12 == 0])


def test_files_of_a_start_before_are_removed(place) -> None:
    EntryFiles(place, SCHEMA).add(table([("p1", "a", 0, 0)]))
    assert len(EntryFiles(place, SCHEMA).of([id_hash("p1")])) == 0
    assert not list(place.iterdir())

"""The column-wise builder writes the very bytes that one person's pack writes, and the file gives them back."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pyarrow as pa
import pytest

from twofold.columns import FactColumns, id_hash
from twofold.errors import StoreError
from twofold.events import Entry, FactBody
from twofold.stores.person_blobs import pack_batch
from twofold.stores.snapshot_file import SnapshotFile, snapshot_path, write
from twofold.timeline import EMPTY_OFFSETS
from twofold.views import ManifestRow, PersonSnapshot

KINDS = ("page", "view", "order", "purchase", "trait", "consent", "other", "retraction")


def _entry(r: random.Random, person: str, n: int) -> Entry:
    text = lambda: r.choice((None, "", "a", "b", "é", "日本", "z" * 20))  # noqa: E731
    facts = tuple(
        FactBody(
            r.choice(KINDS),
            product=text(),
            category=text(),
            campaign=text(),
            amount_minor=r.choice((None, 0, -5, 10**15)),
            currency=r.choice((None, "USD", "EUR")),
            quantity=r.choice((None, 0, -3, 10**9)),
            key=text(),
            value=text(),
        )
        for _ in range(r.choice((1, 1, 2, 5)))
    )
    return Entry(
        "1/x", "t", r.randrange(3), n, 1000 + n, "ok", person, f"e{r.random()}", r.randrange(5) * 1000, text(), text(), facts
    )


def _state_batch(people: list[tuple[str, dict, list[int], list[int], list[Entry]]]) -> pa.RecordBatch:
    rows = [
        {
            "person": person,
            "older_json": msgspec.json.encode(older).decode(),
            "older_ids": ids,
            "retracted_ids": retracted,
            "recent": [
                {
                    "event_id": e.event_id,
                    "at_ms": e.at_ms,
                    "broker_ms": e.broker_ms,
                    "topic": 0,
                    "partition": e.partition,
                    "offset": e.offset,
                    "channel": e.channel,
                    "device": e.device,
                    "facts": [{name: getattr(f, name) for name in FactBody.__struct_fields__} for f in e.facts],
                }
                for e in sorted(entries, key=lambda e: (e.at_ms, e.event_id))
            ],
        }
        for person, older, ids, retracted, entries in people
    ]
    return pa.RecordBatch.from_pylist(rows, schema=STATE_SCHEMA)


_FACT = pa.struct([(n, pa.int64() if n in ("amount_minor", "quantity") else pa.string()) for n in FactBody.__struct_fields__])
_RECENT = pa.struct(
    [
        ("event_id", pa.string()),
        ("at_ms", pa.int64()),
        ("broker_ms", pa.int64()),
        ("topic", pa.int32()),
        ("partition", pa.int32()),
        ("offset", pa.int64()),
        ("channel", pa.string()),
        ("device", pa.string()),
        ("facts", pa.list_(_FACT)),
    ]
)
STATE_SCHEMA = pa.schema(
    [
        ("person", pa.string()),
        ("older_json", pa.string()),
        ("older_ids", pa.list_(pa.int64())),
        ("retracted_ids", pa.list_(pa.int64())),
        ("recent", pa.list_(_RECENT)),
    ]
)


@pytest.mark.parametrize("seed", range(5))
def test_a_batch_packs_the_same_bytes_as_each_person(seed: int) -> None:
    r = random.Random(seed)
    people = []
    for n in range(r.choice((1, 7, 30))):
        person = f"user:{n:03d}{r.choice(('', 'é'))}"
        entries = [_entry(r, person, i) for i in range(r.choice((0, 1, 3, 20)))]
        ids = sorted(id_hash(f"old{n}-{i}") for i in range(r.choice((0, 2))))
        retracted = sorted(id_hash(f"back{n}-{i}") for i in range(r.choice((0, 1, 3))))
        people.append((person, {"orders_lifetime": n} if n % 2 else {}, ids, retracted, entries))
    packed = dict(pack_batch(_state_batch(people)))
    # A version of the table of before retractions.
    before = dict(pack_batch(_state_batch(people).drop_columns(["retracted_ids"])))
    for person, older, ids, retracted, entries in people:
        columns = FactColumns.of_entries((e, 0) for e in entries)
        want = PersonSnapshot(older, np.array(ids, dtype=np.int64), columns, np.array(retracted, dtype=np.int64))
        got = PersonSnapshot.unpack(packed[person])
        assert got.older == older
        assert got.older_ids.tolist() == ids
        assert got.retracted_ids.tolist() == retracted
        assert PersonSnapshot.unpack(before[person]).retracted_ids.tolist() == []
        assert PersonSnapshot.unpack(before[person]).recent.pack() == columns.pack()
        assert got.recent.facts() == columns.facts()
        assert got.recent.pack() == columns.pack()
        if older:
            assert packed[person] == want.pack()


def test_a_written_file_gives_back_its_persons_and_refuses_another_snapshot(tmp_path) -> None:
    row = ManifestRow(1, "s1", EMPTY_OFFSETS, "1/x")
    blob = PersonSnapshot({"orders_lifetime": 3}).pack()
    path = snapshot_path(tmp_path, "s1")
    assert write(path, "s1", [("anon:1", blob), ("user:1", blob)]) == 2
    snapshot = SnapshotFile(path, row)
    assert list(snapshot.persons()) == ["anon:1", "user:1"]
    person = snapshot.person("user:1")
    assert person is not None
    assert person.older == {"orders_lifetime": 3}
    assert snapshot.person("user:2") is None
    snapshot.close()
    with pytest.raises(StoreError, match="not of snapshot s2"):
        SnapshotFile(path, ManifestRow(2, "s2", EMPTY_OFFSETS, "1/x"))
    with pytest.raises(StoreError, match="ascending"):
        write(snapshot_path(tmp_path, "s3"), "s3", [("b", blob), ("a", blob)])
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(StoreError, match="missing"):
        SnapshotFile(snapshot_path(tmp_path, "s3"), row)

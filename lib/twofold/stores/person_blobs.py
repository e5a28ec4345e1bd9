"""Arrow batches of the table ``state`` -> packed persons, column-wise: no Python object per fact is made.

A batch has one row a person: ``person``, ``older_json``, ``older_ids`` and ``retracted_ids`` (sorted hashes; a version of before
retractions lacks the latter) and ``recent`` (entries with their facts).
The bytes are those of :meth:`PersonSnapshot.pack`; a test holds the two equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from twofold.columns import NULL_AMOUNT, NULL_CODE, NULL_QUANTITY, TEXT_COLUMNS, id_hash, pack_columns
from twofold.events import FACT_KINDS
from twofold.views import pack_person

Ints = npt.NDArray[np.int64]


def _list(array: Any) -> tuple[Ints, Any]:
    """Offsets from zero, and the flat child of a list column."""
    offsets = array.offsets.to_numpy().astype(np.int64)
    return offsets - offsets[0], array.values.slice(int(offsets[0]), int(offsets[-1] - offsets[0]))


def _ints(array: Any, null: int = 0) -> Ints:
    return np.asarray(pc.fill_null(array.cast(pa.int64()), null).to_numpy(zero_copy_only=False), dtype=np.int64)


def _hashes(batch: Any, column: str) -> Callable[[int], Ints]:
    """The hashes of a row, by its number; none in a batch without the column, or where a row holds null."""
    if column not in batch.schema.names:
        nothing = np.empty(0, dtype=np.int64)
        return lambda _row: nothing
    starts, flat = _list(batch.column(column))
    hashes = _ints(flat)
    return lambda row: hashes[starts[row] : starts[row + 1]]


class _Dictionary:
    """Codes of every text of a batch in one dictionary sorted by UTF-8 bytes."""

    def __init__(self, columns: dict[str, Any]) -> None:
        encoded = {name: column.cast(pa.large_string()).dictionary_encode() for name, column in columns.items()}
        united = pa.concat_arrays([column.dictionary for column in encoded.values()]).dictionary_encode()
        order = pc.sort_indices(united.dictionary).to_numpy()
        rank = np.empty(len(order), dtype=np.int64)
        rank[order] = np.arange(len(order))
        self.texts = united.dictionary.take(pa.array(order))
        to_united = np.asarray(united.indices.to_numpy(zero_copy_only=False), dtype=np.int64)
        self.codes: dict[str, Ints] = {}
        start = 0
        for name, column in encoded.items():
            size = len(column.dictionary)
            own = rank[to_united[start : start + size]] if size else np.empty(0, np.int64)
            start += size
            indices = _ints(column.indices, NULL_CODE)
            self.codes[name] = np.where(indices == NULL_CODE, NULL_CODE, np.append(own, NULL_CODE)[indices])


def _localize(size: int, persons: dict[str, Ints], codes: dict[str, Ints], n_persons: int) -> tuple[dict[str, Ints], Ints, Ints]:
    """Codes within each person's own sorted names; the batch codes of all names person by person, and where each person starts."""
    sizes = [len(column) for column in codes.values()]
    all_codes = np.concatenate(list(codes.values())) if codes else np.empty(0, np.int64)
    all_persons = np.concatenate([persons[name] for name in codes]) if codes else np.empty(0, np.int64)
    named = all_codes != NULL_CODE
    pairs, inverse = np.unique(all_persons[named] * size + all_codes[named], return_inverse=True)
    starts = np.searchsorted(pairs, np.arange(n_persons + 1) * size)
    local = np.full(len(all_codes), NULL_CODE, dtype=np.int64)
    local[named] = inverse - starts[all_persons[named]]
    split = np.split(local, np.cumsum(sizes)[:-1])
    return dict(zip(codes, split, strict=True)), pairs % max(size, 1), starts


def pack_batch(batch: Any) -> Iterator[tuple[str, bytes]]:
    """(person, packed bytes) of every row of a record batch of ``state``."""
    n = batch.num_rows
    if n == 0:
        return
    persons = batch.column("person").to_pylist()
    older_json = batch.column("older_json").to_pylist()
    older_ids = _hashes(batch, "older_ids")
    retracted_ids = _hashes(batch, "retracted_ids")
    entry_starts, entries = _list(batch.column("recent"))
    n_entries = len(entries)
    entry = {entries.type.field(i).name: column for i, column in enumerate(entries.flatten())}
    fact_starts, facts = _list(entry["facts"])
    fact = {facts.type.field(i).name: column for i, column in enumerate(facts.flatten())}
    n_facts = len(facts)

    person_of_entry = np.repeat(np.arange(n), np.diff(entry_starts))
    entry_of_fact = np.repeat(np.arange(n_entries), np.diff(fact_starts))
    person_of_fact = person_of_entry[entry_of_fact] if n_facts else np.empty(0, np.int64)
    ordinal = np.arange(n_facts) - fact_starts[:-1][entry_of_fact] if n_facts else np.empty(0, np.int64)

    texts = {"event": entry["event_id"], "channel": entry["channel"], "device": entry["device"]}
    texts.update({name: fact[name] for name in TEXT_COLUMNS})
    dictionary = _Dictionary(texts)
    owners = {name: person_of_entry if name in ("event", "channel", "device") else person_of_fact for name in texts}
    local, name_codes, name_starts = _localize(len(dictionary.texts), owners, dictionary.codes, n)

    hashes = np.fromiter((id_hash(event_id) for event_id in entry["event_id"].to_pylist()), dtype=np.int64, count=n_entries)
    by_hash = np.lexsort((hashes, person_of_entry))
    place = np.empty(n_entries, dtype=np.int64)
    place[by_hash] = np.arange(n_entries) - entry_starts[:-1][person_of_entry[by_hash]] if n_entries else 0
    kind_codes = (
        pc.index_in(fact["kind"].cast(pa.string()), value_set=pa.array(FACT_KINDS)).to_numpy(zero_copy_only=False).astype(np.int64)
    )
    at_ms = _ints(entry["at_ms"])
    at_of_fact = at_ms[entry_of_fact] if n_facts else np.empty(0, np.int64)
    event_of_fact = local["event"][entry_of_fact] if n_facts else np.empty(0, np.int64)
    by_kind = np.lexsort((ordinal, event_of_fact, at_of_fact, kind_codes, person_of_fact))
    kinds = len(FACT_KINDS)
    kind_ends = np.cumsum(np.bincount(person_of_fact * kinds + kind_codes, minlength=n * kinds).reshape(n, kinds), axis=1)
    fact_bounds = np.searchsorted(person_of_fact, np.arange(n + 1))

    entries8 = [hashes[by_hash], _ints(entry["broker_ms"])[by_hash], _ints(entry["offset"])[by_hash]]
    facts8 = [at_of_fact[by_kind], _ints(fact["amount_minor"], NULL_AMOUNT)[by_kind]]
    entries_in_order = [local["event"], _ints(entry["topic"]), _ints(entry["partition"]), local["channel"], local["device"]]
    quantity = _ints(fact["quantity"], NULL_QUANTITY)
    facts_in_order = (
        place[entry_of_fact] if n_facts else ordinal,
        ordinal,
        *(local[c] for c in TEXT_COLUMNS[:4]),
        quantity,
        local["key"],
        local["value"],
    )
    entries4 = [column[by_hash].astype(np.int32) for column in entries_in_order]
    facts4 = [column[by_kind].astype(np.int32) for column in facts_in_order]

    names = dictionary.texts.take(pa.array(name_codes))
    name_offsets = np.frombuffer(names.buffers()[1], dtype=np.int64, count=len(names) + 1) if len(names) else np.zeros(1, np.int64)
    utf8 = memoryview(names.buffers()[2]) if len(names) and names.buffers()[2] is not None else memoryview(b"")
    for i, person in enumerate(persons):
        e0, e1, f0, f1 = entry_starts[i], entry_starts[i + 1], fact_bounds[i], fact_bounds[i + 1]
        s0, s1 = name_starts[i], name_starts[i + 1]
        ends = (name_offsets[s0 + 1 : s1 + 1] - name_offsets[s0]).astype(np.int32)
        columns = pack_columns(
            int(e1 - e0),
            int(f1 - f0),
            kind_ends[i].tolist(),
            [*(a[e0:e1] for a in entries8), *(a[f0:f1] for a in facts8)],
            [*(a[e0:e1] for a in entries4), *(a[f0:f1] for a in facts4)],
            ends,
            bytes(utf8[name_offsets[s0] : name_offsets[s1]]),
        )
        older = (older_json[i] or "{}").encode()
        yield person, pack_person(b"" if older == b"{}" else older, older_ids(i), retracted_ids(i), columns)

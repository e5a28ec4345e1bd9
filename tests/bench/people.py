"""One person for the benchmarks, the mix of a busy shop customer, seeded: entries, and the real stores that hold them."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from twofold.catalogue import VERSION
from twofold.columns import FactColumns, id_hash
from twofold.events import Entry, FactBody, encode_entry
from twofold.stores.lmdb_hot import LmdbHot, LmdbHotReader
from twofold.stores.snapshot_file import SnapshotFile, snapshot_path, write
from twofold.timeline import DAY_MS, Offsets, PartitionKey
from twofold.views import ManifestRow, PersonSnapshot

KINDS = ("page",) * 4 + ("view",) * 5 + ("cart_add", "order", "email_sent", "email_opened", "email_clicked", "trait", "consent")


def entries(
    seed: int, first: int, count: int, newest_ms: int, topic_id: str, partitions: int = 4, person: str = "user:1"
) -> list[Entry]:
    """Ok entries of ``person`` at positions from ``first``, event times over the 35 days before ``newest_ms``."""
    r = random.Random(seed)
    out = []
    for number in range(first, first + count):
        kind = r.choice(KINDS)
        key = {
            "page": f"/p/{r.randrange(100)}",
            "trait": r.choice(("first_name", "locale", "country", "tier")),
            "consent": "marketing",
        }
        body = FactBody(
            kind,
            product=f"p{r.randrange(200)}" if kind in ("view", "cart_add") else None,
            category=f"c{r.randrange(12)}" if kind == "view" else None,
            key=key.get(kind, f"k{number}"),
            value={"consent": "granted", "trait": "x"}.get(kind),
            amount_minor=r.randrange(10_000) if kind == "order" else None,
            currency="USD" if kind == "order" else None,
            quantity=1 if kind == "cart_add" else None,
        )
        facts = [body]
        if kind == "order":
            facts += [
                FactBody("purchase", product=f"p{r.randrange(200)}", quantity=2, amount_minor=500, currency="USD") for _ in range(2)
            ]
        at = newest_ms - r.randrange(35 * DAY_MS)
        event_id = f"{r.getrandbits(64):016x}-{number}"
        position = (topic_id, number % partitions, number)
        out.append(Entry(VERSION, *position, at, "ok", person, event_id, at, "web", "mobile", tuple(facts)))
    return out


@contextmanager
def stored(
    people: Mapping[str, tuple[int, int]], t: int, others: int = 0
) -> Iterator[tuple[ManifestRow, SnapshotFile, LmdbHotReader]]:
    """A snapshot and a hot store: ``{person: (recent entries, hot entries)}`` before ``t`` (epoch ms), and small ones."""
    keys = [PartitionKey("t", partition) for partition in range(4)]
    recent, hot = (sum(counts[place] for counts in people.values()) for place in (0, 1))
    cut, high = Offsets(dict.fromkeys(keys, recent)), recent + hot + 1
    row = ManifestRow(1, "bench", cut, VERSION, t, t - 35 * DAY_MS, t, ("t",))
    older_ids = np.sort(np.array([id_hash(f"old-{n}") for n in range(500)], dtype=np.int64))
    small = PersonSnapshot({}, older_ids[:2], FactColumns.of_entries(())).pack()
    packed, above, next_recent, next_hot = {f"user:x{n:06d}": small for n in range(others)}, [], 0, recent
    for person, (below_cut, above_cut) in people.items():
        columns = FactColumns.of_entries((entry, 0) for entry in entries(1, next_recent, below_cut, t, "t", person=person))
        packed[person] = PersonSnapshot({"orders_lifetime": 3, "revenue_lifetime": {"USD": 100}}, older_ids, columns).pack()
        above += entries(2, next_hot, above_cut, t, "t", person=person)
        next_recent, next_hot = next_recent + below_cut, next_hot + above_cut
    with tempfile.TemporaryDirectory() as folder:
        path, store = snapshot_path(Path(folder), "bench"), Path(folder) / "hot"
        write(path, "bench", sorted(packed.items()))
        with LmdbHot(store, 1 << 30, Offsets(dict.fromkeys(keys, 0))) as writer:
            for key in keys:
                writer.raise_high(writer.partition(key), high, VERSION, t)
            writer.beat(t, Offsets(dict.fromkeys(keys, high)))
            writer.commit([(entry, encode_entry(entry)) for entry in above])
        snapshot, reader = SnapshotFile(path, row), LmdbHotReader(store, 1 << 30)
        try:
            yield row, snapshot, reader
        finally:
            snapshot.close()
            reader.close()

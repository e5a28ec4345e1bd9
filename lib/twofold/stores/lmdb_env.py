"""LMDB environments shared within a process: LMDB forbids opening one file twice, a program may well open two readers."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any, NamedTuple

import lmdb


class _Key(NamedTuple):
    path: str
    inode: int


_lock = threading.Lock()
_shared: dict[_Key, tuple[lmdb.Environment, int]] = {}


def _key(path: Path, data: Path) -> _Key:
    # The inode tells a store that was made anew from the one that an older reader still holds.
    return _Key(str(path.resolve()), data.stat().st_ino)


def open_shared(path: Path, subdir: bool, **options: Any) -> lmdb.Environment:
    """A read-only environment, opened once a process; give it back with :func:`close_shared`. Raises ``lmdb.Error``."""
    key = _key(path, path / "data.mdb" if subdir else path)
    with _lock:
        known = _shared.get(key)
        env = known[0] if known is not None else lmdb.open(str(path), subdir=subdir, readonly=True, create=False, **options)
        _shared[key] = (env, (known[1] if known is not None else 0) + 1)
        return env


def close_shared(env: lmdb.Environment) -> None:
    """Give a shared environment back; the last one out closes it."""
    with _lock:
        for key, (shared, count) in list(_shared.items()):
            if shared is env:
                if count == 1:
                    del _shared[key]
                    env.close()
                else:
                    _shared[key] = (env, count - 1)
                return

"""Salted hashes of persons: stable in a home, different between homes, the salt its owner's alone."""

from __future__ import annotations

import threading

import pytest

from twofold.errors import StoreError
from twofold.stores.person_hash import PersonHash


def test_a_hash_is_stable_in_a_home_and_tells_nothing_elsewhere(tmp_path) -> None:
    first, other = tmp_path / "first", tmp_path / "other"
    hashed = PersonHash(first)("user:42")
    assert len(hashed) == 16 and int(hashed, 16) >= 0
    assert PersonHash(first)("user:42") == hashed != PersonHash(first)("user:43")
    assert PersonHash(other)("user:42") != hashed


def test_the_salt_is_readable_by_its_owner_only(tmp_path) -> None:
    PersonHash(tmp_path)
    (salt,) = tmp_path.iterdir()
    assert salt.stat().st_mode & 0o777 == 0o600 and len(salt.read_bytes()) == 32


def test_processes_that_start_together_share_one_salt(tmp_path) -> None:
    found: set[str] = set()
    start = threading.Barrier(8)

    def hash_one() -> None:
        start.wait()
        found.add(PersonHash(tmp_path)("user:1"))

    threads = [threading.Thread(target=hash_one) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 1 and len(list(tmp_path.iterdir())) == 1


def test_a_damaged_salt_is_named(tmp_path) -> None:
    PersonHash(tmp_path)
    (salt,) = tmp_path.iterdir()
    salt.write_bytes(b"short")
    with pytest.raises(StoreError, match="damaged"):
        PersonHash(tmp_path)

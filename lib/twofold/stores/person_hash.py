"""Salted hashes of person keys: all that logs, metrics, file names and reports may say of who a person is.

The salt belongs to a home. It is made once, readable by its owner only, and never printed: without it a hash cannot be
guessed back from a list of user ids, and two homes give one person different hashes.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from pathlib import Path

from twofold.errors import StoreError

_SALT_BYTES = 32
_HASH_BYTES = 8


def _file(home: Path) -> Path:
    return home / "person.salt"


def _make_salt(file: Path) -> None:
    """Create the file whole or not at all; of two processes at the same time one wins, and both then read its salt."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_name(f"{file.name}.{secrets.token_hex(4)}.partial")
    descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(secrets.token_bytes(_SALT_BYTES))
            out.flush()
            os.fsync(out.fileno())
        os.link(partial, file)
    except FileExistsError:
        pass
    finally:
        partial.unlink()


class PersonHash:
    """``hashed = PersonHash(home); hashed("user:42")`` -> 16 hexadecimal digits, the same for ever in this home.

    Raises :class:`StoreError` when the home's salt cannot be read.
    """

    def __init__(self, home: Path) -> None:
        file = _file(home)
        if not file.exists():
            _make_salt(file)
        try:
            self._salt = file.read_bytes()
        except OSError as error:
            raise StoreError(f"the salt {file} cannot be read: {error.strerror}; run as the owner of the home") from error
        if len(self._salt) != _SALT_BYTES:
            raise StoreError(f"the salt {file} is damaged: remove it; hashes in older reports then no longer match new ones")

    def __call__(self, person: str) -> str:
        return hashlib.blake2b(person.encode(), digest_size=_HASH_BYTES, key=self._salt).hexdigest()

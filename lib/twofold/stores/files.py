"""Small and large files of a place, local or on S3: each appears whole or not at all."""

from __future__ import annotations

import os
import shutil
import uuid
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from twofold.errors import StoreError
from twofold.settings import Place
from twofold.stores.places import client

_PARTIAL = ".partial"


class Found(NamedTuple):
    """A file of a place: its size, and when it was last written by the place's clock (epoch ms)."""

    size_bytes: int
    written_ms: int


class Folder(Protocol):
    """The files of a place by their names, which may hold slashes."""

    def read(self, name: str) -> bytes | None:
        """A file's bytes; ``None`` when it is not there."""

    def write(self, name: str, data: bytes) -> None:
        """Replace a file by ``data``."""

    def create(self, name: str, data: bytes) -> bool:
        """Write a file that is not there; ``False``, and nothing written, when it is. Of many at once one wins."""

    def names(self, under: str = "") -> list[str]:
        """Names of the files directly in the folder, or in its folder ``under``; none when it is not there."""

    def walk(self) -> dict[str, Found]:
        """Every file by its name, those of folders in it too; a file that vanishes meanwhile may be missing."""

    def put(self, file: Path, name: str) -> None:
        """Copy a local file here."""

    def get(self, name: str, file: Path) -> bool:
        """Copy a file to a local one; ``False`` when it is not there."""

    def remove(self, name: str) -> None:
        """Remove a file, or a folder with all that it holds; nothing when it is not there."""


def folder(place: Place) -> Folder:
    """The files of a place."""
    return S3Folder(place) if place.on_s3 else LocalFolder(Path(place))


def replace_whole(source: Path, file: Path) -> None:
    """Give a whole local file its name, on disk before it has it."""
    _sync(source)
    source.replace(file)


def _sync(file: Path) -> None:
    with file.open("rb") as data:
        os.fsync(data.fileno())


def partial_of(file: Path) -> Path:
    """Where a copy of ``file`` grows: a name of its own, so that two copies at once do not meet."""
    return file.with_name(f"{file.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")


class LocalFolder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> bytes | None:
        try:
            return (self._path / name).read_bytes()
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        file = self._path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(file)
        partial.write_bytes(data)
        replace_whole(partial, file)

    def create(self, name: str, data: bytes) -> bool:
        file = self._path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(file)
        try:
            partial.write_bytes(data)
            _sync(partial)
            # A rename would replace what is there, a link does not.
            file.hardlink_to(partial)
        except FileExistsError:
            return False
        finally:
            partial.unlink(missing_ok=True)
        return True

    def names(self, under: str = "") -> list[str]:
        path = self._path / under
        return sorted(file.name for file in path.iterdir() if file.is_file()) if path.is_dir() else []

    def walk(self) -> dict[str, Found]:
        found = {}
        for root, _folders, names in os.walk(self._path):
            for name in names:
                file = Path(root) / name
                try:
                    stat = file.stat()
                except FileNotFoundError:
                    continue
                found[file.relative_to(self._path).as_posix()] = Found(stat.st_size, stat.st_mtime_ns // 1_000_000)
        return found

    def put(self, file: Path, name: str) -> None:
        _copy(file, self._path / name)

    def get(self, name: str, file: Path) -> bool:
        try:
            _copy(self._path / name, file)
        except FileNotFoundError:
            return False
        return True

    def remove(self, name: str) -> None:
        path = self._path / name
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_of(target)
    try:
        shutil.copyfile(source, partial)
        replace_whole(partial, target)
    finally:
        partial.unlink(missing_ok=True)


class S3Folder:
    """Objects under a prefix. An object appears when its upload is complete, never before."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._bucket, _, prefix = place.removeprefix("s3a://").partition("/")
        self._prefix = f"{prefix}/" if prefix else ""

    @property
    def _client(self) -> Any:
        return client(self._place.s3)

    def _fails(self, name: str, error: Exception) -> StoreError:
        return StoreError(f"{self._place}/{name}: {' '.join(str(error).split())}; look at the settings of room s3")

    def read(self, name: str) -> bytes | None:
        found = self.read_tagged(name)
        return None if found is None else found[0]

    def read_tagged(self, name: str) -> tuple[bytes, dict[str, Any]] | None:
        """A file's bytes, and the store's answer about it (``ETag``, ``LastModified``, its own clock in the headers)."""
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + name)
            return answer["Body"].read(), answer
        except Exception as error:
            if status(error) == 404:
                return None
            raise self._fails(name, error) from error

    def write(self, name: str, data: bytes) -> None:
        self.write_if(name, data)

    def create(self, name: str, data: bytes) -> bool:
        return self.write_if(name, data, IfNoneMatch="*") is not None

    def write_if(self, name: str, data: bytes, **condition: str) -> str | None:
        """Write under ``IfNoneMatch="*"`` or ``IfMatch=tag``; the new tag, or ``None`` when the condition does not hold."""
        try:
            return str(self._client.put_object(Bucket=self._bucket, Key=self._prefix + name, Body=data, **condition)["ETag"])
        except Exception as error:
            if condition and status(error) in (404, 409, 412):
                return None
            raise self._fails(name, error) from error

    def names(self, under: str = "") -> list[str]:
        prefix = self._prefix + (f"{under}/" if under else "")
        keys = self._keys(prefix, Delimiter="/")
        return sorted(key.removeprefix(prefix) for key in keys if key != prefix)

    def walk(self) -> dict[str, Found]:
        return {
            found["Key"].removeprefix(self._prefix): Found(found["Size"], int(found["LastModified"].timestamp() * 1000))
            for found in self._objects(self._prefix)
        }

    def _keys(self, prefix: str, **options: str) -> list[str]:
        return [found["Key"] for found in self._objects(prefix, **options)]

    def _objects(self, prefix: str, **options: str) -> list[dict[str, Any]]:
        try:
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix, **options)
            return [found for page in pages for found in page.get("Contents", ())]
        except Exception as error:
            raise self._fails("", error) from error

    def put(self, file: Path, name: str) -> None:
        try:
            self._client.upload_file(str(file), self._bucket, self._prefix + name)
        except Exception as error:
            raise self._fails(name, error) from error

    def get(self, name: str, file: Path) -> bool:
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = partial_of(file)
        try:
            self._client.download_file(self._bucket, self._prefix + name, str(partial))
            replace_whole(partial, file)
        except Exception as error:
            if status(error) == 404:
                return False
            raise self._fails(name, error) from error
        finally:
            partial.unlink(missing_ok=True)
        return True

    def remove(self, name: str) -> None:
        keys = [self._prefix + name, *self._keys(f"{self._prefix}{name}/")]
        try:
            for key in keys:
                self._client.delete_object(Bucket=self._bucket, Key=key)
        except Exception as error:
            raise self._fails(name, error) from error


def status(error: Exception) -> int | None:
    """HTTP status of an S3 error, or ``None``."""
    answer = getattr(error, "response", None) or {}
    code: int | None = answer.get("ResponseMetadata", {}).get("HTTPStatusCode")
    return code

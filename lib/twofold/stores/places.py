"""How a place on S3 is reached, said once: for Spark, for delta-rs, for boto3. And the one way to open a table without Spark.

Secrets come from the environment variables that the settings name, from a profile, or from the machine's role. Spark gets the
variables' names, which every JVM resolves for itself; their values stand in no setting, properties file or log.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.fs as pa_fs
from deltalake import CommitProperties, DeltaTable, QueryBuilder, Transaction, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError

from twofold.errors import SettingsError, StoreError, UsageError
from twofold.settings import Place, S3Settings, Settings

_S3A = "spark.hadoop.fs.s3a"
_PROVIDERS = "org.apache.hadoop.fs.s3a"


def _variables(s3: S3Settings) -> tuple[str, str, str] | None:
    """Names of the variables that hold keys (the third is empty without a token); ``None``: a profile or the machine's role."""
    if s3.profile or s3.access_key_variable not in os.environ:
        return None
    if s3.secret_key_variable not in os.environ:
        raise SettingsError(f"setting s3.secret_key_variable: {s3.access_key_variable} is set, {s3.secret_key_variable} is not")
    return s3.access_key_variable, s3.secret_key_variable, s3.session_token_variable * (s3.session_token_variable in os.environ)


def hadoop_conf(settings: Settings) -> dict[str, str]:
    """Spark properties for s3a:// places; empty when there are none."""
    if not settings.uses_s3:
        return {}
    s3 = settings.s3
    conf = {
        f"{_S3A}.endpoint.region": s3.region,
        f"{_S3A}.path.style.access": str(s3.path_style).lower(),
        # The other streams need libraries that the small set of jars leaves out.
        f"{_S3A}.input.stream.type": "classic",
    }
    if s3.endpoint:
        conf[f"{_S3A}.endpoint"] = s3.endpoint
        conf[f"{_S3A}.connection.ssl.enabled"] = str(s3.endpoint.startswith("https")).lower()
    names = _variables(s3)
    if s3.profile:
        conf[f"{_S3A}.aws.credentials.provider"] = f"{_PROVIDERS}.auth.ProfileAWSCredentialsProvider"
        conf[f"{_S3A}.auth.profile.name"] = s3.profile
    elif names is not None:
        access, secret, token = names
        provider = "TemporaryAWSCredentialsProvider" if token else "SimpleAWSCredentialsProvider"
        conf[f"{_S3A}.aws.credentials.provider"] = f"{_PROVIDERS}.{provider}"
        # Hadoop replaces the reference when it reads the key, in the driver and in each executor.
        for key, name in (("access.key", access), ("secret.key", secret), ("session.token", token)):
            if name:
                conf[f"{_S3A}.{key}"] = f"${{env.{name}}}"
    return conf


@lru_cache(maxsize=8)
def _session(s3: S3Settings) -> Any:
    import boto3

    names = _variables(s3)
    if names is None:
        return boto3.Session(profile_name=s3.profile or None, region_name=s3.region)
    access, secret, token = (os.environ[name] if name else None for name in names)
    return boto3.Session(access, secret, token, region_name=s3.region)


@lru_cache(maxsize=8)
def client(s3: S3Settings) -> Any:
    """A boto3 client, one a process (it may be used from many threads)."""
    from botocore.config import Config

    style = {"addressing_style": "path" if s3.path_style else "auto"}
    config = Config(s3=style, retries={"mode": "standard", "max_attempts": 5}, connect_timeout=5, read_timeout=30)
    return _session(s3).client("s3", endpoint_url=s3.endpoint or None, config=config)


def storage_options(s3: S3Settings) -> dict[str, str]:
    """What delta-rs (and polars) need to read a table on S3. Raises :class:`SettingsError` when nobody gives credentials."""
    found = _session(s3).get_credentials()
    if found is None:
        raise SettingsError(
            f"setting s3: no credentials; set {s3.access_key_variable} and {s3.secret_key_variable}, or s3.profile, or use a role"
        )
    # A role's keys expire: they are asked for at every opening.
    keys = found.get_frozen_credentials()
    options = {
        "AWS_REGION": s3.region,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_VIRTUAL_HOSTED_STYLE_REQUEST": str(not s3.path_style).lower(),
    }
    if keys.token:
        options["AWS_SESSION_TOKEN"] = keys.token
    if s3.endpoint:
        options["AWS_ENDPOINT_URL"] = s3.endpoint
        options["AWS_ALLOW_HTTP"] = str(s3.endpoint.startswith("http://")).lower()
    return options


def as_place(location: str) -> Place:
    """A location that knows how S3 is reached; a plain text is reached by the default settings."""
    return location if isinstance(location, Place) else Place(location, S3Settings())


def table_options(location: str) -> dict[str, str] | None:
    """Storage options of a table's location; ``None`` on local disk."""
    place = as_place(location)
    return storage_options(place.s3) if place.on_s3 else None


def table_exists(location: str) -> bool:
    """Whether there is a Delta table."""
    return bool(DeltaTable.is_deltatable(location, table_options(location)))


def open_table(location: str, version: int | None = None) -> DeltaTable:
    """A Delta table at a version (default: its newest), opened by delta-rs: the one way to read a table without Spark."""
    return DeltaTable(location, version=version, storage_options=table_options(location))


def dataset_of(table: DeltaTable) -> ds.Dataset:
    """An open table as an Arrow dataset.

    Local files are read by Arrow's own file system. delta-rs' is Python to Arrow, whose threads may still have to let go of a file
    when the interpreter ends, and then abort the process ("terminate called without an active exception").
    """
    url = urlsplit(table.table_uri)
    if url.scheme not in ("", "file"):
        return table.to_pyarrow_dataset()
    return table.to_pyarrow_dataset(filesystem=pa_fs.SubTreeFileSystem(unquote(url.path), pa_fs.LocalFileSystem()))


def query_table(table: DeltaTable, name: str, query: str) -> Iterator[pa.RecordBatch]:
    """Batches of a SQL query in which the table is called ``name``. Raises :class:`UsageError` for what it cannot answer."""
    try:
        yield from pa.RecordBatchReader.from_stream(QueryBuilder().register(name, table).execute(query))
    except (DeltaError, pa.ArrowException) as error:
        raise UsageError(f"the table {name} cannot answer that: {' '.join(str(error).split())[:300]}") from error


def data_files(location: str, version: int) -> tuple[list[str], Any]:
    """Paths of the Parquet files of a table's version, and the pyarrow filesystem to read them by (``None``: the disk)."""
    table = open_table(location, version)
    if table_options(location) is None:
        return table.file_uris(), None
    dataset = dataset_of(table)
    return dataset.files, dataset.filesystem


def file_names(location: str, version: int | None = None) -> frozenset[str]:
    """Names, relative to the table, of the data files of a version (default: the newest). Raises :class:`StoreError`."""
    try:
        added = pa.table(open_table(location, version).get_add_actions(flatten=True))
    except DeltaError as error:
        what = "the newest version" if version is None else f"version {version}"
        raise StoreError(f"{what} of the table {location} cannot be opened: {' '.join(str(error).split())[:200]}") from error
    return frozenset(unquote(path) for path in added["path"].to_pylist())


def version_at(location: str, at_ms: int) -> int:
    """The version that was the newest at an instant; the first one where the table is younger."""
    table = open_table(location)
    table.load_as_version(datetime.fromtimestamp(at_ms / 1000, UTC))
    return int(table.version())


def append_once(table: DeltaTable, row: dict[str, Any], app: str, number: int) -> bool:
    """Append a row as exactly the version after the one that ``table`` was opened at; ``False`` when another commit came first.

    The commit carries the transaction (``app``, ``number``), by which Spark knows that the number is taken. Local disk only:
    on S3 delta-rs reads, because one Spark driver writes a table there. Raises :class:`StoreError`.
    """
    if "://" in table.table_uri and not table.table_uri.startswith("file:"):
        raise StoreError(f"the table {table.table_uri} is written by Spark only: use the job")
    values = pa.Table.from_pylist([row], schema=pa.schema(table.schema().to_arrow()))
    # No retry: what met another commit is judged again from the rows, never rebased over them.
    properties = CommitProperties(app_transactions=[Transaction(app, number)], max_commit_retries=0)
    try:
        write_deltalake(table, values, mode="append", commit_properties=properties)
    except CommitFailedError:
        return False
    return True

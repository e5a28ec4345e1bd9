"""Typed settings: the only reader of YAML and of the environment.

A value comes from, later wins: the defaults here, one YAML file, environment variables ``TWOFOLD_<ROOM>__<KEY>``,
keyword arguments. ``conf/reference.yaml`` lists every key with its unit, default and reason and is tested equal to this file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from twofold.errors import SettingsError


class _Room(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KafkaSettings(_Room):
    bootstrap_servers: str = Field("", description="host:port list of the brokers; empty: the broker recorded in the home")
    events_topic: str = Field("events", description="the log: what producers send")
    facts_topic: str = Field("facts", description="one message a log entry: verdict and facts, same partition number")
    partitions: int = Field(4, ge=1, le=1000, description="partitions of both topics when `up` creates them")
    replication_factor: int = Field(1, ge=1, description="replicas of both topics when `up` creates them; 3 in production")
    max_message_bytes: int = Field(
        2 * 1024 * 1024,
        ge=1_100_000,
        description="largest record a topic takes; above the oversize limit so that admission sees it",
    )
    facts_max_message_bytes: int = Field(
        8 * 1024 * 1024,
        ge=4_000_000,
        description="largest message of `facts`: 512 KiB of control characters are six times that in JSON",
    )
    events_retention_ms: int = Field(-1, description="how long `events` keeps entries; -1: for ever (a laptop's log is small)")
    facts_retention_ms: int = Field(3 * 86_400_000, ge=60_000, description="how long `facts` keeps messages: three batch intervals")


class SpeedSettings(_Room):
    mode: Literal["realtime", "microbatch"] = Field("realtime", description="Spark trigger: real-time mode or micro-batches")
    batch_duration: str = Field(
        "60 minutes",
        description="length of a real-time batch: its boundary is the only stall, and no crash repeats it (see start_from)",
    )
    start_from: Literal["facts", "checkpoint"] = Field(
        "facts", description="where a start begins: at the positions the tail of `facts` holds, or at the checkpoint"
    )
    linger_ms: int = Field(2, ge=0, description="how long the facts producer gathers records before it sends")
    microbatch_trigger_ms: int = Field(200, ge=0, description="trigger interval in microbatch mode")


class ArchiveSettings(_Room):
    trigger_ms: int = Field(2_000, ge=0, description="trigger interval: one Delta commit each")
    max_offsets_per_trigger: int = Field(
        500_000, ge=1, description="entries of one commit at most, so that a backlog keeps its files healthy"
    )


class FollowerSettings(_Room):
    poll_ms: int = Field(20, ge=1, description="longest wait of one fetch from `facts`")
    max_records: int = Field(5_000, ge=1, description="messages of one hot-store transaction at most")
    heal_after_ms: int = Field(
        2_000, ge=0, description="how long a jump waits for speed's replay before the entries are read from `events`"
    )
    heartbeat_ms: int = Field(1_000, ge=10, description="how often the log end is looked up and recorded")
    housekeeping_ms: int = Field(5_000, ge=100, description="how often the manifest is looked at for trimming and refilling")
    sync_ms: int = Field(
        1_000, ge=0, description="how often the hot store is flushed to disk; a power loss replays at most this much"
    )


class HotSettings(_Room):
    map_size_bytes: int = Field(16 * 1024**3, ge=1 << 20, description="largest size of the hot store's memory map (sparse)")


class BatchSettings(_Room):
    late_grace_days: int = Field(
        5, ge=1, description="how far before as_of a read may lie: horizon = as_of - (longest window + this)"
    )
    keep_snapshots: int = Field(3, ge=2, description="snapshots whose files stay readable")
    wide_tables: bool = Field(True, description="write `wide_person` and `wide_campaign` each night; records do not need them")
    drift_audit: bool = Field(
        True, description="hold each snapshot to the one before and the log since; what nothing explains stops the publish"
    )


class RetentionSettings(_Room):
    orphan_hours: int = Field(
        24, ge=1, description="age at which a data file that no commit names is a dead write's; longer than the longest rebuild"
    )
    stream_days: int = Field(
        7, ge=1, description="how long files stay that a table of a stream let go of; a stream that stood longer begins anew"
    )


class GateSettings(_Room):
    mode: Literal["enforce", "report", "off"] = Field(
        "enforce", description="what a failed expectation does: stop the publish, be reported only, or not be looked for"
    )
    expectations: str = Field("conf/expectations", description="folder of the suites: one YAML file a subject")
    keep_reports: int = Field(400, ge=1, description="reports that stay in the manifest's folder: more than a year of nights")
    sample_rows: int = Field(1_000, ge=1, description="rows of a micro-batch of `personalization` that are validated at most")
    sample_interval_ms: int = Field(
        60_000, ge=0, description="of the micro-batches of `personalization` one in so long is validated"
    )
    data_docs: bool = Field(
        False, description="also write great-expectations' Data Docs beside the reports; their pages call outside hosts"
    )


class PersonalizeSettings(_Room):
    trigger_ms: int = Field(
        1_000, ge=0, description="trigger interval: one commit of the people whom new commits of `archive` touch"
    )
    chunk_persons: int = Field(
        50_000, ge=64, description="people of one commit of a whole refresh, after which live batches go first"
    )
    due_interval_ms: int = Field(
        15_000, ge=0, description="how long a lapsed row may wait, before it is emitted again, for a batch to go with"
    )
    tidy_files: int = Field(256, ge=2, description="files of the table at which it is tidied")
    tidy_rows_per_person: float = Field(
        2.0, ge=1, description="rows a person at which tidying leaves one a person, else it only makes few files of many"
    )


class SegmentSettings(_Room):
    file: str = Field(
        "conf/segments.yaml",
        description="rules of the segments; a relative path lies in the checkout, whoever reads it; empty: no segments",
    )


class ServingSettings(_Room):
    fresh_max_lag_ms: int = Field(5_000, ge=0, description="a record that may lie further behind the log than this is `stale`")
    manifest_poll_ms: int = Field(1_000, ge=0, description="how often a long-lived reader looks for a newer snapshot")
    consent_max_lag_ms: int = Field(60_000, ge=0, description="a record older than this is never sendable")


class AuditSettings(_Room):
    sample_share: float = Field(
        0.0, ge=0, le=1, description="share of persons whose served records are logged for `twofold audit`; 0: nobody's"
    )
    keep_days: int = Field(7, ge=1, description="how long logged records stay once they are judged; they hold personal data")
    max_bytes: int = Field(
        1024**3, ge=1 << 16, description="size of a home's log of served records at which nothing more is logged, and it says so"
    )
    keep_reports: int = Field(400, ge=1, description="reports of audits that stay in the home")


class LocalSettings(_Room):
    restart: Literal["restart", "exit"] = Field("restart", description="what `up` does when a part dies")
    ready_timeout_s: int = Field(300, ge=1, description="how long `up` waits for a part to be ready")
    advertised: str = Field(
        "",
        pattern=r"^([^:\s]+:\d{1,5})?$",
        description="host:port by which clients reach the broker of `up`, where something stands before it; empty: its own",
    )


class SparkSettings(_Room):
    jars: str = Field("build/jars/spark", description="folder of the jars that pyspark does not ship")
    broker_jars: str = Field("build/jars/broker", description="folder of the local broker's jars")
    properties: str = Field(
        "",
        description="properties file of the jobs that `up` and `batch` start (conf/spark/cluster.conf); empty: each its own",
    )
    driver_memory: str = Field("2g", description="heap of a Spark driver that `up` or `batch` starts")


class S3Settings(_Room):
    """How s3a:// places are reached. Secrets are never settings: these name the environment variables that hold them."""

    endpoint: str = Field("", description="address of the object store; empty: Amazon's own of the region")
    region: str = Field("us-east-1", description="region of the buckets")
    path_style: bool = Field(False, description="buckets in the path instead of the host name: what most other stores need")
    access_key_variable: str = Field("AWS_ACCESS_KEY_ID", description="environment variable that holds the access key")
    secret_key_variable: str = Field("AWS_SECRET_ACCESS_KEY", description="environment variable that holds the secret key")
    session_token_variable: str = Field("AWS_SESSION_TOKEN", description="environment variable that holds a session token, if any")
    profile: str = Field("", description="profile of the shared credentials file; wins over the variables")
    lease_ms: int = Field(
        30_000,
        ge=1_000,
        description="how long a writer that says nothing keeps its table; a writer elsewhere waits that long after a crash",
    )


class Place(str):
    """A location, a path or an s3a:// address, that knows how S3 is reached.

    Where only a plain ``str`` will do (Delta's table builder), ``str(place)`` is one.
    """

    s3: S3Settings

    def __new__(cls, location: str, s3: S3Settings) -> Place:
        place = super().__new__(cls, location.rstrip("/"))
        place.s3 = s3
        return place

    def __truediv__(self, name: str) -> Place:
        return Place(f"{self}/{name}", self.s3)

    @property
    def on_s3(self) -> bool:
        return self.startswith(_S3)


_S3 = "s3a://"


class Settings(_Room):
    """All settings. ``home`` holds everything that a local run writes."""

    home: str = Field(".twofold", description="folder of everything a local run writes")
    tables: str = Field("", description="where the Delta tables live, a path or s3a://; empty: `tables` in the home")
    checkpoints: str = Field(
        "", description="where the streams' checkpoints live, a path or s3a://; empty: `checkpoints` in the home"
    )
    snapshots: str = Field(
        "", description="where snapshot files are published, a path or s3a://; readers keep copies in the home; empty: there only"
    )
    kafka: KafkaSettings = Field(default_factory=KafkaSettings)
    speed: SpeedSettings = Field(default_factory=SpeedSettings)
    archive: ArchiveSettings = Field(default_factory=ArchiveSettings)
    follower: FollowerSettings = Field(default_factory=FollowerSettings)
    hot: HotSettings = Field(default_factory=HotSettings)
    batch: BatchSettings = Field(default_factory=BatchSettings)
    retention: RetentionSettings = Field(default_factory=RetentionSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    personalize: PersonalizeSettings = Field(default_factory=PersonalizeSettings)
    segments: SegmentSettings = Field(default_factory=SegmentSettings)
    serving: ServingSettings = Field(default_factory=ServingSettings)
    audit: AuditSettings = Field(default_factory=AuditSettings)
    local: LocalSettings = Field(default_factory=LocalSettings)
    spark: SparkSettings = Field(default_factory=SparkSettings)
    s3: S3Settings = Field(default_factory=S3Settings)

    @field_validator("tables", "checkpoints", "snapshots")
    @classmethod
    def _known_scheme(cls, location: str) -> str:
        if "://" in location and not location.startswith(_S3):
            raise ValueError(f"{location} is neither a path nor an s3a:// address")
        return location

    # The places of a home: derived once, here.
    @property
    def home_path(self) -> Path:
        return Path(self.home).absolute()

    def _place(self, location: str, default: str) -> Place:
        # A relative path lies in the home: jobs and commands run in different folders.
        return Place(location if location.startswith(_S3) else str(self.home_path / (location or default)), self.s3)

    @property
    def tables_place(self) -> Place:
        return self._place(self.tables, "tables")

    def table(self, name: str) -> Place:
        """Location of a Delta table."""
        return self.tables_place / name

    def checkpoint(self, name: str) -> Place:
        return self._place(self.checkpoints, "checkpoints") / name

    @property
    def snapshots_place(self) -> Place:
        """Where the batch publishes snapshot files."""
        return self._place(self.snapshots, "snapshots")

    @property
    def snapshots_path(self) -> Path:
        """Where this home keeps the snapshot files that it built or fetched: a local folder, always."""
        return self.home_path / "snapshots"

    @property
    def segments_path(self) -> Path | None:
        """The file of the segments' rules; ``None``: there are none."""
        # Jobs, commands and notebooks run in different folders and must read the same rules.
        return Path(__file__).resolve().parents[2] / self.segments.file if self.segments.file else None

    @property
    def uses_s3(self) -> bool:
        return any(location.startswith(_S3) for location in (self.tables, self.checkpoints, self.snapshots))

    @property
    def hot_path(self) -> Path:
        return self.home_path / "hot.lmdb"

    @property
    def served_path(self) -> Path:
        """Where this home logs what it served: a local folder, always."""
        return self.home_path / "served"


_PREFIX = "TWOFOLD_"
#: Variables of the prefix that are no settings: the settings file, where the tests find real data sets, whom the schedule alerts.
_NO_SETTINGS = (f"{_PREFIX}CONFIG", f"{_PREFIX}DATA", f"{_PREFIX}ALERT_COMMAND")


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name, value in environ.items():
        if not name.startswith(_PREFIX) or name in _NO_SETTINGS:
            continue
        spot = out
        *rooms, key = name[len(_PREFIX) :].lower().split("__")
        for room in rooms:
            spot = spot.setdefault(room, {})
        spot[key] = value
    return out


def _overlay(base: dict[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    for key, value in top.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            _overlay(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value
    return base


def load_settings(config: str | Path | None = None, environ: Mapping[str, str] | None = None, **overrides: Any) -> Settings:
    """Settings from a YAML file (or ``TWOFOLD_CONFIG``), the environment and ``overrides`` (``None`` values are ignored).

    Raises :class:`SettingsError` with the key that is wrong.
    """
    environ = os.environ if environ is None else environ
    path = config or environ.get(f"{_PREFIX}CONFIG")
    data: dict[str, Any] = {}
    if path:
        try:
            loaded = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        except OSError as error:
            raise SettingsError(f"settings file {path} cannot be read: {error.strerror}") from error
        except yaml.YAMLError as error:
            raise SettingsError(f"settings file {path} is not YAML: {' '.join(str(error).split())}") from error
        if not isinstance(loaded or {}, dict):
            raise SettingsError(f"settings file {path} must hold a mapping of rooms")
        data = loaded or {}
    _overlay(data, _from_environment(environ))
    _overlay(data, {key: value for key, value in overrides.items() if value is not None})
    try:
        return Settings.model_validate(data)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise SettingsError(f"setting {key}: {first['msg']} (see conf/reference.yaml)") from error


def reference_yaml() -> str:
    """Every key with its default, and its unit and reason as a comment: the text of ``conf/reference.yaml``."""
    lines = [
        "# Every setting of Twofold: its default, and what it is for. Units stand last in a name (_ms, _s, _bytes, _days).",
        "# A file of settings names only what it changes; an environment variable TWOFOLD_<ROOM>__<KEY> wins over it.",
        "",
    ]

    def add(model: type[BaseModel], indent: str) -> None:
        for name, info in model.model_fields.items():
            if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
                lines.extend(["", f"{indent}{name}:"])
                add(info.annotation, indent + "  ")
                continue
            choices = get_args(info.annotation)
            one_of = f" (one of: {', '.join(str(choice) for choice in choices)})" if choices else ""
            lines.append(f"{indent}# {info.description}{one_of}")
            lines.append(f"{indent}{name}: {json.dumps(info.get_default())}")

    add(Settings, "")
    return "\n".join(lines) + "\n"

"""The log of served records: whom it has, what a line holds, and that no fault of its own stops a read."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pytest

from tests.unit.layered_home import drawn_log
from tests.unit.manifests import TOPIC
from tests.unit.served_home import EVERYONE, HOUR, Home, small
from twofold.audit import Served
from twofold.catalogue import CATALOGUE, VERSION
from twofold.errors import StoreError
from twofold.settings import Settings
from twofold.stores.person_hash import PersonHash
from twofold.stores.served_log import ServedLog, read_progress, sampled, served_files
from twofold.testing.script import START_MS
from twofold.timeline import DAY_MS, HOUR_MS
from twofold.views import ManifestRow


# --- who is logged --------------------------------------------------------------------------------------------------------------
def test_the_sample_is_the_same_persons_everywhere_and_about_the_share() -> None:
    keys = [f"user:{number}" for number in range(20_000)]
    fifth = {key for key in keys if sampled(key, 0.2)}
    assert 3_700 < len(fifth) < 4_300
    assert fifth <= {key for key in keys if sampled(key, 0.21)}
    assert all(sampled(key, 1) for key in keys) and not any(sampled(key, 0) for key in keys)


def test_two_homes_log_the_same_persons_and_nobody_by_default(tmp_path: Path) -> None:
    persons = [f"user:{number}" for number in range(300)]
    logged = []
    for name, share in (("a", 0.3), ("b", 0.3), ("none", 0)):
        home = small(tmp_path / name, sample_share=share)
        PersonHash(home.settings.home_path)
        home.serve(persons)
        with home.reader() as reader:
            for person in persons:
                reader.record(person)
                reader.standing(person)
            reader.explain(persons[0], "orders_lifetime")
        logged.append([line["person"] for line in home.lines()])
    first, second, nobody = logged
    assert first == second and sorted(first) == sorted([person for person in persons if sampled(person, 0.3)] * 2)
    assert nobody == [] and not (tmp_path / "none" / "served").exists() and Settings().audit.sample_share == 0


def test_a_line_holds_what_the_audit_needs_and_is_the_owners_alone(tmp_path: Path) -> None:
    home = small(tmp_path)
    with home.reader() as reader:
        record = reader.record("user:1")
        row = reader.snapshot
        assert not served_files(home.settings.served_path)
        # With the next read after a second, whoever that is of.
        home.now += 1_000
        reader.record("user:2")
        (file,) = served_files(home.settings.served_path)
    (line, _other) = home.lines()
    assert line.pop("values") == msgspec.to_builtins(record.values)
    assert line == {
        "kind": "served",
        "person": "user:1",
        "t": HOUR[5],
        "served_ms": HOUR[5],
        "snapshot": row.snapshot,
        "seq": 1,
        "cut": row.cut.to_json(),
        "high": {TOPIC: {"0": 2, "1": 0}},
        "version": VERSION,
        "installed": VERSION,
        "state": "stale",
        "inexact": {},
    }
    assert file.path.stat().st_mode & 0o777 == 0o600 and file.path.parent.stat().st_mode & 0o777 == 0o700
    assert file.path.name.startswith("2025-01-01-")


# --- the log's own faults ---------------------------------------------------------------------------------------------------------
@contextmanager
def full_at(size_bytes: int) -> Iterator[None]:
    """No file of this process grows beyond a size: a write takes what fits, the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_disk_that_is_full_stops_no_read_and_leaves_whole_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    home = small(tmp_path)
    home.archive(2)
    with home.reader() as reader:
        for _ in range(3):
            reader.record("user:1")
        home.now += 1_000
        reader.record("user:1")
        (file,) = served_files(home.settings.served_path)
        size = file.path.stat().st_size
        with full_at(size + 100):
            for _ in range(5):
                home.now += 1_000
                assert reader.record("user:1").values["orders_lifetime"] == 1
            assert file.path.stat().st_size == size
            lost = reader.status().served_lost
            assert lost == 5
        assert [r.message for r in caplog.records if "not logged any more" in r.message] == [
            f"twofold: served records are not logged any more: {file.path.parent} cannot be written: File too large; reads go on"
        ]
        reader.record("user:1")
    report = home.audit().report
    assert report.summary.judged == 5 and sum(report.not_logged.values()) == 5
    assert list(report.not_logged) == [f"{file.path.parent} cannot be written: File too large"]


def test_a_folder_that_cannot_be_made_stops_no_read(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.settings.served_path.write_text("in the way")
    with home.reader() as reader:
        assert reader.record("user:1").values["orders_lifetime"] == 1
        home.now += 1_000
        reader.record("user:1")
        assert reader.status().served_lost == 1


def test_the_log_stops_at_its_size_and_says_so_and_goes_on_when_there_is_room(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    home = small(tmp_path, max_bytes=1 << 16)
    home.archive(2)
    with home.reader() as reader:
        for _ in range(400):
            home.now += 250
            reader.record("user:1")
        lost = reader.status().served_lost
        assert lost is not None and lost > 200
        assert sum(file.path.stat().st_size for file in served_files(home.settings.served_path)) < (1 << 16) + 300
        assert sum("has reached audit.max_bytes" in record.message for record in caplog.records) == 1
        # An audit hears of it while the process goes on, though not yet of how many.
        report = home.audit().report
        assert 0 < sum(report.not_logged.values()) < lost
        (file,) = served_files(home.settings.served_path)
        kept = sum(line["kind"] == "served" for line in home.lines())
        assert report.summary.judged == kept
        home.settings.served_path.joinpath("progress.json").unlink()
        os.truncate(file.path, 0)
        reader.record("user:1")
    told = [line for line in home.lines() if line["kind"] == "lost"]
    assert len(told) == 1 and told[0]["lost"] + sum(report.not_logged.values()) >= lost


def test_old_files_go_once_every_line_was_judged(tmp_path: Path) -> None:
    home = small(tmp_path, keep_days=2)
    home.serve(["user:1"])
    home.now = HOUR[0] + 12 * HOUR_MS + 2 * DAY_MS
    report = home.audit().report
    assert (report.files_removed, report.not_judged) == (0, {"waiting": 1})
    home.archive(2)
    home.now -= 1
    assert home.audit().report.files_removed == 0
    home.now += 1
    home.serve(["user:1"])
    assert home.audit(again=True).report.files_removed == 0
    assert home.audit().report.files_removed == 1
    (file,) = served_files(home.settings.served_path)
    assert list(read_progress(home.settings.served_path)) == [file.path.name]


def test_each_day_has_its_own_file(tmp_path: Path) -> None:
    home = small(tmp_path)
    with home.reader() as reader:
        for _ in range(3):
            reader.record("user:1")
            home.now += DAY_MS
    assert [file.path.name[:10] for file in served_files(home.settings.served_path)] == ["2025-01-01", "2025-01-02", "2025-01-03"]


def test_a_damaged_progress_is_named(tmp_path: Path) -> None:
    home = small(tmp_path)
    home.archive(2)
    home.serve(["user:1"])
    (home.settings.served_path / "progress.json").write_text("{")
    with pytest.raises(StoreError, match=r"progress\.json is damaged: .*judged again"):
        home.audit()


def test_the_log_is_closed_by_its_reader(tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": str(tmp_path), "audit": EVERYONE})
    log = ServedLog(settings)
    row = ManifestRow(1, "s1", Home(tmp_path / "x", *drawn_log(0)).end(3), VERSION)
    served = Served(
        person="user:1",
        t=1,
        served_ms=START_MS,
        snapshot="s1",
        seq=1,
        cut=row.cut.to_json(),
        high={},
        version=VERSION,
        installed=CATALOGUE.version,
        state="batch_only",
        values={},
    )
    log.add(served)
    log.close()
    log.close()
    (file,) = served_files(settings.served_path)
    assert msgspec.json.decode(file.path.read_bytes(), type=Served) == served and served.offsets == row.cut

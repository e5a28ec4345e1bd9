"""Speed, archive, personalize and batch on a standalone cluster of two workers; kill -9 of a worker loses nothing."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.conftest import System, wait_for
from tests.e2e.equality import Truth, assert_rows_hold, conserved, differences, topics
from twofold.local.cluster import Cluster
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.project import ROOT, child_environment, spark_submit
from twofold.stores.archive_log import archive_end

pytestmark = [pytest.mark.e2e, pytest.mark.slow]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with Cluster(tmp_path / "cluster", slots=12, memory="8g") as running:
        yield running


@pytest.fixture
def system(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    """A running system whose jobs have their executors on the cluster: the shipped properties, at this cluster's port."""
    properties = tmp_path / "cluster.conf"
    shipped = (ROOT / "conf" / "spark" / "cluster.conf").read_text(encoding="utf-8")
    assert "spark://127.0.0.1:7077" in shipped
    properties.write_text(shipped.replace("spark://127.0.0.1:7077", cluster.master), encoding="utf-8")
    monkeypatch.setenv("TWOFOLD_SPARK__PROPERTIES", str(properties))
    monkeypatch.setenv("TWOFOLD_KAFKA__PARTITIONS", "2")
    # The wide tables are tables like `state`: compiling them on each executor is most of a small rebuild.
    monkeypatch.setenv("TWOFOLD_BATCH__WIDE_TABLES", "false")
    running = System(tmp_path / "home")
    running.up(personalize=True)
    try:
        yield running
    finally:
        running.down()


def test_a_killed_worker_loses_nothing(system: System, cluster: Cluster, tmp_path: Path) -> None:
    archive = system.settings.table("archive")
    shop = CONVERTERS["shop"](None, seed=31, persons=100, events=1_500)
    lines = [encode_event(event) for event in shop]
    feeding = threading.Thread(target=system.send, args=(lines,), kwargs={"rate": 150})
    feeding.start()
    wait_for(lambda: sum(archive_end(archive).values()) > 0, what="the first commit of the archive")
    cluster.kill_worker(0)
    feeding.join()
    cluster.start_worker(0)
    batch = subprocess.Popen(
        spark_submit("batch", "--home", str(system.home), properties=str(tmp_path / "cluster.conf")),
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=child_environment(),
        text=True,
    )
    assert batch.stdout is not None
    row, said = {}, []
    for line in batch.stdout:
        said.append(line)
        if line.strip() == "step state":
            cluster.kill_worker(1)
        elif line.startswith("{"):
            row = json.loads(line)
    assert batch.wait() == 0, f"a rebuild that loses a worker runs its tasks on the other: {said[-3:]}"
    assert row["seq"] == 1 and cluster.alive_workers() == 1

    system.wait()
    log = system.log()
    assert len(log) == len(lines)
    conserved(system, log)
    truth = Truth(log, topics(system))
    newest = max(e.at_ms or 0 for entries in truth.people.values() for e in entries)
    assert differences(system.settings, truth, newest + 1) == []
    assert {row["seq"] for row in assert_rows_hold(system)} <= {0, 1}

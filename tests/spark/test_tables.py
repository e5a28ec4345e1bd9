"""A table whose first commit was torn, by a full disk or a kill -9, is created all the same by whoever comes next."""

from __future__ import annotations

from pathlib import Path

import pytest

from twofold.catalogue import CATALOGUE
from twofold.spark.personalization import create_personalization
from twofold.spark.published import create_manifest, write_version
from twofold.spark.tables import create_archive
from twofold.stores.places import open_table, table_exists

pytestmark = pytest.mark.spark

CREATE = {
    "archive": create_archive,
    "manifest": create_manifest,
    "personalization": lambda spark, location: create_personalization(spark, location, CATALOGUE),
    "state": lambda spark, location: write_version(spark.range(3), location, "s1"),
}


def _torn(location: Path) -> None:
    """What a creation leaves behind that found the disk full."""
    log = location / "_delta_log"
    (log / "_staged_commits").mkdir(parents=True)
    (log / ".00000000000000000000.json.0aab4375-0348-4914-bcba-681be6f8dea2.tmp").write_bytes(b'{"commitInfo":')
    (log / "..00000000000000000000.json.0aab4375-0348-4914-bcba-681be6f8dea2.tmp.crc").write_bytes(b"crc\0")


@pytest.mark.parametrize("name", CREATE)
def test_a_torn_creation_is_done_again(spark, tmp_path, name):
    location = tmp_path / name
    _torn(location)
    assert not table_exists(str(location))
    CREATE[name](spark, str(location))
    assert open_table(str(location)).version() == 0
    # And what is there stays as it is.
    if name != "state":
        CREATE[name](spark, str(location))
        assert open_table(str(location)).version() == 0

"""One Spark session for all Spark tests of a run."""

from __future__ import annotations

import pytest

import tests.s3  # noqa: F401  (the keys of the object store must be in the environment before the JVM starts)
from tests.spark.personalize_home import Home
from twofold.local.project import SHORT_LIVED
from twofold.settings import Settings
from twofold.spark.session import PLACE, open_session


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    home = tmp_path_factory.mktemp("spark-home")
    options = f"{PLACE['spark.driver.extraJavaOptions']} {SHORT_LIVED}"
    session = open_session(Settings(home=str(home)), "tests", spark__driver__memory="3g", spark__driver__extraJavaOptions=options)
    yield session
    session.stop()


@pytest.fixture
def homes(spark, tmp_path, monkeypatch):
    """Makes homes of :mod:`tests.spark.personalize_home`."""
    # The slice then gathers its files at every second batch.
    monkeypatch.setattr("twofold.stores.sorted_files._FANOUT", 2)
    return lambda **options: Home(spark, tmp_path, **options)

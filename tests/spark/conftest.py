"""One Spark session for all Spark tests of a run."""

from __future__ import annotations

import pytest

from twofold.settings import Settings
from twofold.spark.session import open_session


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    home = tmp_path_factory.mktemp("spark-home")
    session = open_session(Settings(home=str(home)), "tests", spark__driver__memory="3g")
    yield session
    session.stop()

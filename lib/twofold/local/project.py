"""Where the checkout is: jobs, configuration and jars are found from the package, whatever folder a command is called in."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

from twofold.errors import PartError

ROOT = Path(__file__).resolve().parents[3]
#: For JVMs of minutes, in ``JDK_JAVA_OPTIONS``: the optimizing compiler would take more than it gives back.
SHORT_LIVED = "-XX:TieredStopAtLevel=1"


def _spark(program: str) -> str:
    """A program of the pyspark that this interpreter uses."""
    beside = Path(sys.executable).with_name(program)
    if not beside.exists():
        spec = importlib.util.find_spec("pyspark")
        places = list(spec.submodule_search_locations or ()) if spec is not None else []
        if not places:
            raise PartError("pyspark is missing: run `make setup`")
        beside = Path(places[0]) / "bin" / program
    return str(beside)


def spark_submit(job: str, *arguments: str, properties: str = "") -> list[str]:
    """The README's line: ``spark-submit --properties-file conf/spark/X.conf jobs/X.py …``, to be run in ``ROOT``.

    ``properties``: another file than the job's own (setting ``spark.properties``).
    """
    return [_spark("spark-submit"), "--properties-file", properties or f"conf/spark/{job}.conf", f"jobs/{job}.py", *arguments]


def spark_class() -> str:
    """The program that starts a class of Spark by its name."""
    return _spark("spark-class")


def child_environment() -> dict[str, str]:
    """The environment of a Spark child: this interpreter, loopback only."""
    return {
        **os.environ,
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYTHONUNBUFFERED": "1",
    }

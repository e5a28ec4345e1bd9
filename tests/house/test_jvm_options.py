"""The options of the JVMs: said once in code, and once more in the files that `spark-submit` reads before there is code."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pyspark
import pytest

from twofold.local.project import ROOT
from twofold.spark.session import PLACE

OPTIONS = PLACE["spark.driver.extraJavaOptions"]
FILES = sorted((ROOT / "conf" / "spark").glob("*.conf"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_job_starts_its_jvm_alike(file: Path):
    lines = [line.split(maxsplit=1) for line in file.read_text(encoding="utf-8").splitlines() if line and not line.startswith("#")]
    assert dict(lines)["spark.driver.extraJavaOptions"] == OPTIONS


def test_the_archive_that_set_up_wrote_is_mapped():
    (archive,) = (option for option in OPTIONS.split() if option.startswith("-XX:SharedArchiveFile="))
    spark, java = Path(pyspark.__file__).parent, shutil.which("java")
    assert java is not None
    (first,) = (spark / "jars").glob("slf4j-api-*.jar")
    # The class path of Spark's launcher. `on`: a JVM that cannot map the archive does not start.
    command = [java, "-Xshare:on", archive, "-cp", f"{spark}/conf:{first}:{spark}/jars/*", "-version"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        # Once, beside another test run, the class paths did not match, and did a moment later: then this says which.
        command.insert(1, "-Xlog:class+path=info")
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr + done.stdout

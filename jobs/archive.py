"""spark-submit --properties-file conf/spark/archive.conf jobs/archive.py --home HOME: topic `events` -> Delta `archive`."""

from __future__ import annotations

import sys

from twofold.spark.job import run_stream

if __name__ == "__main__":
    from twofold.spark.archive import is_ready, start_archive

    sys.exit(run_stream("archive", start_archive, is_ready))

"""spark-submit --properties-file conf/spark/personalize.conf jobs/personalize.py --home HOME: `archive` -> `personalization`."""

from __future__ import annotations

import sys

from twofold.spark.job import arguments, run_streams

if __name__ == "__main__":
    from twofold.spark.personalize import start_personalize

    sys.exit(run_streams("personalize", [start_personalize], arguments("personalize")))

"""spark-submit --properties-file conf/spark/speed.conf jobs/speed.py --home HOME: topic `events` -> topic `facts`."""

from __future__ import annotations

import sys

from twofold.spark.job import run_stream

if __name__ == "__main__":
    from twofold.spark.speed import is_ready, slots, start_speed

    sys.exit(run_stream("speed", start_speed, is_ready, slots))

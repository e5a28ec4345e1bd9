"""spark-submit --properties-file conf/spark/archive.conf jobs/archive.py --home HOME: topic `events` -> Delta `archive`.

With `--with personalize` the stream of `personalization` runs in the same application, which saves a laptop a JVM.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial

from twofold.spark.job import arguments, run_streams, stream_of


def _with(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--with", dest="guests", action="append", default=[], choices=["personalize"], help="run this stream too")


if __name__ == "__main__":
    from twofold.spark.archive import is_ready, start_archive
    from twofold.spark.pace import Pace
    from twofold.spark.personalize import start_personalize

    options, pace = arguments("archive", _with), Pace()
    archive = stream_of(partial(start_archive, on_commit=pace.committed), is_ready)
    guests = [partial(start_personalize, pace=pace)] if options.guests else []
    sys.exit(run_streams("archive", [archive, *guests], options))

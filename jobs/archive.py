"""spark-submit --properties-file conf/spark/archive.conf jobs/archive.py --home HOME: topic `events` -> Delta `archive`.

With `--with personalize` the stream of `personalization` runs in the same application, which saves a laptop a JVM.
"""

from __future__ import annotations

import argparse
import sys

from twofold.spark.job import arguments, run_streams, stream_of


def _with(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--with", dest="guests", action="append", default=[], choices=["personalize"], help="run this stream too")


if __name__ == "__main__":
    from twofold.spark.archive import is_ready, start_archive
    from twofold.spark.personalize import start_personalize

    options = arguments("archive", _with)
    guests = [start_personalize] if options.guests else []
    sys.exit(run_streams("archive", [stream_of(start_archive, is_ready), *guests], options))

"""spark-submit --properties-file conf/spark/batch.conf jobs/batch.py --home HOME [--as-of T] [--incremental | --compare].

One nightly rebuild and publish: full, incremental, or full and compared with what the incremental one would have written.
Prints `step NAME` as each step begins, then the manifest row as one JSON line.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser

from twofold.settings import load_settings
from twofold.spark.job import arguments, exit_code
from twofold.timeline import read_time


def main() -> int:
    from twofold.spark.batch import rebuild
    from twofold.spark.session import open_session
    from twofold.stores.manifest import row_json

    def more(parser: ArgumentParser) -> None:
        parser.add_argument("--as-of", help="instant that places the horizon")
        modes = parser.add_mutually_exclusive_group()
        for mode, what in (("incremental", "the last state and what came since"), ("compare", "full, and compared with that")):
            modes.add_argument(f"--{mode}", dest="mode", action="store_const", const=mode, default="full", help=what)

    options = arguments("batch", more)

    def work() -> int:
        settings = load_settings(options.config, home=options.home)
        as_of_ms = None if options.as_of is None else read_time(options.as_of)
        spark = open_session(settings, "batch")
        row = rebuild(spark, settings, as_of_ms, lambda step: print(f"step {step}", flush=True), mode=options.mode)
        print(json.dumps(row_json(row)), flush=True)
        spark.stop()
        return 0

    return exit_code("batch", work)


if __name__ == "__main__":
    sys.exit(main())

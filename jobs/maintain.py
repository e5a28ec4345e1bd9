"""spark-submit --properties-file conf/spark/maintain.conf jobs/maintain.py TASK --home HOME: maintenance that needs Spark.

Tasks: compact-archive, compact-manifest, rollback-SEQ. Prints what it did as one JSON line.
"""

from __future__ import annotations

import json
import sys

from twofold.errors import UsageError
from twofold.settings import load_settings
from twofold.spark.job import arguments, exit_code


def main() -> int:
    from twofold.spark import maintain
    from twofold.spark.session import open_session
    from twofold.stores.manifest import row_json

    options = arguments(
        "maintain", lambda parser: parser.add_argument("task", help="compact-archive, compact-manifest, rollback-SEQ")
    )

    def work() -> int:
        settings = load_settings(options.config, home=options.home)
        task, _, seq = options.task.rpartition("-")
        if (task, seq) not in (("compact", "archive"), ("compact", "manifest")) and not (task == "rollback" and seq.isdigit()):
            raise UsageError(f"there is no task {options.task!r}: compact-archive, compact-manifest, rollback-SEQ")
        spark = open_session(settings, "maintain")
        if task == "rollback":
            found = row_json(maintain.roll_back(spark, settings, int(seq)))
        else:
            found = (maintain.compact_archive if seq == "archive" else maintain.compact_manifest)(spark, settings)
        print(json.dumps(found), flush=True)
        spark.stop()
        return 0

    return exit_code("maintain", work)


if __name__ == "__main__":
    sys.exit(main())

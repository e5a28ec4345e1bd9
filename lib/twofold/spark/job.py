"""What every job of this room does around its one function: arguments, settings, session, readiness, exit code."""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from twofold.errors import BrokerError, TopicError, TwofoldError, WriterFenced
from twofold.settings import Settings, load_settings
from twofold.spark.session import open_session
from twofold.stores.one_writer import fenced
from twofold.stores.ready import write_ready

#: How often a stream that holds a task slot a partition looks whether the topic grew: so long a new partition stays dark.
_GROWTH_LOOK_S = 10


def arguments(job: str, more: Callable[[argparse.ArgumentParser], None] = lambda _parser: None) -> argparse.Namespace:
    """The arguments that every job takes: ``--home``, ``--config``; ``more`` adds a job's own."""
    parser = argparse.ArgumentParser(prog=f"jobs/{job}.py")
    parser.add_argument("--home", help="folder of everything a local run writes")
    parser.add_argument("--config", help="settings file (YAML)")
    more(parser)
    return parser.parse_args()


def exit_code(job: str, work: Callable[[], int]) -> int:
    """Run ``work``; a named error is one line on standard error and its exit code."""
    try:
        return work()
    except TwofoldError as error:
        print(f"{job}: {error}", file=sys.stderr, flush=True)
        return error.exit_code


def has_polled(query: Any) -> bool:
    """Micro-batches: one has ended, or the source was asked and has nothing new."""
    return query.lastProgress is not None or str(query.status["message"]).startswith("Waiting for")


def tasks_run(spark: Any, count: int) -> bool:
    """Whether so many tasks of one stage run at this moment."""
    tracker = spark.sparkContext.statusTracker()
    stages = (tracker.getStageInfo(stage) for stage in tracker.getActiveStageIds())
    return any(stage is not None and stage.numActiveTasks >= count for stage in stages)


class Running(NamedTuple):
    """A started stream: its query, whether it is ready, what else is to be done now and then (whether more of it waits), and the
    named error that its own callback died of: the query itself tells only that Python failed."""

    query: Any
    is_ready: Callable[[], bool]
    tick: Callable[[], bool] = lambda: False
    died_of: Callable[[], TwofoldError | None] = lambda: None


Start = Callable[[Any, Settings], Running]


def stream_of(start: Callable[[Any, Settings], Any], is_ready: Callable[[Any, Settings, Any], bool]) -> Start:
    """A stream whose ``start(spark, settings)`` returns its query; ``is_ready(spark, settings, query)`` whether it is ready."""

    def started(spark: Any, settings: Settings) -> Running:
        query = start(spark, settings)
        return Running(query, lambda: is_ready(spark, settings, query))

    return started


def run_stream(
    job: str,
    start: Callable[[Any, Settings], Any],
    is_ready: Callable[[Any, Settings, Any], bool],
    slots: Callable[[Settings], int] = lambda _settings: 0,
) -> int:
    """:func:`run_streams` of one, see :func:`stream_of`."""
    return run_streams(job, [stream_of(start, is_ready)], arguments(job), slots)


def run_streams(
    job: str,
    starts: Sequence[Start],
    options: argparse.Namespace,
    slots: Callable[[Settings], int] = lambda _settings: 0,
) -> int:
    """Run streams in one application until SIGTERM or SIGINT (exit 0) or the failure of one (exit 1, one line).

    ``run/JOB.json`` is written once all are ready. ``slots(settings)``: task slots that the queries hold; when their number changes
    (the topic grew), they are started again.
    """
    stopped = False
    streams: list[Running] = []

    def stop(_number: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True

    def work() -> int:
        nonlocal streams
        settings = load_settings(options.config, home=options.home)
        held = slots(settings)
        spark = open_session(settings, job, held)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)
        streams = [start(spark, settings) for start in starts]
        announced, more, looked = False, False, time.monotonic()
        while not stopped and not spark.streams.awaitAnyTermination(0.01 if more else 1 if announced else 0.2):
            if not announced and all(stream.is_ready() for stream in streams):
                write_ready(settings.home_path, job)
                announced = True
            ticks = [stream.tick() for stream in streams]
            more = any(ticks)
            if held and time.monotonic() - looked >= _GROWTH_LOOK_S:
                looked, needed = time.monotonic(), held
                # A broker that is away now is the query's to complain about.
                with contextlib.suppress(BrokerError):
                    needed = slots(settings)
                if needed != held:
                    for stream in streams:
                        stream.query.stop()
                    spark.streams.resetTerminated()
                    if needed > spark.sparkContext.defaultParallelism:
                        raise TopicError(f"the topic grew: {needed} task slots are needed, start {job} again so that it takes them")
                    held, streams = needed, [start(spark, settings) for start in starts]
        for stream in streams if stopped else ():
            stream.query.stop()
        return 0

    try:
        return exit_code(job, work)
    except Exception as error:
        # A signal goes to the whole process group: the JVM may be gone before its Python is.
        if stopped:
            return 0
        lost = fenced()
        if lost is not None:
            print(f"{job}: another {lost} has taken over its tables: this one stops", file=sys.stderr, flush=True)
            return WriterFenced.exit_code
        for died_of in (stream.died_of() for stream in streams):
            if died_of is not None:
                print(f"{job}: {died_of}", file=sys.stderr, flush=True)
                return died_of.exit_code
        print(f"{job}: the stream stopped: {first_line(str(error))}", file=sys.stderr, flush=True)
        return 1


def first_line(text: str, limit: int = 500) -> str:
    """The first line of a long JVM message."""
    return next((line.strip() for line in text.splitlines() if line.strip()), "")[:limit]

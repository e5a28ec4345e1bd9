"""A Spark standalone cluster of this machine."""

from __future__ import annotations

import signal
import time
from typing import Annotated, Any

import typer

from twofold import show
from twofold.commands.options import Config, Debug, Home, Json, settings_of
from twofold.errors import PartError


def cluster(
    home: Home = None,
    config: Config = None,
    as_json: Json = False,
    debug: Debug = False,
    workers: Annotated[int, typer.Option("--workers", help="How many workers", min=1)] = 2,
    slots: Annotated[int, typer.Option("--slots", help="Task slots of each: a number, not cores", min=1)] = 12,
    memory: Annotated[str, typer.Option("--memory", help="Memory of each, for its executors")] = "8g",
    port: Annotated[int, typer.Option("--port", help="The master's port (conf/spark/cluster.conf names it)")] = 7077,
) -> None:
    """Run a Spark standalone cluster on this machine, until Ctrl-C."""
    from twofold.local.cluster import Cluster

    settings = settings_of(home, config, debug)
    stopped = False

    def stop(_number: int, _frame: Any) -> None:
        nonlocal stopped
        stopped = True

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    running = Cluster(settings.home_path / "cluster", slots, memory, port)
    try:
        running.start(workers)
        if as_json:
            show.json_line({"event": "ready", "master": running.master, "workers": workers, "slots": slots})
        else:
            show.console.print(f"[green]ready[/]    {running.master}  {workers} workers of {slots} slots")
        while not stopped:
            dead = running.dead()
            if dead:
                raise PartError(f"{dead[0]} died (logs: {settings.home_path / 'cluster'})")
            time.sleep(0.2)
    finally:
        running.stop()


COMMANDS = (cluster,)

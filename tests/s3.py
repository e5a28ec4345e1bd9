"""An object store for tests: moto's server as a process on loopback, with one bucket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from twofold.local.broker import free_port
from twofold.settings import S3Settings
from twofold.stores.places import client

BUCKET = "lake"
_PATIENCE_S = 60
# Any keys do. They must be there before a JVM starts: it resolves the names by its own environment.
os.environ.setdefault("AWS_ACCESS_KEY_ID", "test")
os.environ.setdefault("AWS_SECRET_ACCESS_KEY", "test")


def _answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except OSError:
        return False
    return True


@contextmanager
def object_store() -> Iterator[dict[str, Any]]:
    """Settings of room ``s3`` for a store that runs until the block ends. (A thread would not do: delta-rs holds the GIL.)"""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + _PATIENCE_S
        while not _answers(port):
            assert server.poll() is None and time.monotonic() < deadline, "moto's server did not start"
            time.sleep(0.05)
        room = {"endpoint": f"http://127.0.0.1:{port}", "path_style": True}
        client(S3Settings(**room)).create_bucket(Bucket=BUCKET)
        yield room
    finally:
        server.terminate()
        server.wait(10)

"""The producer of a run: a process of its own that may die at any moment, and is started again where it is known to have come.

``python -m tests.chaos.feed --home H --config C --file LINES --progress P --rate R`` sends the lines of a file in chunks; each
chunk is acknowledged line by line before the file of progress names it, and sent anew as a whole where the broker failed one.
So a line arrives at least once, and some twice: under the same event id, as any producer that retries would send it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random
from typing import Any

from kafka import KafkaProducer
from kafka.errors import KafkaError

from twofold.errors import BrokerError
from twofold.events import read_person_key
from twofold.kafka.produce import make_producer
from twofold.local.convert import CONVERTERS, encode_event
from twofold.local.project import ROOT
from twofold.settings import Settings, load_settings
from twofold.stores.json_file import write_json

_CHUNK = 50
#: Below the producer's own delivery timeout: a chunk that waits longer is sent anew.
_SETTLE_S = 40


def draw_history(seed: int, events: int, end_ms: int, rate: float) -> list[bytes]:
    """The lines of a seed in the order of sending: a shop's feed that ends at ``end_ms``, with copies, late and rejected lines, and
    among them people who change their mind about marketing at the very moment (at ``rate`` lines a second up to ``end_ms``)."""
    shop = CONVERTERS["shop"](None, seed=seed, persons=200, events=events, end_ms=end_ms, duplicates=0.08, late=0.08, rejects=0.02)
    lines = [encode_event(event) for event in shop]
    people = sorted({person for line in lines if (person := read_person_key(line)) is not None and person.startswith("user:")})
    rng = Random(seed)
    for place in range(0, len(lines), 12):
        at_ms = end_ms - int((len(lines) - place) / rate * 1000)
        lines[place] = _mind(rng, place, rng.choice(people[:40]), at_ms)
    return lines


def _mind(rng: Random, number: int, person: str, at_ms: int) -> bytes:
    event = {
        "event_id": f"mind-{number}",
        "type": "consent",
        "source_kind": "web",
        "occurred_at": at_ms,
        "user_id": person.split(":", 1)[1],
        "properties": {"purposes": {"marketing": rng.choice(("granted", "denied"))}},
    }
    return json.dumps(event, separators=(",", ":")).encode()


class Feed:
    """The producer's process, as the run sees it."""

    def __init__(self, folder: Path, home: Path, config: Path, lines: list[bytes], rate: float) -> None:
        self._file, self.progress, self.log = folder / "history.jsonl", folder / "progress.json", folder / "feed.log"
        self._file.write_bytes(b"".join(line + b"\n" for line in lines))
        self._command = [sys.executable, "-m", "tests.chaos.feed", "--home", str(home), "--config", str(config)]
        self._command += ["--file", str(self._file), "--progress", str(self.progress), "--rate", str(rate)]
        self._count, self._began = len(lines), 0.0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def acknowledged(self) -> int:
        """Lines that are known to be in the log."""
        with contextlib.suppress(FileNotFoundError):
            return int(json.loads(self.progress.read_text(encoding="utf-8"))["acknowledged"])
        return 0

    @property
    def done(self) -> bool:
        return self.acknowledged == self._count

    def keep_up(self) -> bool:
        """Start the process where it does not run and something is left; whether it was started."""
        if self.done or (self._process is not None and self._process.poll() is None):
            return False
        self._began = self._began or time.time()
        with self.log.open("ab") as log:
            command = [*self._command, "--began", str(self._began)]
            self._process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, cwd=ROOT)
        return True

    def kill(self) -> bool:
        """kill -9; whether it ran."""
        if self._process is None or self._process.poll() is not None:
            return False
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        return True


def _send_chunk(settings: Settings, producer: KafkaProducer, lines: list[bytes]) -> None:
    futures = []
    for line in lines:
        person = read_person_key(line)
        key = None if person is None else person.encode("utf-8")
        futures.append(producer.send(settings.kafka.events_topic, value=line, key=key))
    for future in futures:
        future.get(timeout=_SETTLE_S)


def main() -> None:
    parser = argparse.ArgumentParser()
    for name in ("home", "config", "file", "progress", "rate"):
        parser.add_argument(f"--{name}", required=True)
    parser.add_argument("--began", type=float, default=0.0, help="when line 1 was due: whoever is behind does not pause")
    options: Any = parser.parse_args()
    settings = load_settings(options.config, home=options.home)
    lines = Path(options.file).read_bytes().split(b"\n")[:-1]
    progress, rate = Path(options.progress), float(options.rate)
    acknowledged = json.loads(progress.read_text(encoding="utf-8"))["acknowledged"] if progress.exists() else 0
    began = options.began or time.time() - acknowledged / rate
    producer: KafkaProducer | None = None
    while acknowledged < len(lines):
        chunk = lines[acknowledged : acknowledged + _CHUNK]
        try:
            producer = producer or make_producer(settings)
            _send_chunk(settings, producer, chunk)
        except (KafkaError, BrokerError, OSError) as error:
            print(f"again from line {acknowledged + 1}: {type(error).__name__}: {error}", flush=True)
            if producer is not None:
                # An idempotent producer that failed once fails everything after.
                with contextlib.suppress(KafkaError):
                    producer.close(timeout=1)
                producer = None
            time.sleep(0.5)
            continue
        acknowledged += len(chunk)
        write_json(progress, {"acknowledged": acknowledged})
        time.sleep(max(0.0, began + acknowledged / rate - time.time()))
    if producer is not None:
        producer.close(timeout=1)


if __name__ == "__main__":
    main()

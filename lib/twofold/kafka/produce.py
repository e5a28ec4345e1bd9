"""Sending: each line is one entry, its bytes unchanged, keyed by its person key. Never judges."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, BinaryIO

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError

from twofold.errors import BrokerError
from twofold.events import read_person_key
from twofold.kafka.address import broker_address
from twofold.settings import Settings

#: Records in flight at once: bounds memory, and notices a refusal while the line is still near.
_IN_FLIGHT = 20_000


class SendReport(msgspec.Struct):
    """What became of the lines: ``failed_lines`` are 1-based numbers in the input, with the broker's reason."""

    sent: int = 0
    acked: int = 0
    failed: int = 0
    failed_lines: list[tuple[int, str]] = []


def read_lines(source: BinaryIO) -> Iterator[bytes]:
    """Lines that end at LF only (a CR is part of its line); the last may lack its LF."""
    for line in source:
        yield line[:-1] if line.endswith(b"\n") else line


def make_producer(settings: Settings, linger_ms: int = 5) -> KafkaProducer:
    """An idempotent producer that waits for all replicas. Raises :class:`BrokerError`."""
    servers = broker_address(settings)
    try:
        return KafkaProducer(
            bootstrap_servers=servers,
            acks="all",
            enable_idempotence=True,
            linger_ms=linger_ms,
            batch_size=128 * 1024,
            max_request_size=64 * 1024 * 1024,
            bootstrap_timeout_ms=10_000,
        )
    except (KafkaError, OSError) as error:
        raise BrokerError(f"the broker at {servers} cannot be reached: {error}; is `twofold up` running?") from error


def send(
    settings: Settings, lines: Iterable[bytes], rate: float | None = None, progress: Callable[[int], None] | None = None
) -> SendReport:
    """Send every non-empty line and wait for every acknowledgement. ``rate`` in lines a second; None: as fast as may be."""
    producer = make_producer(settings)
    topic = settings.kafka.events_topic
    report = SendReport()
    in_flight: deque[tuple[int, Any]] = deque()

    def settle(keep: int) -> None:
        while len(in_flight) > keep:
            number, future = in_flight.popleft()
            try:
                future.get(timeout=120)
                report.acked += 1
            except KafkaError as error:
                report.failed += 1
                report.failed_lines.append((number, f"{type(error).__name__}: {error}"))
            if progress is not None and report.acked % 1_000 == 0:
                progress(report.acked + report.failed)

    try:
        began = time.monotonic()
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            key = read_person_key(line)
            report.sent += 1
            try:
                in_flight.append((number, producer.send(topic, value=line, key=None if key is None else key.encode("utf-8"))))
            except KafkaError as error:
                report.failed += 1
                report.failed_lines.append((number, f"{type(error).__name__}: {error}"))
            if len(in_flight) >= _IN_FLIGHT:
                settle(_IN_FLIGHT // 2)
            if rate is not None:
                ahead = report.sent / rate - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)
        producer.flush()
        settle(0)
        if progress is not None:
            progress(report.acked + report.failed)
    finally:
        producer.close()
    return report

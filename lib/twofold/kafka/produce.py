"""Sending: each line is one entry, its bytes unchanged, keyed by its person key. Never judges."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import Any, BinaryIO

import msgspec
from kafka import KafkaProducer
from kafka.errors import KafkaError
from kafka.partitioner.default import murmur2

from twofold.errors import BrokerError
from twofold.events import read_person_key
from twofold.kafka.address import broker_address
from twofold.settings import Settings

#: Records and bytes in flight at once: bounds memory, and notices a refusal while the line is still near.
_IN_FLIGHT, _IN_FLIGHT_BYTES = 20_000, 64 * 1024 * 1024
#: A line above this travels alone, in a producer of its own: the broker may refuse it, and kafka-python's idempotent producer
#: fails everything that it holds or is given after one refusal.
_ALONE_BYTES = 512 * 1024
#: A little above the producer's own delivery timeout (120 s), whose answer is the true one.
_SETTLE_TIMEOUT_S = 150
#: Keys whose partition is remembered: the hash is plain Python and costs a quarter of a send.
_KEYS = 100_000


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
    """Send every non-empty line and wait for every acknowledgement. ``rate`` in lines a second; None: as fast as may be.

    One person's lines keep their order. ``progress`` gets the number of lines settled so far. Raises :class:`BrokerError`.
    """
    sending = _Sending(settings, progress)
    report = sending.report
    try:
        began = time.monotonic()
        for number, line in enumerate(lines, start=1):
            if not line:
                continue
            sending.put(number, line)
            if rate is not None:
                ahead = report.sent / rate - (time.monotonic() - began)
                if ahead > 0:
                    time.sleep(ahead)
        sending.settle(0)
        if progress is not None:
            progress(report.acked + report.failed)
    finally:
        sending.close()
    return report


class _Sending:
    """The lines of one call of :func:`send` on their way."""

    def __init__(self, settings: Settings, progress: Callable[[int], None] | None) -> None:
        self.report = SendReport()
        self._settings, self._progress = settings, progress
        self._topic = settings.kafka.events_topic
        self._producer = make_producer(settings)
        self._alone: KafkaProducer | None = None
        self._in_flight: deque[tuple[int, int, Any]] = deque()
        self._bytes = 0
        self._partition = lru_cache(maxsize=_KEYS)(self._partition_of)

    def _partition_of(self, key: bytes) -> int:
        """Where every Kafka client puts this key."""
        partitions = sorted(self._producer.partitions_for(self._topic))
        return int(partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)])

    def put(self, number: int, line: bytes) -> None:
        """Send line ``number``; it is settled at some later call, or at once when it travels alone."""
        person = read_person_key(line)
        key = None if person is None else person.encode("utf-8")
        self.report.sent += 1
        if len(line) > _ALONE_BYTES:
            self._put_alone(number, line, key)
            return
        try:
            partition = None if key is None else self._partition(key)
            future = self._producer.send(self._topic, value=line, key=key, partition=partition)
        except KafkaError as error:
            self._failed(number, error)
            return
        self._in_flight.append((number, len(line), future))
        self._bytes += len(line)
        if len(self._in_flight) >= _IN_FLIGHT or self._bytes >= _IN_FLIGHT_BYTES:
            self.settle(len(self._in_flight) // 2)

    def _put_alone(self, number: int, line: bytes, key: bytes | None) -> None:
        self.settle(0)  # the order of a person's lines holds across the two producers
        if self._alone is None:
            self._alone = make_producer(self._settings, linger_ms=0)
        try:
            self._alone.send(self._topic, value=line, key=key).get(timeout=_SETTLE_TIMEOUT_S)
            self._acked()
        except KafkaError as error:
            self._failed(number, error)
            self._alone.close(timeout=1)
            self._alone = None

    def settle(self, keep: int) -> None:
        """Wait until no more than ``keep`` lines are on their way."""
        while len(self._in_flight) > keep:
            number, size_bytes, future = self._in_flight.popleft()
            self._bytes -= size_bytes
            try:
                future.get(timeout=_SETTLE_TIMEOUT_S)
                self._acked()
            except KafkaError as error:
                self._failed(number, error)

    def _acked(self) -> None:
        self.report.acked += 1
        if self._progress is not None and self.report.acked % 1_000 == 0:
            self._progress(self.report.acked + self.report.failed)

    def _failed(self, number: int, error: KafkaError) -> None:
        self.report.failed += 1
        self.report.failed_lines.append((number, f"{type(error).__name__}: {error}"))

    def close(self) -> None:
        """Close both producers."""
        for producer in (self._producer, self._alone):
            if producer is not None:
                producer.close()

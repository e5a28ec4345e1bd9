"""A network that slows, holds, cuts and refuses between the broker and everybody else, without Spark: nothing lost or doubled,
and whoever reads is told that the record lies behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.chaos.proxy import TcpProxy
from tests.chaos.system import broker_port
from tests.e2e.conftest import System, wait_for
from twofold.catalogue import VERSION
from twofold.events import encode_entry, make_entry
from twofold.kafka.produce import SendReport, make_producer, send
from twofold.kafka.topics import events_topic
from twofold.local.broker import free_port
from twofold.reader import Reader
from twofold.timeline import Position

pytestmark = [pytest.mark.e2e, pytest.mark.slow]

LINES = [
    b'{"event_id":"e%d","type":"page","name":"p","user_id":"u%d","occurred_at":1780000000000}' % (n, n % 20) for n in range(4_000)
]


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[System, TcpProxy]]:
    """A broker and a follower; clients are told the proxy's address as the broker's."""
    folder = tmp_path_factory.mktemp("network")
    config = folder / "settings.yaml"
    port = free_port()
    config.write_text(yaml.safe_dump({"local": {"advertised": f"127.0.0.1:{port}"}, "follower": {"heal_after_ms": 500}}))
    running = System(folder / "home", config)
    with TcpProxy(lambda: broker_port(running.home), port) as proxy:
        running.up("speed", "archive")
        try:
            yield running, proxy
        finally:
            proxy.heal()
            running.down()


#: How long each fault lasts.
_FAULT_S = 1

FAULTS: list[Callable[[TcpProxy], None]] = [
    lambda proxy: proxy.cut_after(20_000),
    lambda proxy: proxy.limit(100_000),
    TcpProxy.hold,
    TcpProxy.refuse,
]


def test_what_is_sent_through_every_fault_arrives_once_and_in_order(network: tuple[System, TcpProxy]) -> None:
    system, proxy = network
    reports: list[SendReport] = []
    sending = threading.Thread(target=lambda: reports.append(send(system.settings, iter(LINES), rate=800)))
    sending.start()
    for fault in FAULTS:
        fault(proxy)
        time.sleep(_FAULT_S)
        proxy.heal()
        acknowledged = proxy.seen.size_bytes
        wait_for(lambda: proxy.seen.size_bytes > acknowledged + 50_000, 60, "traffic after a fault")  # noqa: B023
    sending.join(180)
    assert not sending.is_alive()
    assert (reports[0].acked, reports[0].failed) == (len(LINES), 0)
    assert proxy.seen.cut > 0
    log = system._read(system.settings.kafka.events_topic)
    assert sorted(record.value for record in log) == sorted(LINES)
    for number in range(20):
        of_one = [record.value for record in log if record.key == b"user:u%d" % number]
        assert of_one == LINES[number::20]


def test_the_follower_goes_on_where_it_was_and_readers_are_told_of_its_lag(network: tuple[System, TcpProxy]) -> None:
    system, proxy = network
    topic = events_topic(system.settings)
    records = system._read(system.settings.kafka.events_topic)
    start = len(records) // 2

    def tell_facts(of: list) -> None:
        producer = make_producer(system.settings)
        for record in of:
            position = Position(topic.topic_id, record.partition, record.offset)
            entry = make_entry(VERSION, position, record.timestamp, record.value)
            producer.send(system.settings.kafka.facts_topic, value=encode_entry(entry), partition=record.partition)
        producer.flush()
        producer.close()

    by_place = sorted(records, key=lambda record: (record.offset, record.partition))
    tell_facts(by_place[:start])
    with Reader(system.settings) as reader:
        wait_for(lambda: sum(reader.vectors().high.values()) >= start // 2, 60, "the first facts")
        proxy.refuse()
        wait_for(lambda: reader.record("user:u1").freshness.state == "stale", 30, "a stale record")
        for fault in FAULTS[:3]:
            proxy.heal()
            fault(proxy)
            time.sleep(_FAULT_S)
        proxy.heal()
        tell_facts(by_place[start:])
        wait_for(lambda: reader.record("user:u1").freshness.state == "fresh", 60, "a fresh record")
        t = 1_780_000_000_001
        for number in range(20):
            record = reader.record(f"user:u{number}", t)
            assert (record.freshness.state, record.values["page_views_1h"]) == ("fresh", len(LINES) // 20)

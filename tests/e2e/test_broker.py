"""The real broker: topics, sending, and what survives kill -9."""

from __future__ import annotations

import io
import json
import os
import signal
import socket
import threading

import pytest
from kafka import KafkaConsumer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from twofold.errors import BrokerError, HomeError, PartError, TopicError
from twofold.events import MAX_ENTRY_BYTES, read_person_key
from twofold.kafka.address import broker_address
from twofold.kafka.home import ensure_home
from twofold.kafka.produce import make_producer, read_lines, send
from twofold.kafka.topics import admin, create_topics, describe, events_topic, grow_partitions, log_offsets
from twofold.local.broker import Broker, cluster_id, free_port
from twofold.settings import load_settings
from twofold.timeline import PartitionKey

pytestmark = pytest.mark.e2e


class Running:
    """A broker of one home that a test may kill and start again."""

    def __init__(self, home):
        self.settings = load_settings(environ={}, home=str(home))
        self.broker = Broker(self.settings)
        self.process = None

    def start(self):
        self.process = self.broker.start()
        self.broker.wait_ready(self.process, 90)

    def kill(self):
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    running = Running(tmp_path_factory.mktemp("home"))
    try:
        running.start()
        create_topics(running.settings)
        ensure_home(running.settings)
        yield running
    finally:
        if running.process is not None:
            running.broker.stop(running.process)


def read_log(settings, name=None):
    """Every record of a topic as ``{partition: [(key, value), …]}``, up to the end seen at the call."""
    consumer = KafkaConsumer(bootstrap_servers=broker_address(settings), isolation_level="read_committed", enable_auto_commit=False)
    try:
        name = name or settings.kafka.events_topic
        places = [TopicPartition(name, p) for p in consumer.partitions_for_topic(name)]
        consumer.assign(places)
        starts, ends = consumer.beginning_offsets(places), consumer.end_offsets(places)
        for place in places:
            consumer.seek(place, starts[place])
        out = {place.partition: [] for place in places}
        while any(consumer.position(place) < ends[place] for place in places):
            for place, records in consumer.poll(timeout_ms=200).items():
                out[place.partition] += [(record.key, record.value) for record in records]
        return out
    finally:
        consumer.close()


def flat(log):
    return [value for records in log.values() for _key, value in records]


def test_topics_have_the_settings_that_exactness_rests_on(running):
    kafka = running.settings.kafka
    with admin(running.settings) as client:
        described = client.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name) for name in (kafka.events_topic, kafka.facts_topic)]
        )
    values = {name: {key: item["value"] for key, item in configs.items()} for name, configs in described["topic"].items()}
    common = {"cleanup.policy": "delete", "unclean.leader.election.enable": "false"}
    wanted = {
        kafka.events_topic: {
            **common,
            "message.timestamp.type": "LogAppendTime",
            "max.message.bytes": str(kafka.max_message_bytes),
            "retention.ms": str(kafka.events_retention_ms),
        },
        kafka.facts_topic: {
            **common,
            "max.message.bytes": str(kafka.facts_max_message_bytes),
            "retention.ms": str(kafka.facts_retention_ms),
        },
    }
    for name, configs in wanted.items():
        assert {key: values[name].get(key, "false") for key in configs} == configs
    before = describe(running.settings)
    create_topics(running.settings)
    assert describe(running.settings) == before
    assert {len(topic.partitions) for topic in before.values()} == {kafka.partitions}


def test_lines_reach_the_log_byte_for_byte_under_their_person_key(running):
    lines = [
        b'{"event_id":"1","user_id":"a"}\r',
        b"",
        b' {"event_id":"2","anonymous_id":7} ',
        b"\xff\xfe not utf-8",
        b"one\rline",
        "{\"user_id\":\"Zo\u00eb\"}".encode(),
        b'{"user_id":"a","n":2}',
    ]  # fmt: skip
    seen = []
    report = send(running.settings, read_lines(io.BytesIO(b"\n".join(lines))), progress=seen.append)
    assert (report.sent, report.acked, report.failed, report.failed_lines) == (6, 6, 0, [])
    assert seen[-1] == 6
    log = read_log(running.settings)
    records = [record for partition in log.values() for record in partition]
    assert sorted(value for _key, value in records) == sorted(line for line in lines if line)
    for key, value in records:
        person = read_person_key(value)
        assert key == (None if person is None else person.encode())
    (of_a,) = [
        [v for k, v in partition if k == b"user:a"] for partition in log.values() if any(k == b"user:a" for k, _v in partition)
    ]
    assert of_a == [lines[0], lines[6]], "one person's lines stay in one partition, in order"
    (partition,) = [number for number, records in log.items() if any(key == b"user:a" for key, _value in records)]
    producer = make_producer(running.settings)
    try:
        other = producer.send(running.settings.kafka.events_topic, value=b"{}", key=b"user:a").get(timeout=30)
    finally:
        producer.close()
    assert other.partition == partition, "where any other client puts the same key"


def test_a_refused_line_is_named_and_the_others_arrive_once_in_order(running):
    before = len(flat(read_log(running.settings)))
    lines = [b'{"user_id":"o","n":%d}' % n for n in range(3_000)]
    refused = {700, 1_500}
    for number in refused:
        lines[number - 1] = b'{"user_id":"o","x":"' + b"x" * (running.settings.kafka.max_message_bytes + 1) + b'"}'
    lines[1_000 - 1] = b'{"user_id":"o","x":"' + b"x" * (MAX_ENTRY_BYTES + 1) + b'"}'  # admission's to judge, so it must arrive
    report = send(running.settings, iter(lines))
    assert (report.sent, report.acked, report.failed) == (3_000, 2_998, 2)
    assert {number for number, _reason in report.failed_lines} == refused
    assert all(reason for _number, reason in report.failed_lines)
    arrived = [value for records in read_log(running.settings).values() for key, value in records if key == b"user:o"]
    assert arrived == [line for number, line in enumerate(lines, start=1) if number not in refused]
    assert len(flat(read_log(running.settings))) == before + 2_998


def test_kill_9_in_the_middle_of_sending_loses_and_doubles_nothing(running):
    ids, port = describe(running.settings), broker_address(running.settings)
    lines = [b'{"user_id":"k%d","n":%d}' % (n % 50, n) for n in range(30_000)]
    half, killed = threading.Event(), threading.Event()

    def feed():
        for number, line in enumerate(lines):
            if number == 15_000:
                half.set()
                assert killed.wait(60)
            yield line

    reports = []
    sender = threading.Thread(target=lambda: reports.append(send(running.settings, feed())))
    sender.start()
    assert half.wait(60)
    running.kill()
    killed.set()
    running.start()
    sender.join(180)
    assert not sender.is_alive()
    assert (reports[0].sent, reports[0].acked, reports[0].failed) == (30_000, 30_000, 0)
    assert describe(running.settings) == ids, "topic ids survive"
    assert broker_address(running.settings) == port, "the port is the same while it is free"
    log = read_log(running.settings)
    arrived = [value for value in flat(log) if value.startswith(b'{"user_id":"k')]
    assert sorted(arrived) == sorted(lines)
    for records in log.values():
        numbers = [json.loads(value)["n"] for _key, value in records if value.startswith(b'{"user_id":"k')]
        assert numbers == sorted(numbers)


def test_a_taken_port_gives_another_and_the_log_is_still_there(running):
    ids, start_and_end = describe(running.settings), log_offsets(running.settings)
    old = broker_address(running.settings)
    running.kill()
    record = json.loads(running.broker.record.read_text())
    with socket.socket() as first, socket.socket() as second:
        for taken, port in ((first, record["port"]), (second, record["controller_port"])):
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
        running.start()
        assert broker_address(running.settings) != old
        assert describe(running.settings) == ids and log_offsets(running.settings) == start_and_end
        assert send(running.settings, [b'{"user_id":"p"}']).acked == 1


def test_the_home_keeps_the_log_start_it_saw_first(running):
    known = ensure_home(running.settings)
    assert set(known.log_start.values()) == {0}
    topic = events_topic(running.settings)
    _start, end = log_offsets(running.settings, topic)
    partition = max(topic.partitions, key=lambda p: end.next(PartitionKey(topic.topic_id, p)))
    with admin(running.settings) as client:
        client.delete_records({TopicPartition(running.settings.kafka.events_topic, partition): 2})
    start, _end = log_offsets(running.settings, topic)
    assert start.next(PartitionKey(topic.topic_id, partition)) == 2
    assert ensure_home(running.settings) == known


def test_partitions_grow_and_a_recreated_topic_is_refused(running):
    wanted = running.settings.kafka.partitions + 1
    grow_partitions(running.settings, wanted)
    assert {len(topic.partitions) for topic in describe(running.settings).values()} == {wanted}
    with pytest.raises(TopicError, match=r"events|facts"):
        grow_partitions(running.settings, 1)
    with admin(running.settings) as client:
        client.delete_topics([running.settings.kafka.events_topic])
    with pytest.raises(TopicError, match="does not exist"):
        events_topic(running.settings)
    create_topics(running.settings)
    with pytest.raises(HomeError, match="another home"):
        ensure_home(running.settings)


def test_what_is_missing_is_named(tmp_path):
    settings = load_settings(environ={}, home=str(tmp_path), spark={"broker_jars": str(tmp_path / "none")})
    with pytest.raises(BrokerError, match="twofold up"):
        broker_address(settings)
    with pytest.raises(PartError, match="make setup"):
        Broker(settings).start()


def test_a_cluster_id_never_reads_as_an_option():
    ids = {cluster_id() for _ in range(2_000)}
    assert len(ids) == 2_000 and all(len(text) == 22 and text[0] != "-" for text in ids)


def test_a_free_port_is_the_wanted_one_or_another():
    wanted = free_port()
    assert free_port(wanted) == wanted and free_port(wanted, but=wanted) != wanted

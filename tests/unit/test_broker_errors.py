"""A connection to the broker that breaks in the middle of a call is a named error, whatever the call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from kafka.errors import InvalidReplicationFactorError, KafkaConnectionError, KafkaError, KafkaTimeoutError

from twofold.errors import BrokerError, TopicError
from twofold.kafka import facts_tail as tail
from twofold.kafka import topics
from twofold.kafka.topics import Topic
from twofold.settings import Settings, load_settings

TOPIC = Topic("t", (0, 1))
CALLS: dict[str, Callable[[Settings], Any]] = {
    "create_topics": topics.create_topics,
    "describe": topics.describe,
    "events_topic": topics.events_topic,
    "grow_partitions": lambda settings: topics.grow_partitions(settings, 3),
    "log_offsets": lambda settings: topics.log_offsets(settings, TOPIC),
    "facts_tail": lambda settings: tail.facts_tail(settings, TOPIC),
}


class Breaking:
    """A client whose every call fails."""

    error: KafkaError = KafkaConnectionError("socket disconnected")

    def __init__(self, **_options: Any) -> None:
        self.closed = False

    def close(self) -> None:
        self.closed = True

    def __getattr__(self, _name: str) -> Callable[..., Any]:
        def fail(*_args: Any, **_options: Any) -> Any:
            raise self.error

        return fail


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> Settings:
    for module, name in ((topics, "KafkaAdminClient"), (topics, "KafkaConsumer"), (tail, "KafkaConsumer")):
        monkeypatch.setattr(module, name, Breaking)
    return load_settings(environ={}, kafka={"bootstrap_servers": "127.0.0.1:1"})


@pytest.mark.parametrize("error", [KafkaConnectionError("socket disconnected"), KafkaTimeoutError("no answer")])
@pytest.mark.parametrize("call", CALLS)
def test_a_broken_connection_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch, call: str, error: KafkaError) -> None:
    monkeypatch.setattr(Breaking, "error", error)
    with pytest.raises(BrokerError, match=r"127\.0\.0\.1:1.*(disconnected|no answer)"):
        CALLS[call](settings)


def test_what_the_broker_refuses_is_no_broken_connection(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Breaking, "error", InvalidReplicationFactorError("3 of 1"))
    with pytest.raises(TopicError, match="cannot be created"):
        topics.create_topics(settings)

"""The home's log: stored when the home first meets its topics."""

from __future__ import annotations

import time

from twofold.errors import HomeError
from twofold.kafka.topics import events_topic, log_offsets
from twofold.settings import Settings
from twofold.stores.home_log import HomeLog, share_home_log, shared_home_log


def ensure_home(settings: Settings) -> HomeLog:
    """The home's log, stored once. Raises :class:`HomeError` when the broker now has another incarnation of the topic."""
    topic = events_topic(settings)
    try:
        known = shared_home_log(settings)
    except HomeError:
        start, _end = log_offsets(settings, topic)
        known = share_home_log(settings, HomeLog(topic.topic_id, start, time.time_ns() // 1_000_000))
    if known.topic_id != topic.topic_id:
        raise HomeError(
            f"the home {settings.home_path} belongs to topic {known.topic_id}, the broker has {topic.topic_id}: use another home"
        )
    return known

"""Where the broker is: a setting, or what the local system recorded in the home."""

from __future__ import annotations

import json

from twofold.errors import BrokerError
from twofold.settings import Settings


def broker_address(settings: Settings) -> str:
    """``host:port`` list. Raises :class:`BrokerError` when neither the settings nor the home name one."""
    if settings.kafka.bootstrap_servers:
        return settings.kafka.bootstrap_servers
    file = settings.home_path / "broker.json"
    try:
        return str(json.loads(file.read_text(encoding="utf-8"))["bootstrap_servers"])
    except FileNotFoundError as error:
        raise BrokerError(
            f"no broker is known to the home {settings.home_path}: start one with `twofold up`, or set kafka.bootstrap_servers"
        ) from error

"""Twofold: what an e-mail may say to a person, exactly, at any instant. ``twofold.open(settings)`` is the way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from twofold.reader import Reader
    from twofold.settings import Settings

__all__ = ["open"]


def open(settings: Settings | None = None, **overrides: Any) -> Reader:
    """A reader of personalization records. Imports neither Spark nor Kafka; see :class:`twofold.reader.Reader`."""
    from twofold.reader import Reader
    from twofold.settings import load_settings

    return Reader(settings if settings is not None else load_settings(**overrides))

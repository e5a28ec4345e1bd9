"""The tree of named errors. Each says what is wrong, where, and what the operator does next.

``exit_code`` is what a command returns: 2 misuse, 1 failure, 3 a refused publish, or a served record that was wrong.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(name: str, names: Iterable[str], otherwise: str) -> str:
    """The way out where a name is unknown: the one that may have been meant, else what is said ``otherwise``."""
    near = difflib.get_close_matches(name, list(names), n=1)
    return f"did you mean {near[0]!r}?" if near else otherwise


class TwofoldError(Exception):
    """Base of every error that Twofold raises on purpose: one line for a person."""

    exit_code = 1


class UsageError(TwofoldError):
    """The command or call cannot mean anything: correct it and call again."""

    exit_code = 2


class SettingsError(UsageError):
    """A setting is unknown, mistyped or out of range: the line names the key."""


class SuiteError(UsageError):
    """A suite of expectations is missing, mistyped, or asks what cannot be computed: the line names the file and the entry."""


class SegmentError(UsageError):
    """A segment or its rule cannot be read: the line names the file, the segment, the place in it and the way out."""


class TimeFormatError(UsageError):
    """A time is neither RFC 3339 nor epoch milliseconds."""


class HomeError(UsageError):
    """The home folder is missing, of another log, or in use by another `up`."""


class PartError(TwofoldError):
    """A part of the local system did not start, or died: read the log file that the line names."""


class BrokerError(TwofoldError):
    """The broker cannot be reached or refused a request."""


class TopicError(TwofoldError):
    """A topic is missing, recreated, or has other partitions than expected."""


class StoreError(TwofoldError):
    """A store is missing, damaged, full, or of another format."""


class ArchiveError(TwofoldError):
    """The archive's committed ranges do not chain: the rebuild is refused, the old snapshot serves."""


class EmptyArchiveError(TwofoldError):
    """The archive holds no committed range yet: send events, wait, then run the batch."""


class PublishRefused(TwofoldError):
    """A publish was refused; the snapshot before it keeps serving."""

    exit_code = 3


class SecondWriter(PublishRefused):
    """Another process already writes what this one would write."""


class RebuildRunning(SecondWriter):
    """Another rebuild holds the lock."""


class WriterFenced(PublishRefused):
    """Another process has taken over what this one wrote: it must not commit any more."""


class PublishConflict(PublishRefused):
    """The manifest row of this sequence number is another writer's."""


class RollbackRefused(PublishRefused):
    """An old snapshot cannot be current again: what it needs is gone, or it is of another definition."""


class CutRefused(PublishRefused):
    """The cut goes backwards, lacks a partition, or the topic id changed."""


class DriftRefused(PublishRefused):
    """The new snapshot differs from the one before ⊕ the log since, and nothing explains it."""


class IncrementalRefused(PublishRefused):
    """An incremental night cannot be told to equal a full rebuild: run the full one, `twofold batch`."""


class IncrementalDiffers(PublishRefused):
    """A full rebuild and the incremental nights before it differ: find the cause, then publish the full rebuild."""


class ValidationRefused(PublishRefused):
    """An expectation of the gate failed: the report names it and the rows to blame."""


class ServedWrong(TwofoldError):
    """A served record is not what the raw log gives at its own (t, O): find the fault in the code, the line names the record."""

    exit_code = 3


class DefinitionError(TwofoldError):
    """A state, snapshot or pin was made under another definition: rebuild it, or install that definition again."""


class PinError(TwofoldError):
    """A pin cannot be made or read as things stand: the line says what is missing, and where."""


class StateError(TwofoldError):
    """An encoded state cannot be decoded: the line names the kind and what was found."""

"""Closed sets of words, as Python has them.  A word this version does not know reads as ``UNKNOWN``."""

from __future__ import annotations

from enum import Enum, IntEnum


class Priority(IntEnum):
    """Class of a request; lower is sooner."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4
    BACKGROUND = 5

    @classmethod
    def parse(cls, value: Priority | int | str) -> Priority:
        """A member from itself, its number or its name in any case.

        Raises:
            ValueError: there is no such class; names those there are.
        """
        try:
            return cls[value.upper()] if isinstance(value, str) else cls(value)
        except (KeyError, ValueError):
            there_are = ", ".join(member.name.lower() for member in cls)
            raise ValueError(f"unknown priority {value!r}; there are: {there_are}") from None


class InstanceRole(Enum):
    """What an instance is meant for."""

    GENERAL = "general"  # whole requests
    PREFILLING = "prefilling"  # prefill legs of split requests
    DECODING = "decoding"  # decode legs of split requests
    HYBRID = "hybrid"  # either leg, and whole requests
    EMBEDDING = "embedding"  # no generation
    UNKNOWN = "unknown"


class InstanceState(Enum):
    """Where an instance stands."""

    DOWNLOADING = "downloading"  # fetching its model
    LOADING = "loading"  # starting its engine
    WARMING = "warming"  # producing its first tokens
    READY = "ready"  # takes work
    SUSPECT = "suspect"  # a stream broke or a lease is late: no new work
    STALLED = "stalled"  # holds work and makes no progress
    DRAINING = "draining"  # finishes what it has
    DRAINED = "drained"  # has nothing in flight and takes nothing
    LOST = "lost"  # gone
    FAILED = "failed"  # its engine could not start
    UNKNOWN = "unknown"


class Phase(Enum):
    """What part of a request an assignment runs."""

    HYBRID = "hybrid"  # prefill and decode in one place
    PREFILLING = "prefilling"
    DECODING = "decoding"
    UNKNOWN = "unknown"


class FinishReason(Enum):
    """Why generation ended by itself."""

    STOP = "stop"  # end of sequence, stop token or stop string
    LENGTH = "length"  # max_tokens or the model's length
    UNKNOWN = "unknown"


class RequestState(Enum):
    """Where a request stands."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class TimeUse(Enum):
    """What a stretch of a request's time went to."""

    QUEUE = "queue"  # it waited for a place
    PREFILL = "prefill"  # sent to an instance; its next output token was not there yet
    TRANSFER = "transfer"  # split requests: prefill was over, the decode instance fetched its KV
    DECODE = "decode"  # output tokens came
    LOST = "lost"  # an attempt that failed gave nothing
    UNKNOWN = "unknown"


class NoInstance(Enum):
    """What a request does when no instance can serve its model now."""

    FAIL = "fail"  # fails at once
    WAIT = "wait"  # waits in the queue until its deadline


class ResumeMode(Enum):
    """How far continuation on another instance may bend."""

    STRICT = "strict"  # fail when a replay differs from what was delivered
    BEST_EFFORT = "best_effort"  # go on from the delivered tokens all the same

"""The contract's enums.  A member that only a newer scheduler knows decodes as ``UNKNOWN``."""

from __future__ import annotations

from enum import Enum, IntEnum


class Priority(IntEnum):
    """Priority class of a request; a lower number goes sooner."""

    CRITICAL = 1
    HIGH = 2
    NORMAL = 3
    LOW = 4
    BACKGROUND = 5

    @classmethod
    def parse(cls, value: Priority | int | str) -> Priority:
        """Return the class for a member, a number, or a name in upper or lower case.

        Raises:
            ValueError: the class does not exist; the message lists those that do.
        """
        try:
            return cls[value.upper()] if isinstance(value, str) else cls(value)
        except (KeyError, ValueError):
            known_names = ", ".join(member.name.lower() for member in cls)
            raise ValueError(f"unknown priority {value!r}; known priorities: {known_names}") from None


class InstanceRole(Enum):
    """The kind of requests and legs that an instance takes."""

    GENERAL = "general"  # whole requests
    PREFILLING = "prefilling"  # prefill legs of split requests
    DECODING = "decoding"  # decode legs of split requests
    HYBRID = "hybrid"  # either leg, and whole requests
    EMBEDDING = "embedding"  # no generation
    UNKNOWN = "unknown"


class InstanceState(Enum):
    """State of an instance."""

    DOWNLOADING = "downloading"  # fetching its model
    LOADING = "loading"  # starting its engine
    WARMING = "warming"  # producing its first tokens
    READY = "ready"  # takes requests
    SUSPECT = "suspect"  # its stream broke or its lease is late; gets no new requests
    STALLED = "stalled"  # has requests and makes no progress
    DRAINING = "draining"  # finishes its requests, gets no new ones
    DRAINED = "drained"  # has no requests and gets none
    SLEEPING = "sleeping"  # its weights are in the host's memory; it can be woken
    LOST = "lost"  # its executor is gone
    FAILED = "failed"  # its engine could not start
    UNKNOWN = "unknown"


class Phase(Enum):
    """The part of a request that an attempt runs."""

    HYBRID = "hybrid"  # prefill and decode in one place
    PREFILLING = "prefilling"
    DECODING = "decoding"
    UNKNOWN = "unknown"


class FinishReason(Enum):
    """Why generation finished."""

    STOP = "stop"  # end of sequence, stop token or stop string
    LENGTH = "length"  # max_tokens or the model's length
    UNKNOWN = "unknown"


class RequestState(Enum):
    """State of a request."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    UNKNOWN = "unknown"


class TimeUse(Enum):
    """The use of a time slice of a request."""

    QUEUE = "queue"  # waited in the queue
    PREFILL = "prefill"  # placed on an instance, before its next output token
    TRANSFER = "transfer"  # split requests: after prefill, the decode instance fetched the KV cache
    DECODE = "decode"  # output tokens were generated
    LOST = "lost"  # spent on an attempt that failed
    UNKNOWN = "unknown"


class NoInstance(Enum):
    """What happens to a request when no instance can serve its model now."""

    FAIL = "fail"  # it fails at once
    WAIT = "wait"  # it waits in the queue until its deadline


class ResumeMode(Enum):
    """What a failover does when the replayed tokens differ from those delivered."""

    STRICT = "strict"  # the request fails
    BEST_EFFORT = "best_effort"  # the request continues after the delivered tokens

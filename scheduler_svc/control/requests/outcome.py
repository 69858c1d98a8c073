"""How a request ended."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.errors import (
    GenerationFailed,
    LimitReached,
    ModelChanged,
    NoInstance,
    Overloaded,
    PolicyFailed,
    QueueFull,
    RequestCancelled,
    SchedulerError,
    ShuttingDown,
    TenantLimitReached,
)

CLIENT_GONE = "the client went away"
"""The reason for cancelling a request that no client reads any more."""

DELIVERY_FAILED = "its output could not be sent, because of an error in the scheduler"
"""The reason for cancelling a request whose last client's stream broke for a defect of the scheduler."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SloOutcome:
    """One target of a request, and whether it was met."""

    target: str  # "ttft" | "tpot" | "deadline"
    wanted_s: float
    measured_s: float
    met: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Finished:
    """The outcome of a request that finished.  Costs are in the unit of the instances' prices."""

    finish_reason: str  # "stop" | "length"
    stop_string: str
    stop_token_id: int | None
    prompt_tokens: int
    completion_tokens: int
    cached_prompt_tokens: int
    attempts: int
    queue_s: float
    ttft_s: float | None  # None when there was no token
    prefill_s: float | None
    transfer_s: float | None  # split requests: prefill's end to the first token
    decode_s: float | None
    total_s: float
    cost: float
    slo: tuple[SloOutcome, ...]
    embedding: bytes = b""  # of a request that is embedded: little-endian 32-bit floats


class RecordedFailure(Exception):
    """How a request ended otherwise than by itself, as the journal has it."""

    def __init__(self, message: str, status: bytes) -> None:
        """``status``: the encoded status that its callers are told."""
        self.status = status
        super().__init__(message)


Outcome = Finished | SchedulerError | RecordedFailure

_OF_THE_SERVICE = (
    NoInstance,
    ModelChanged,
    ShuttingDown,
    QueueFull,
    LimitReached,
    TenantLimitReached,
    Overloaded,
    PolicyFailed,
)


def caused_by_service(outcome: Outcome | None) -> bool:
    """Return whether the service or a broken connection caused an end, so that it is no answer to the request.

    A request with the id and content of one that ended so is served anew.
    """
    if isinstance(outcome, RequestCancelled):
        return outcome.reason in (CLIENT_GONE, DELIVERY_FAILED)
    if isinstance(outcome, GenerationFailed):
        return not outcome.request_is_at_fault
    return isinstance(outcome, _OF_THE_SERVICE)

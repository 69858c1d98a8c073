"""Snapshots of the fleet, which ``watch_fleet`` yields."""

from __future__ import annotations

from dataclasses import dataclass

from sage_client._enums import Phase, Priority
from sage_client._fleet_view import Instance, PolicySwitch, QueueInfo
from sage_client._plain import Plain
from sage_client._prefill_decode import PrefillDecodeStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class SloAttainment:
    """Numbers of requests of a class that met or missed their targets; failed, expired and refused ones missed them."""

    priority: Priority
    met: int  # requests
    missed: int  # requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Percentiles:
    """Of a length of time that many requests took, how long it was at most for so many of them.

    Rounded up, by 10 % at most.
    """

    requests: int  # how many were measured
    p50_s: float  # seconds, for half of them
    p95_s: float  # seconds
    p99_s: float  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetStretch:
    """What happened in one stretch of 5 s."""

    accepted: int  # requests
    ended: int  # requests, however they ended
    output_tokens: int  # tokens of the requests that ended
    time_to_first_token_p95_s: float | None  # seconds; None if no request with a token ended


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetCounts:
    """Counts of events in a time span that ends now."""

    span_s: float  # seconds; shorter just after the scheduler's start
    accepted: int  # requests
    refused: int  # requests that were never accepted
    finished: int  # requests
    failed: int  # requests
    cancelled: int  # requests
    expired: int  # requests whose deadline passed
    failovers: int  # times that a request moved to another instance
    output_tokens: int  # tokens of the requests that ended
    slo: tuple[SloAttainment, ...]  # by class, the most urgent first; classes without requests are left out
    # Of the requests that ended and had a token; None if there was none.
    time_to_first_token: Percentiles | None = None  # from acceptance
    time_per_output_token: Percentiles | None = None  # after the first one; of requests with two tokens at least
    total: Percentiles | None = None  # from acceptance to the end


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentDecision:
    """The summary of a decision; ``explain`` returns the whole decision."""

    ago_s: float  # seconds
    request_id: str
    tenant: str
    policy: str  # the policy that decided
    phase: Phase  # the leg that was placed; DECODING for a split request
    instance_id: str
    prefill_instance_id: str  # the prefill instance of a split request; else empty
    waited_s: float  # seconds from acceptance to this decision
    reason: str  # the most important reason, in words


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentFailover:
    """The failover of a request to another instance."""

    ago_s: float  # seconds
    request_id: str
    tenant: str
    cause: str  # "lost", "stalled", "failed", "rejected", "returned", "undelivered", "mismatch"
    reason: str  # in words


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetSnapshot(Plain):
    """The fleet at one moment."""

    epoch: int  # identifies one run of the scheduler process
    uptime_s: float  # seconds since the scheduler's start
    policy: str  # the current policy
    delegate: str  # the policy that ``adaptive`` follows now; else empty
    latest_switch: PolicySwitch | None  # None if there was none
    instances: tuple[Instance, ...]  # by id
    queues: tuple[QueueInfo, ...]  # by model
    requests_running: int  # placed and not ended
    requests_waiting: int  # in the queues of all models
    latest: FleetCounts  # over the last 10 to 15 s, for rates
    recent: FleetCounts  # over the last 5 minutes
    since_start: FleetCounts
    prefill_decode: PrefillDecodeStatus
    decisions: tuple[RecentDecision, ...]  # newest first
    failovers: tuple[RecentFailover, ...]  # newest first
    history: tuple[FleetStretch, ...] = ()  # the last 5 minutes in stretches that are over, oldest first

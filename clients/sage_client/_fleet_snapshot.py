"""The fleet at one moment, as ``watch_fleet`` gives it."""

from __future__ import annotations

from dataclasses import dataclass

from sage_client._enums import Phase, Priority
from sage_client._fleet_view import Instance, PolicySwitch, QueueInfo
from sage_client._prefill_decode import PrefillDecodeStatus


@dataclass(frozen=True, kw_only=True, slots=True)
class SloAttainment:
    """How many requests of a class met all their targets; failed, expired and refused ones missed theirs."""

    priority: Priority
    met: int  # requests
    missed: int  # requests


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetCounts:
    """What happened in a stretch of time that ends now."""

    span_s: float  # seconds; shorter just after the scheduler's start
    accepted: int  # requests
    refused: int  # requests that were never accepted
    finished: int  # requests that ended by themselves
    failed: int  # requests
    cancelled: int  # requests
    expired: int  # requests whose deadline passed
    failovers: int  # times that a request had to go on elsewhere
    output_tokens: int  # of the requests that ended
    slo: tuple[SloAttainment, ...]  # by class, the most urgent first; classes of which nothing counts are left out


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentDecision:
    """A placement, in short; ``explain`` has all of it."""

    ago_s: float  # seconds
    request_id: str
    tenant: str
    policy: str  # that decided
    phase: Phase  # of the leg placed: DECODING where it was split
    instance_id: str
    prefill_instance_id: str  # split requests only; else empty
    waited_s: float  # seconds from acceptance to this decision
    reason: str  # in words, the most important one


@dataclass(frozen=True, kw_only=True, slots=True)
class RecentFailover:
    """A request that had to go on elsewhere."""

    ago_s: float  # seconds
    request_id: str
    tenant: str
    cause: str  # "lost", "stalled", "failed", "rejected", "returned", "undelivered", "mismatch"
    reason: str  # in words


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetSnapshot:
    """The fleet at one moment."""

    epoch: int  # one life of the scheduler
    uptime_s: float  # seconds since the scheduler's start
    policy: str  # in force
    delegate: str  # the policy that ``adaptive`` follows now; else empty
    latest_switch: PolicySwitch | None  # None if there was none
    instances: tuple[Instance, ...]  # by id
    queues: tuple[QueueInfo, ...]  # by model
    requests_running: int  # placed, not ended
    requests_waiting: int  # over all models
    latest: FleetCounts  # over the last 10 to 15 s: what rates are made of
    recent: FleetCounts  # over the last 5 minutes
    since_start: FleetCounts
    prefill_decode: PrefillDecodeStatus
    decisions: tuple[RecentDecision, ...]  # newest first
    failovers: tuple[RecentFailover, ...]  # newest first

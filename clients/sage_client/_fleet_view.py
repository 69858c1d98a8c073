"""What the scheduler says of its instances, queues, policies and past decisions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sage_client._enums import InstanceRole, InstanceState, Priority, RequestState, TimeUse
from sage_client._events import Decision, Parallelism, SloResult


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """Where an instance stands in the world.  Empty where not said."""

    host: str
    rack: str
    zone: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance:
    """An instance as the scheduler sees it."""

    instance_id: str
    model: str
    revision: str
    role: InstanceRole
    state: InstanceState
    state_reason: str  # why it is in this state
    state_age_s: float  # seconds
    progress: float | None  # [0, 1] while it starts, where known
    engine: str  # "vllm", "simulated"
    engine_version: str
    engine_start_id: str  # new with every engine start
    software_version: str
    parallelism: Parallelism
    max_running: int  # sequences at once
    max_model_len: int  # tokens of prompt and output
    kv_capacity_tokens: int
    kv_used_tokens: int  # as the engine reports
    kv_reserved_tokens: int  # as the scheduler's ledger says
    running: int  # sequences, as the engine reports
    waiting: int  # requests inside the engine
    assigned: int  # live attempts
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    iterations: int  # of the engine since its start
    heartbeat_age_s: float  # seconds
    prefix_queries_tokens: int  # since the engine's start
    prefix_hits_tokens: int  # since the engine's start
    gpu_memory_used_bytes: int
    gpu_memory_bytes: int
    known_wait: str  # why no progress is expected now; empty if it is
    kv_pulls: int  # prompts whose KV was fetched from another engine, since the engine's start
    kv_pulls_failed: int  # that could not be fetched
    kv_leases_expired: int  # prompts whose KV was kept for another engine and not fetched in time
    price_per_hour: float
    adapters: tuple[str, ...]
    location: Location
    labels: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueInfo:
    """A model's queue."""

    model: str
    waiting: int  # requests
    limit: int  # requests
    waiting_by_priority: Mapping[str, int]  # "critical" .. "background"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetView:
    """Every instance and queue the scheduler knows."""

    instances: tuple[Instance, ...]  # by id
    queues: tuple[QueueInfo, ...]  # by model


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyInfo:
    """A policy there is."""

    name: str
    summary: str  # one line


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySwitch:
    """A change of policy, by an operator or by ``adaptive``."""

    from_policy: str
    to_policy: str
    reason: str
    ago_s: float  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyStatus:
    """The policy in force and those there are."""

    policy: str
    delegate: str  # the policy that ``adaptive`` follows now; else empty
    available: tuple[PolicyInfo, ...]
    switches: tuple[PolicySwitch, ...]  # the latest ones, newest first


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyChange:
    """What setting a policy did."""

    policy: str
    previous: str
    reordered: int  # requests that waited and were ordered anew


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation:
    """What a cancel did."""

    cancelled: bool  # false if it had already ended
    state: RequestState  # after the call


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEntry:
    """One thing that happened to a request."""

    at_s: float  # seconds since acceptance
    event: str  # "accepted", "placed", "first_token", ...
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSlice:
    """A stretch of a request's time, and what it went to."""

    use: TimeUse
    start_s: float  # seconds since acceptance
    length_s: float  # seconds
    instance_id: str  # where; empty in the queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation:
    """Why a request went where it went."""

    request_id: str
    model: str
    priority: Priority
    state: RequestState
    decisions: tuple[Decision, ...]  # oldest first, candidates included
    history: tuple[HistoryEntry, ...]  # oldest first
    error: str  # how it ended, where not by itself; else empty
    error_reason: str  # its stable name in the error catalogue; else empty
    waiting_because: str  # for a request in the queue; else empty
    queue_position: int  # 1 is next; 0 when not queued
    ordering_key: str  # what it is ordered by now, in words
    time_slices: tuple[TimeSlice, ...]  # from acceptance to its end, or to now: no gap, no overlap
    prompt_tokens: int
    completion_tokens: int  # delivered so far
    slo: tuple[SloResult, ...]  # each target it stated, against what happened so far
    cost: float  # so far, by the price of the instances used

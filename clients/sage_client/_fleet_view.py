"""Values that describe instances, queues, policies and explained requests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from sage_client._enums import InstanceRole, InstanceState, Priority, RequestState, TimeUse
from sage_client._events import Decision, Parallelism, SloResult
from sage_client._plain import Plain
from sage_client._prefill_decode import RoleChange


@dataclass(frozen=True, kw_only=True, slots=True)
class Location:
    """The physical location of an instance; fields are empty where not configured."""

    host: str
    rack: str
    zone: str


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceDecision:
    """What operators decided about an instance; with a journal it outlives the scheduler."""

    instance_id: str
    drained: bool
    drain_reason: str  # in the operator's words; empty if none were given
    role: InstanceRole | None  # None: that of its executor
    not_kept: str  # why it is not in the journal yet, in words; empty if it is, or without a journal


@dataclass(frozen=True, kw_only=True, slots=True)
class Instance(Plain):
    """An instance as the scheduler sees it."""

    instance_id: str
    model: str
    revision: str
    role: InstanceRole
    state: InstanceState
    state_reason: str  # why the instance is in this state
    state_age_s: float  # seconds
    progress: float | None  # of the instance's start, in [0, 1]; None if unknown
    engine: str  # "vllm", "simulated"
    engine_version: str
    software_version: str
    parallelism: Parallelism
    max_running: int  # sequences at the same time
    max_model_len: int  # tokens of prompt and output
    kv_capacity_tokens: int
    kv_used_tokens: int  # reported by the engine
    kv_reserved_tokens: int  # from the scheduler's ledger
    running: int  # sequences, reported by the engine
    waiting: int  # requests inside the engine
    assigned: int  # attempts that have not ended
    prompt_tokens_per_s: float
    generation_tokens_per_s: float
    iterations: int  # since the engine was ready
    heartbeat_age_s: float  # seconds
    prefix_queries_tokens: int  # since the engine was ready
    prefix_hits_tokens: int  # since the engine was ready
    gpu_memory_used_bytes: int
    gpu_memory_bytes: int
    known_wait: str  # why the engine makes no progress now; empty if no reason is known
    kv_pulls: int  # prompts whose KV was fetched from another engine, since the engine's start
    kv_pulls_failed: int  # prompts whose KV could not be fetched
    kv_leases_expired: int  # prompts whose KV was kept for another engine and not fetched in time
    price_per_hour: float
    adapters: tuple[str, ...]
    location: Location
    labels: Mapping[str, str]
    device_group: str = ""  # whose engines take turns on a device of its host; empty: none
    wake_s: float | None = None  # seconds that waking its engine took the last time; None: it never was woken
    decision: InstanceDecision | None = None  # of operators
    role_change: RoleChange | None = None  # by which the role came, where the scheduler changed it by itself


@dataclass(frozen=True, kw_only=True, slots=True)
class QueueInfo:
    """A model's queue."""

    model: str
    waiting: int  # requests
    limit: int  # requests
    waiting_by_priority: Mapping[str, int]  # "critical" .. "background"


@dataclass(frozen=True, kw_only=True, slots=True)
class FleetView(Plain):
    """Every instance and queue the scheduler knows."""

    instances: tuple[Instance, ...]  # by id
    queues: tuple[QueueInfo, ...]  # by model
    decisions: tuple[InstanceDecision, ...] = ()  # about instances that are not known now


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyInfo:
    """An available policy."""

    name: str
    summary: str  # one line
    warning: str = ""  # what to know before it serves people, in words; empty if there is nothing


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicySwitch:
    """A change of policy, by an operator or by ``adaptive``."""

    from_policy: str
    to_policy: str
    reason: str
    ago_s: float  # seconds


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyStatus(Plain):
    """The current policy and the available ones."""

    policy: str
    delegate: str  # the policy that ``adaptive`` follows now; else empty
    available: tuple[PolicyInfo, ...]
    switches: tuple[PolicySwitch, ...]  # the latest ones, newest first
    configured: str = ""  # the policy that the configuration names
    decided: bool = False  # an operator's decision overrides the configuration
    not_kept: str = ""  # why that decision is not in the journal yet, in words; empty if it is, or without a journal


@dataclass(frozen=True, kw_only=True, slots=True)
class PolicyChange(Plain):
    """The result of setting a policy."""

    policy: str
    previous: str
    reordered: int  # waiting requests that were reordered
    warning: str = ""  # what to know about the policy in force, in words; empty if there is nothing
    not_kept: str = ""  # why the decision is not in the journal yet, in words; empty if it is, or without a journal


@dataclass(frozen=True, kw_only=True, slots=True)
class PredictedMeans:
    """Means of what was predicted when decisions were made."""

    first_token_s: float  # seconds since the decision
    finish_s: float  # seconds since the decision
    cost: float  # per request, in the currency of the instances' prices


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowPolicy(Plain):
    """A policy that decides beside the current one, and how its choices compare."""

    policy: str
    delegate: str  # the policy that it follows now; else empty
    in_force: str  # the current policy
    age_s: float  # seconds since the comparison began
    compared: int  # decisions
    same: int  # of those, with the same instance
    not_compared: int  # split requests, and those whose caller prefers an instance
    chosen: PredictedMeans | None  # at the instances that were chosen; None while nothing was compared
    shadow: PredictedMeans | None  # at those it would have chosen
    failure: str  # why it was switched off; empty while it decides


@dataclass(frozen=True, kw_only=True, slots=True)
class ShadowPolicyChange:
    """The result of setting the shadow policy."""

    policy: str  # empty: none
    previous: str  # empty: none
    not_kept: str = ""  # as in PolicyChange


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancellation(Plain):
    """The result of a cancel."""

    cancelled: bool  # False if the request had already ended
    state: RequestState  # after the call


@dataclass(frozen=True, kw_only=True, slots=True)
class HistoryEntry:
    """One event in a request's history."""

    at_s: float  # seconds since acceptance
    event: str  # "accepted", "placed", "first_token", ...
    detail: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TimeSlice:
    """A stretch of a request's time with one use."""

    use: TimeUse
    start_s: float  # seconds since acceptance
    length_s: float  # seconds
    instance_id: str  # the instance; empty in the queue


@dataclass(frozen=True, kw_only=True, slots=True)
class Explanation(Plain):
    """A request's history and the decisions about it."""

    request_id: str
    model: str
    priority: Priority
    state: RequestState
    decisions: tuple[Decision, ...]  # oldest first, candidates included
    history: tuple[HistoryEntry, ...]  # oldest first
    error: str  # message of the error that ended the request; else empty
    error_reason: str  # stable name of that error in the catalogue; else empty
    waiting_because: str  # why a queued request waits; else empty
    queue_position: int  # 1 is next; 0 when not queued
    ordering_key: str  # what the queue is ordered by now, in words
    time_slices: tuple[TimeSlice, ...]  # from acceptance to the end or to now, without gaps or overlaps
    prompt_tokens: int
    completion_tokens: int  # delivered so far
    slo: tuple[SloResult, ...]  # each target of the request, measured so far
    cost: float  # so far, in the currency of the instances' prices
    choices: tuple[Explanation, ...] = ()  # of several choices: one each, by index; the fields above are of choice 0

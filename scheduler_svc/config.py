"""The scheduler's settings, with their defaults and bounds; ``sage_common.configuration`` fills and checks them."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    AfterValidator,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import SettingsConfigDict

from sage_common import configuration
from sage_common.addresses import check_address, refuse_exposed
from sage_common.configuration import ConfigError, Program, Section, ServiceConfig, in_one_line
from sage_common.event_loop import UVLOOP, checked_uvloop
from sage_common.tls import CERTIFICATE_KEYS, CertificateSection
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.settings import TelemetrySettings, checked_endpoint, unsafe_endpoint
from scheduler_svc.access.settings import AccessSection
from scheduler_svc.domain.admission import check_sampling
from scheduler_svc.domain.request import Sampling

__all__ = ["ENV_PREFIX", "PROGRAM", "ConfigError", "SchedulerConfig", "load", "load_or_exit"]

ENV_PREFIX = "SAGE_SCHEDULER_"
CLIENTS_VARIABLE = "SAGE_SCHEDULER_ADDRESS"
"""The variable that tells clients a scheduler's address; it is not a setting of the scheduler."""

PROGRAM = Program(
    name="sage-scheduler",
    command="python -m scheduler_svc",
    foreign_variables=frozenset({CLIENTS_VARIABLE}),
)

ENDLESS_TOKENS = 2**31
"""The max_tokens that is used to check sampling defaults which do not set it."""

IDENTITY_KEYS = "access.keys_file, access.jwt or access.certificates"
"""The names, in error messages, of the settings that tell callers apart."""

JOURNAL_FILE = "journal.db"
"""The journal in the state directory, where ``journal.url`` names no other database."""

Listener = Literal["listen", "executor_listen", "admin_listen"]
ALL_LISTENERS = frozenset(get_args(Listener))

_SAMPLING = TypeAdapter(Sampling)
_SAMPLING_DEFAULTS = set(Sampling.__dataclass_fields__) - {
    "structured_output",
    "logit_bias",
    "cache_salt",
    "engine_options",
}


class TlsSection(CertificateSection):
    """TLS of the listener.  Off without a certificate."""

    client_ca: Path | None = Field(
        default=None,
        description="PEM file of the authority that must have signed the certificates of clients and executors.",
    )
    client_ca_listeners: tuple[Listener, ...] = Field(
        default=("listen", "executor_listen", "admin_listen"),
        description="Addresses that take only clients with a certificate of client_ca; others use bearer tokens.",
    )

    @model_validator(mode="after")
    def _needs_a_certificate(self) -> Self:
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and private_key")
        return self


class QueueSection(Section):
    """Bounds on requests that wait."""

    limit_per_model: int = Field(
        default=10_000, ge=1, description="Most requests that may wait for one model; further ones are refused."
    )
    arriving_limit: int = Field(
        default=4_096, ge=1, description="Most requests being validated and tokenized at the same time."
    )
    choices_limit: int = Field(
        default=128,
        ge=1,
        description="Most choices of one request (sampling.n); each waits and runs like a request of its own.",
    )
    prompt_memory_bytes: int = Field(
        default=2**31, ge=1, description="Most bytes of prompts that arrive, wait or run; further ones are refused."
    )
    tenant_prompt_memory_bytes: int = Field(default=2**30, ge=1, description="The same for the prompts of one tenant.")
    default_deadline_s: float = Field(
        default=3_600.0, gt=0, description="Deadline in seconds after arrival of requests that set none."
    )
    unmeetable_deadlines: Literal["refuse", "accept"] = Field(
        default="refuse",
        description="What to do with requests whose deadline is over before they are predicted to leave the queue.",
    )
    wait_limit_s: dict[Literal["CRITICAL", "HIGH", "NORMAL", "LOW", "BACKGROUND"], float] = Field(
        default_factory=dict,
        description="Seconds that requests of a class may wait for their first attempt, by class; others may wait on.",
    )
    orphan_timeout_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds after which a waiting request fails when no ready instance can serve it.",
    )
    max_attempts: int = Field(
        default=5, ge=1, description="Most attempts of one request that may fail without a new token before it fails."
    )

    @field_validator("wait_limit_s")
    @classmethod
    def _limits_are_positive(cls, value: dict[str, float]) -> dict[str, float]:
        for name, limit_s in value.items():
            if not (math.isfinite(limit_s) and limit_s > 0):
                raise ValueError(f"{name}: {limit_s:g} is not a positive number of seconds")
        return value


class TenantSection(Section):
    """Weight and limits of a tenant; 0 is no limit."""

    weight: float = Field(default=1.0, gt=0, description="Weight of its share: twice the weight gets twice the tokens.")
    waiting_limit: int = Field(
        default=0, ge=0, description="Most of its requests that may wait; further ones are refused.  0: no limit."
    )
    running_limit: int = Field(
        default=0, ge=0, description="Most of its requests that run at the same time.  0: no limit."
    )
    at_running_limit: Literal["wait", "refuse"] = Field(
        default="wait",
        description="What further requests do at running_limit: wait their turn, at most waiting_limit of them, or get "
        "TENANT_LIMIT at once.",
    )
    tokens_per_minute: int = Field(
        default=0, ge=0, description="Prompt and output tokens a minute; beyond that it is refused.  0: no limit."
    )


class SharesSection(Section):
    """How tokens count for the shares of tenants."""

    prompt_token_weight: float = Field(default=1.0, ge=0, description="What a prompt token counts.")
    output_token_weight: float = Field(default=2.0, gt=0, description="What an output token counts.")


class InstanceSection(Section):
    """When an instance counts as lost, stalled or failing."""

    lease_s: float = Field(
        default=5.0, gt=0, description="Seconds without a message after which an instance is treated as lost."
    )
    heartbeat_interval_s: float = Field(
        default=0.5, gt=0, description="Seconds between an executor's heartbeats; at most half of lease_s."
    )
    reconnect_grace_s: float = Field(
        default=0.3,
        ge=0,
        description="Seconds an executor has to reconnect after its stream breaks, before it is treated as lost.",
    )
    stall_limit_s: float = Field(
        default=10.0, gt=0, description="Seconds a busy instance may make no progress before it is treated as stalled."
    )
    known_wait_limit_s: float = Field(
        default=60.0, gt=0, description="The same limit in seconds while the engine reports why it waits."
    )
    forget_after_s: float = Field(
        default=600.0,
        gt=0,
        description="Seconds that a lost instance stays listed, and so does a model that no other instance serves.",
    )
    probation_s: float = Field(
        default=5.0,
        gt=0,
        description="Cool-down in seconds after consecutive failures of an instance; doubles up to a minute.",
    )

    adopt_s: float = Field(
        default=60.0,
        gt=0,
        description="Seconds that an executor without a scheduler goes on with its requests, for the next one to adopt;"
        " at least lease_s.  Only with state_dir.",
    )

    @model_validator(mode="after")
    def _heartbeats_fit_into_the_lease(self) -> Self:
        if 2 * self.heartbeat_interval_s > self.lease_s:
            raise ValueError(
                f"heartbeat_interval_s ({self.heartbeat_interval_s:g}) is more than half of lease_s ({self.lease_s:g}):"
                " every instance would be suspect between two heartbeats"
            )
        return self


class RecoverySection(Section):
    """Going on with the requests of an earlier scheduler, after a start with its state_dir."""

    limit_s: float = Field(
        default=10.0,
        gt=0,
        description="Seconds that a start waits for the instances which the earlier scheduler had; until they are back,"
        " requests with unknown ids are asked to come again.",
    )
    on_stop: Literal["hand_over", "drain"] = Field(
        default="hand_over",
        description="What SIGTERM does, with a state_dir: leave running requests to the next scheduler, which has"
        " instance.adopt_s to start; or wait for them as without a state_dir.",
    )


class JournalSection(Section):
    """The database of what outlives a scheduler: operators' decisions, usage records, detached requests."""

    url: str = Field(
        default="",
        description="Database: sqlite:///FILE, postgresql://USER@HOST/NAME (needs the extra `postgres`), or none.  "
        "Default: journal.db in state_dir, and no journal without a state_dir.",
    )
    fleet: str = Field(
        default="",
        max_length=200,
        description="Name of the fleet whose journal it must be; a new database gets it.  Default: any; a random one.",
    )
    limit_s: float = Field(
        default=5.0,
        gt=0,
        le=60,
        description="Seconds that a write may take, from its arrival until it is on the disk; then the journal is slow"
        " and detached requests are refused.",
    )
    max_bytes: int = Field(
        default=8 * 2**30,
        ge=2**20,
        description="Most bytes of a SQLite file; at this size it takes no more, and detached requests are refused.",
    )


class LeadershipSection(Section):
    """Which of several schedulers leads, where they share a journal in PostgreSQL."""

    lease_s: float = Field(
        default=2.0,
        ge=0.2,
        le=60,
        description="Seconds for which a scheduler leads without renewing it in the database, and for which none may"
        " lead when one dies.",
    )
    address: str = Field(
        default="",
        description="host:port at which clients and executors reach this scheduler, told by the others; several are"
        " separated by commas.  Default: its listening addresses, with this machine's name for 0.0.0.0.",
    )


class UsageSection(Section):
    """Usage records: one for each request that ended, without its prompt and output."""

    keep_s: float = Field(
        default=31 * 86_400.0, gt=0, description="Seconds that usage records are kept in the journal."
    )
    max_bytes: int = Field(
        default=2**30,
        ge=2**20,
        description="Most bytes of usage records in the journal, estimated; the oldest go first.  Never more than a"
        " quarter of journal.max_bytes, where that bounds the journal.",
    )
    file: Path | None = Field(
        default=None,
        description="File to append usage records to, one JSON object a line.  Off without a file.  Works without a"
        " journal, too.",
    )
    file_max_bytes: int = Field(
        default=256 * 2**20, ge=65_536, description="Size in bytes at which the file is put aside as FILE.1."
    )
    files: int = Field(
        default=4, ge=2, le=1_000, description="Most files kept, usage.file itself included; the oldest is deleted."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="http://host:port or https://host:port of an OTLP/gRPC receiver of logs, which gets every usage"
        " record as a log record.  Works without a journal, too.",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        return checked_endpoint(value)

    @property
    def otlp(self) -> OtlpEndpoint | None:
        """Return the parsed ``otlp_endpoint``; None where none is set."""
        return None if self.otlp_endpoint is None else OtlpEndpoint.parse(self.otlp_endpoint)


class AutomaticRolesSection(Section):
    """When instances change between prefill and decode by themselves."""

    enabled: bool = Field(
        default=False, description="Change roles as the load of prefill and decode asks for, while requests are split."
    )
    interval_s: float = Field(default=2.0, gt=0, description="Seconds between two looks at the pressures.")
    pressed: float = Field(
        default=0.8,
        gt=0,
        description="Pressure from which a side is to get an instance of the other; 1 is what it can just carry.",
    )
    room: float = Field(
        default=0.7, gt=0, description="Most pressure of the side that gives an instance, with one instance less."
    )
    gain: float = Field(
        default=0.15, gt=0, lt=1, description="Share by which the higher of both pressures has to fall with a change."
    )
    delay_s: float = Field(default=15.0, ge=0, description="Seconds for which a change is wanted before it is made.")
    cooldown_s: float = Field(default=30.0, ge=0, description="Seconds between two changes of a model.")
    back_s: float = Field(
        default=120.0, ge=0, description="Seconds between two changes of a model in opposite directions."
    )
    least_prefill: int = Field(default=1, ge=1, description="Ready prefill instances of a model that stay.")
    least_decode: int = Field(default=1, ge=1, description="Ready decode instances of a model that stay.")


class PdSeparationSection(Section):
    """Prefill/decode separation: running a request's prompt on one instance and its output on another."""

    enabled: bool = Field(default=False, description="Split requests into a prefill leg and a decode leg.")
    routing_policy: Literal["always", "threshold", "adaptive"] = Field(
        default="adaptive",
        description="Which requests are split: all, those past a threshold, or those where running streams gain more.",
    )
    prefilling_threshold_input_tokens: int = Field(
        default=2_048, ge=1, description="threshold: split requests whose prompt has at least this many tokens."
    )
    prefilling_threshold_ratio: float = Field(
        default=4.0,
        gt=0,
        description="threshold: also split requests whose prompt is this many times longer than the predicted output.",
    )


class PrefixSection(Section):
    """Following prefix caches: prompts go where their beginning was computed before."""

    aware: bool = Field(
        default=True,
        description="Count the prompt tokens that an instance's prefix cache holds, and follow sessions, in placement.",
    )
    max_index_bytes: int = Field(
        default=256 * 2**20,
        ge=2**20,
        description="Most bytes of memory for the index of prefix caches, estimated; the oldest blocks go first.",
    )
    max_load_ratio: float = Field(
        default=1.25,
        ge=1,
        description="With more than this many times the mean load, an instance gets no request for its cache's sake.",
    )


class BoundsSection(Section):
    """The fewest and the most instances of one model in one role."""

    min: int = Field(default=1, ge=0, description="Fewest instances; 0: down to none while nobody asks.")
    max: int = Field(default=8, ge=1, description="Most instances.")

    @model_validator(mode="after")
    def _are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class ScalingSection(Section):
    """How many instances of each model there are to be; who starts and drains them follows that."""

    enabled: bool = Field(default=False, description="Work out how many instances of each model are needed.")
    interval_s: float = Field(default=5.0, gt=0, description="Seconds between two looks at the load.")
    share: float = Field(
        default=0.7,
        gt=0,
        le=1,
        description="Most of what instances can do with every slot taken that they are meant to carry.  Less where they"
        " miss targets at that.",
    )
    late_share: float = Field(
        default=0.03, ge=0, le=1, description="Share of requests that may miss a target before more are needed."
    )
    up_delay_s: float = Field(
        default=10.0, ge=0, description="Seconds for which more instances are needed before more are desired."
    )
    down_delay_s: float = Field(
        default=300.0, ge=0, description="Seconds for which fewer instances are needed before fewer are desired."
    )
    idle_s: float = Field(
        default=600.0, ge=0, description="Seconds without a request before a model whose min is 0 goes to zero."
    )
    trend_s: float = Field(default=300.0, gt=0, description="Seconds of load from which its rise is estimated.")
    warm_up_s: float = Field(
        default=60.0, gt=0, description="Seconds that a start takes, until one of the model was measured."
    )
    min: int = Field(default=1, ge=1, description="Fewest instances of a model and role that models does not name.")
    max: int = Field(default=8, ge=1, description="Most instances of a model and role that models does not name.")
    models: dict[str, dict[Literal["general", "prefilling", "decoding", "embedding"], BoundsSection]] = Field(
        default_factory=dict,
        description="Bounds by model and role.  These models are known without an instance: only they may go to zero.",
    )

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min > self.max:
            raise ValueError(f"min ({self.min}) is above max ({self.max})")
        return self


class DeviceGroupsSection(Section):
    """How the engines that share a device take turns on it; their executors name it (device_group)."""

    min_awake_s: float = Field(
        default=5.0, ge=0, le=3_600, description="Seconds that an engine stays awake, whoever else is wanted."
    )
    turn_factor: float = Field(
        default=4.0,
        ge=0,
        le=1_000,
        description="A turn of a busy engine lasts this many times what one engine's falling asleep and the other's "
        "waking up take; with 4, a fifth of the time goes into them.",
    )
    drain_limit_s: float = Field(
        default=60.0,
        ge=0,
        le=86_400,
        description="Seconds that running requests may take to end after a turn.  Those left then wait, and go on from "
        "their tokens in the next one.",
    )


class RecordSection(Section):
    """How much of ended requests is kept, for explain and for clients that reconnect."""

    requests: int = Field(default=2_000, ge=1, description="Most ended requests kept.")
    memory_bytes: int = Field(
        default=256 * 2**20,
        ge=2**20,
        description="Most bytes of memory for them, estimated: outputs, log probabilities, decisions, histories.",
    )


class DetachedSection(Section):
    """Detached work: requests that need no client; only with a journal."""

    default_deadline_s: float = Field(
        default=86_400.0, gt=0, description="Deadline in seconds after arrival of detached requests that set none."
    )
    keep_result_s: float = Field(
        default=86_400.0, gt=0, description="Seconds after its end that a result is kept, of requests that do not say."
    )
    keep_result_limit_s: float = Field(
        default=604_800.0, gt=0, description="Most seconds for which a request may ask to have its result kept."
    )
    tenant_requests: int = Field(
        default=10_000, ge=1, description="Most detached requests of one tenant, those with results included."
    )
    tenant_bytes: int = Field(
        default=2**30, ge=1, description="Most bytes of one tenant's detached requests: prompts, outputs, results."
    )
    requests: int = Field(default=100_000, ge=1, description="Most detached requests of all tenants.")
    checkpoint_tokens: int = Field(
        default=64, ge=1, description="Output tokens of a request after which they are written down."
    )
    checkpoint_s: float = Field(
        default=1.0, gt=0, description="Seconds after which new output of a request is written down."
    )


class BatchesSection(Section):
    """Batches, and the files that they read and write; only with a journal."""

    file_bytes: int = Field(default=200 * 2**20, ge=1, description="Most bytes of a file that is uploaded.")
    line_bytes: int = Field(default=2**20, ge=1, description="Most bytes of one line of a batch.")
    lines: int = Field(default=50_000, ge=1, description="Most lines of a batch.")
    tenant_bytes: int = Field(
        default=2**30, ge=1, description="Most bytes of one tenant's files; those that batches write may go beyond it."
    )
    tenant_files: int = Field(default=1_000, ge=1, description="Most files that one tenant has uploaded.")
    tenant_batches: int = Field(default=1_000, ge=1, description="Most batches of one tenant, ended ones included.")
    tenant_unfinished: int = Field(default=32, ge=1, description="Most batches of one tenant that have not ended.")
    tenant_uploads: int = Field(default=16, ge=1, description="Most files that one tenant uploads at the same time.")
    bytes: int = Field(
        default=4 * 2**30, ge=1, description="Most bytes of all tenants' files; keep it below journal.max_bytes."
    )
    files: int = Field(default=20_000, ge=1, description="Most files that all tenants have uploaded.")
    batches: int = Field(default=20_000, ge=1, description="Most batches of all tenants, ended ones included.")
    unfinished: int = Field(default=256, ge=1, description="Most batches of all tenants that have not ended.")
    uploads: int = Field(default=64, ge=1, description="Most files that all tenants upload at the same time.")
    lines_in_flight: int = Field(
        default=256, ge=1, description="Most lines of all batches that wait or run at the same time."
    )
    deadline_s: float = Field(default=86_400.0, gt=0, description="Deadline in seconds of batches that set none.")
    deadline_limit_s: float = Field(default=604_800.0, gt=0, description="Most seconds that a batch may ask for.")
    keep_s: float = Field(
        default=604_800.0,
        gt=0,
        description="Seconds that files are kept, and batches with their outputs after the end, unless callers say.",
    )
    keep_limit_s: float = Field(default=2_592_000.0, gt=0, description="Most seconds for which callers may ask.")
    unknown_model_s: float = Field(
        default=300.0,
        ge=0,
        description="Seconds after the start in which a line waits for a model that the scheduler does not know.",
    )


class RecordingSection(Section):
    """A file of the requests that ended, the instances and their load, for `sagectl simulate`; without prompts."""

    file: Path | None = Field(
        default=None,
        description="File to write, one JSON object a line; an older one is put aside as FILE.1. Off without a file. "
        "Also --record FILE.",
    )
    max_bytes: int = Field(
        default=256 * 1024 * 1024, ge=65_536, description="Size in bytes at which a file is put aside as FILE.1."
    )
    files: int = Field(
        default=4, ge=2, le=1_000, description="Most files kept, FILE itself included; the oldest is deleted."
    )
    tenants: bool = Field(
        default=True, description="Write a hash of each request's tenant, salted anew at every start."
    )


class ModelSection(Section):
    """Settings of one model."""

    sampling: dict[str, Any] = Field(
        default_factory=dict, description="Sampling parameters used where a request leaves them open."
    )

    @field_validator("sampling")
    @classmethod
    def _are_sampling_parameters(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in _SAMPLING_DEFAULTS:
                there_are = ", ".join(sorted(_SAMPLING_DEFAULTS))
                raise ValueError(f"{name!r} is not a sampling field; there are: {there_are}")
        try:
            sampling = _SAMPLING.validate_python({"max_tokens": ENDLESS_TOKENS, **value})
        except ValidationError as error:
            raise ValueError(in_one_line(error)) from error
        found = check_sampling(sampling, vocab_size=2**32)
        if found:
            raise ValueError("; ".join(f"{v.field.removeprefix('spec.sampling.')}: {v.description}" for v in found))
        return {name: getattr(sampling, name) for name in value}


class SchedulerConfig(ServiceConfig):
    """Schedule requests over a fleet of vLLM engines.  A flag wins over an environment variable
    (SAGE_SCHEDULER_INSTANCE__LEASE_S), which wins over the file that --config or SAGE_SCHEDULER_CONFIG names.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX)

    listen: str = Field(default="127.0.0.1:50051", description="host:port to serve on; port 0 picks a free port.")
    executor_listen: str = Field(
        default="",
        description="host:port for ExecutorService alone, which `listen` then does not serve.  Default: listen.",
    )
    admin_listen: str = Field(
        default="",
        description="host:port for AdminService alone, which `listen` then does not serve.  Default: listen.",
    )
    reflection: bool = Field(default=True, description="Serve gRPC reflection (v1 and v1alpha), which grpcurl uses.")
    insecure: bool = Field(
        default=False,
        description="Allow addresses that other machines can reach to be used without TLS, or without identities.",
    )
    policy: str = Field(
        default="adaptive",
        description="Scheduling policy: fifo, priority, slo_aware, cost_optimized, adaptive, one for comparison, or an "
        "installed one.",
    )
    drain_timeout_s: float = Field(
        default=30.0, ge=0, description="Seconds that running requests may take to finish after SIGTERM or SIGINT."
    )
    uvloop: Annotated[bool, AfterValidator(checked_uvloop)] = Field(default=False, description=UVLOOP)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="text: readable lines; json: one JSON object a line."
    )
    tls: TlsSection = Field(default=TlsSection(), description="TLS of the listener; off without a certificate.")
    access: AccessSection = Field(
        default=AccessSection(), description="Who may do what; everyone may do everything until identities are given."
    )
    state_dir: Path | None = Field(
        default=None,
        description="Directory in which this scheduler leaves what the next one needs to go on with running requests."
        "  Default: none, and a scheduler that dies takes its requests with it.",
    )
    recovery: RecoverySection = Field(
        default=RecoverySection(), description="Going on with the requests of an earlier scheduler, after a start."
    )
    journal: JournalSection = Field(
        default=JournalSection(),
        description="The database of what outlives a scheduler: operators' decisions, usage, detached requests.",
    )
    leadership: LeadershipSection = Field(
        default=LeadershipSection(),
        description="Which of several schedulers leads, where they share a journal in PostgreSQL.",
    )
    usage: UsageSection = Field(
        default=UsageSection(), description="Usage records: one for each request that ended, without its content."
    )
    queue: QueueSection = Field(default=QueueSection(), description="Bounds on requests that wait.")
    shares: SharesSection = Field(default=SharesSection(), description="How tokens count for the shares of tenants.")
    tenant_default: TenantSection = Field(
        default=TenantSection(), description="Weight and limits of each tenant that tenants does not name."
    )
    tenants: dict[str, TenantSection] = Field(
        default_factory=dict, description="Weights and limits of single tenants, by name."
    )
    instance: InstanceSection = Field(
        default=InstanceSection(), description="When an instance counts as lost, stalled or failing."
    )
    pd_separation: PdSeparationSection = Field(
        default=PdSeparationSection(),
        description="Prefill/decode separation: a request's prompt runs on one instance, its output on another.",
    )
    automatic_roles: AutomaticRolesSection = Field(
        default=AutomaticRolesSection(),
        description="When instances change between prefill and decode by themselves; off by default.",
    )
    prefix: PrefixSection = Field(
        default=PrefixSection(),
        description="Following prefix caches: prompts go where their beginning was computed before.",
    )
    scaling: ScalingSection = Field(
        default=ScalingSection(), description="How many instances of each model there are to be; off by default."
    )
    device_groups: DeviceGroupsSection = Field(
        default=DeviceGroupsSection(), description="Engines that take turns on one device, by sleeping."
    )
    record: RecordSection = Field(
        default=RecordSection(),
        description="How much of ended requests is kept, for explain and for clients that reconnect.",
    )
    detached: DetachedSection = Field(
        default=DetachedSection(), description="Detached work: requests that need no client; only with a journal."
    )
    batches: BatchesSection = Field(
        default=BatchesSection(),
        description="Batches, and the files that they read and write; only with a journal.",
    )
    recording: RecordingSection = Field(
        default=RecordingSection(),
        description="A file of the requests that ended, the instances and their load, for sagectl simulate.",
    )
    telemetry: TelemetrySettings = Field(
        default=TelemetrySettings(), description="Metrics and traces; off until an address is given."
    )
    models: dict[str, ModelSection] = Field(
        default_factory=dict, description="Settings of single models, by name: sampling defaults."
    )

    @field_validator("listen", "executor_listen", "admin_listen")
    @classmethod
    def _is_an_address(cls, value: str, info: ValidationInfo) -> str:
        if value or info.field_name == "listen":
            check_address(value)
        return value

    @model_validator(mode="after")
    def _identities_can_be_proved(self) -> Self:
        if self.access.certificates and self.tls.client_ca is None:
            raise ValueError("access.certificates: needs tls.client_ca, which signs the certificates")
        if self.access.certificates and not self.listeners.keys() & set(self.tls.client_ca_listeners):
            raise ValueError("access.certificates: no address of tls.client_ca_listeners is served")
        return self

    @model_validator(mode="after")
    def _each_file_has_one_writer(self) -> Self:
        recording, usage = self.recording.file, self.usage.file
        if recording is not None and usage is not None and recording.absolute() == usage.absolute():
            raise ValueError("usage.file: it is recording.file, too; each needs a file of its own")
        return self

    @model_validator(mode="after")
    def _certificates_are_asked_for(self) -> Self:
        demanding = self.tls.client_ca_listeners
        if set(demanding) != ALL_LISTENERS and (absent := [key for key in demanding if key not in self.listeners]):
            raise ValueError(f"tls.client_ca_listeners: {absent[0]} is not set, so its service takes any client")
        return self

    @model_validator(mode="after")
    def _attempts_outlast_a_leader(self) -> Self:
        lease_s = self.leader_lease_s
        if lease_s is not None and self.instance.adopt_s <= lease_s:
            raise ValueError(
                f"instance.adopt_s ({self.instance.adopt_s:g}) is not above leadership.lease_s ({lease_s:g}):"
                " no request would outlast its leader"
            )
        return self

    @field_validator("leadership")
    @classmethod
    def _is_reached_at_addresses(cls, value: LeadershipSection) -> LeadershipSection:
        for address in value.address.split(",") if value.address else ():
            check_address(address.strip(), lowest_port=1)
        return value

    @model_validator(mode="after")
    def _addresses_are_safe(self) -> Self:
        if self.insecure:
            return self
        for key, address in self.listeners.items():
            if self.tls.certificate is None:
                refuse_exposed(key, address, give=CERTIFICATE_KEYS)
            elif not self.access.on:
                refuse_exposed(key, address, give=IDENTITY_KEYS)
        if (unsafe := self.telemetry.unsafe(tls=self.tls.certificate is not None)) is not None:
            raise ValueError(unsafe)
        if (unsafe := unsafe_endpoint("usage.otlp_endpoint", self.usage.otlp_endpoint)) is not None:
            raise ValueError(unsafe)
        return self

    @property
    def leader_lease_s(self) -> float | None:
        """Return how long the scheduler leads without renewing it; None: it is the only one, and always leads."""
        return self.leadership.lease_s if self.journal_url.startswith("postgresql") else None

    @property
    def journal_url(self) -> str:
        """The database URL of the journal; empty: there is none."""
        if self.journal.url:
            return "" if self.journal.url == "none" else self.journal.url
        return f"sqlite:///{self.state_dir.absolute() / JOURNAL_FILE}" if self.state_dir is not None else ""

    @property
    def listeners(self) -> dict[str, str]:
        """Return the addresses to serve on, by the setting that names them; those that are not set are left out."""
        given = {
            "listen": self.listen,
            "executor_listen": self.executor_listen,
            "admin_listen": self.admin_listen,
        }
        return {key: address for key, address in given.items() if address}


def load(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> SchedulerConfig:
    """Return the configuration.  ``--help`` prints the flags and exits.

    Raises:
        ConfigError: a source cannot be read, or names an unknown key or a bad value.
    """
    return configuration.load(SchedulerConfig, PROGRAM, _spelled_out(arguments), environment)


def load_or_exit(arguments: Sequence[str]) -> SchedulerConfig:
    """Return the configuration; if it is wrong, say why in one line on stderr and exit with status 2."""
    return configuration.load_or_exit(SchedulerConfig, PROGRAM, _spelled_out(arguments))


def _spelled_out(arguments: Sequence[str]) -> list[str]:
    """Return the arguments with ``--record`` as the flag it stands for.

    It cannot be one of ``Program.shortcuts``: it would be taken for the section ``record``.
    """
    return [re.sub(r"^--record(?==|$)", "--recording.file", argument) for argument in arguments]

"""The scheduler's settings and the sections of others; ``sage_common.configuration`` fills and checks them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from sage_common import configuration
from sage_common.addresses import check_address, refuse_exposed
from sage_common.configuration import ConfigError, Program, ServiceConfig
from sage_common.event_loop import UVLOOP, checked_uvloop
from sage_common.tls import CERTIFICATE_KEYS
from sage_telemetry.settings import TelemetrySettings, unsafe_endpoint
from scheduler_svc.access.settings import AccessSection
from scheduler_svc.settings.batches import BatchesSection
from scheduler_svc.settings.detached import DetachedSection
from scheduler_svc.settings.device_groups import DeviceGroupsSection
from scheduler_svc.settings.instances import InstanceSection
from scheduler_svc.settings.journal import JournalSection, LeadershipSection, RecoverySection
from scheduler_svc.settings.models import ModelSection
from scheduler_svc.settings.prefill_decode import AutomaticRolesSection, PdSeparationSection
from scheduler_svc.settings.prefixes import PrefixSection
from scheduler_svc.settings.queue import QueueSection
from scheduler_svc.settings.records import RecordingSection, RecordSection, UsageSection
from scheduler_svc.settings.scaling import ScalingSection
from scheduler_svc.settings.tenants import SharesSection, TenantSection
from scheduler_svc.settings.tls import ALL_LISTENERS, TlsSection

__all__ = ["ENV_PREFIX", "PROGRAM", "ConfigError", "SchedulerConfig", "load", "load_or_exit"]

ENV_PREFIX = "SAGE_SCHEDULER_"
CLIENTS_VARIABLE = "SAGE_SCHEDULER_ADDRESS"
"""The variable that tells clients a scheduler's address; it is not a setting of the scheduler."""

PROGRAM = Program(
    name="sage-scheduler",
    command="python -m scheduler_svc",
    foreign_variables=frozenset({CLIENTS_VARIABLE}),
)

IDENTITY_KEYS = "access.keys_file, access.jwt or access.certificates"
"""The names, in error messages, of the settings that tell callers apart."""

JOURNAL_FILE = "journal.db"
"""The journal in the state directory, where ``journal.url`` names no other database."""


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

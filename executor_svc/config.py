"""The executor's settings, with their defaults and bounds; ``sage_common.configuration`` fills and checks them."""

from __future__ import annotations

import os
import re
import socket
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_settings import NoDecode, SettingsConfigDict

from executor_svc.engine.settings import EngineSettings
from sage_common import configuration
from sage_common.addresses import check_address, refuse_exposed, split_host_port
from sage_common.configuration import ConfigError, Program, Section, ServiceConfig
from sage_common.event_loop import UVLOOP, checked_uvloop
from sage_common.tls import CERTIFICATE_KEYS, CertificateSection
from sage_telemetry.settings import TelemetrySettings

__all__ = ["ENV_PREFIX", "PROGRAM", "ConfigError", "ExecutorConfig", "load", "load_or_exit"]

ENV_PREFIX = "SAGE_EXECUTOR_"
INSTANCE_ID = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"

PROGRAM = Program(
    name="sage-executor",
    command="python -m executor_svc",
    usage="python -m executor_svc --model MODEL [--scheduler HOST:PORT] [--engine.kind vllm|simulated] [...]",
    shortcuts={"engine.model.model": "model"},
)


class TlsSection(CertificateSection):
    """TLS.  With `ca` the executor dials schedulers over TLS; with a certificate its own listener serves TLS."""

    ca: Path | None = Field(
        default=None, description="PEM file of the certificate authority that signed the scheduler's certificate."
    )


class LocationSection(Section):
    """Location of this instance, reported to the scheduler."""

    host: str = Field(default="", description="Host name reported to the scheduler.  Default: this machine's name.")
    rack: str = Field(default="", description="Name of the rack that this instance is in.")
    zone: str = Field(default="", description="Name of the zone or site that this instance is in.")


class DeviceGroupSection(Section):
    """The engines that take turns on a device of this host: those that are not awake sleep."""

    name: str = Field(
        default="",
        description="Name of the device, the same for all executors that share it.  Default: the engine has its device "
        "for itself.",
    )
    places: int = Field(
        default=1, ge=1, le=64, description="Engines of the group whose memory the device holds at the same time."
    )
    directory: Path = Field(
        default_factory=lambda: Path(tempfile.gettempdir()) / f"sage-device-groups-{os.getuid()}",
        description="Folder of lock files, the same for all executors of the group.  "
        "Default: one for each user, in the folder for temporary files.",
    )
    stuck_limit_s: float = Field(
        default=60.0,
        gt=0,
        le=3_600,
        description="Seconds for which the engine may hold requests without an iteration, or refuse to sleep.  Then it "
        "counts as dead and its executor ends, so that the others of the group get its place.  So does one "
        "whose iteration takes longer: set it above the longest.  Without an iteration, five times as long while it "
        "says what it waits for, or an adapter is loaded or unloaded.",
    )

    @field_validator("name")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        if value and not re.fullmatch(INSTANCE_ID, value):
            raise ValueError(f"{value!r}: letters, digits and . _ : -, at most 128")
        return value


class ExecutorConfig(ServiceConfig):
    """Run one engine and offer it to a SAGE scheduler.  A flag wins over an environment variable
    (SAGE_EXECUTOR_ENGINE__KIND), which wins over the file that --config or SAGE_EXECUTOR_CONFIG names.
    """

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX)

    scheduler: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("127.0.0.1:50051",),
        min_length=1,
        description="host:port of the scheduler; of several (separated by commas, or repeated) the one that leads is "
        "found.",
    )
    token_file: Path | None = Field(
        default=None, description="File with the bearer token that proves to schedulers who this executor is."
    )
    instance_id: str = Field(
        default="",
        description="Name of this instance, the same at every start.  Default: this machine's and the model's name.",
    )
    role: Literal["general", "prefilling", "decoding", "hybrid", "embedding"] = Field(
        default="general", description="Kind of work the scheduler may send to this instance."
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Labels as name=value, shown wherever instances are listed."
    )
    price_per_hour: float = Field(
        default=0.0,
        ge=0.0,
        description="Price of the whole instance per hour; any currency, the same for the whole fleet.",
    )
    listen: str = Field(
        default="127.0.0.1:0", description="host:port to answer health checks on; port 0 picks a free port."
    )
    insecure: bool = Field(
        default=False, description="Allow addresses that other machines can reach to be used without TLS."
    )
    drain_timeout_s: float = Field(
        default=60.0, ge=0.0, description="Seconds that running requests may take to finish after SIGTERM or SIGINT."
    )
    max_held_attempts: int = Field(
        default=4_096,
        ge=1,
        le=1_000_000,
        description="Most attempts held in memory, running or ended without the scheduler's acknowledgement yet.",
    )
    uvloop: Annotated[bool, AfterValidator(checked_uvloop)] = Field(default=False, description=UVLOOP)
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level that is logged."
    )
    log_format: Literal["text", "json"] = Field(
        default="text", description="text: readable lines; json: one JSON object a line."
    )
    tls: TlsSection = Field(
        default=TlsSection(),
        description="TLS: `ca` for connections to schedulers, a certificate for the executor's own listener.",
    )
    location: LocationSection = Field(default=LocationSection(), description="Location of this instance.")
    device_group: DeviceGroupSection = Field(
        default=DeviceGroupSection(), description="Engines that take turns on one device, by sleeping."
    )
    telemetry: TelemetrySettings = Field(
        default=TelemetrySettings(), description="Metrics and traces; off until an address is given."
    )
    engine: EngineSettings = Field(description="The engine and its model.")

    @field_validator("scheduler", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        return [part for item in value for part in _parts(item)]

    @field_validator("scheduler")
    @classmethod
    def _are_addresses(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            check_address(address, lowest_port=1)
        return value

    @field_validator("listen")
    @classmethod
    def _is_host_and_port(cls, value: str) -> str:
        split_host_port(value)
        return value

    @field_validator("instance_id")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        if value and not re.fullmatch(INSTANCE_ID, value):
            raise ValueError(f"{value!r}: letters, digits and . _ : -, at most 128")
        return value

    @model_validator(mode="after")
    def _addresses_are_safe(self) -> Self:
        if self.insecure:
            return self
        if self.tls.certificate is None:
            refuse_exposed("listen", self.listen, give=CERTIFICATE_KEYS)
        if self.tls.ca is None:
            for address in self.scheduler:
                refuse_exposed("scheduler", address, give="tls.ca")
        if (unsafe := self.telemetry.unsafe(tls=self.tls.certificate is not None)) is not None:
            raise ValueError(unsafe)
        return self

    @model_validator(mode="after")
    def _sleeps_to_take_turns(self) -> Self:
        settings = self.engine.vllm if self.engine.kind == "vllm" else self.engine.simulated
        if self.device_group.name and not settings.sleep_mode:
            raise ValueError(f"device_group.name: needs engine.{self.engine.kind}.sleep_mode")
        return self

    @property
    def name(self) -> str:
        """Return the instance's id: the configured one, else the machine's and the model's name joined.

        The id is the same after a restart.
        """
        if self.instance_id:
            return self.instance_id
        model = self.engine.model.name.rstrip("/").rsplit("/", 1)[-1]
        made = re.sub(r"[^A-Za-z0-9._:-]+", "-", f"{socket.gethostname()}-{model}").lstrip("._:-")
        return made[:128] or "executor"


def _parts(item: Any) -> list[Any]:
    return [part.strip() for part in item.split(",") if part.strip()] if isinstance(item, str) else [item]


def load(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> ExecutorConfig:
    """Return the configuration.  ``--help`` prints the flags and exits.

    Raises:
        ConfigError: a source cannot be read, or names an unknown key or a bad value.
    """
    return configuration.load(ExecutorConfig, PROGRAM, arguments, environment)


def load_or_exit(arguments: Sequence[str]) -> ExecutorConfig:
    """Return the configuration; if it is wrong, say why in one line on stderr and exit with status 2."""
    return configuration.load_or_exit(ExecutorConfig, PROGRAM, arguments)

"""The scheduler's configuration: one typed object, filled from flags, environment and a TOML file, checked once."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from sage_telemetry.settings import TelemetrySettings
from scheduler_svc.domain.admission import check_sampling
from scheduler_svc.domain.request import Sampling

ENV_PREFIX = "SAGE_SCHEDULER_"
CLIENTS_VARIABLE = "SAGE_SCHEDULER_ADDRESS"  # where clients find a scheduler; none of its own settings


class ConfigError(Exception):
    """One line that names the key at fault."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class TlsSection(_Section):
    certificate: Path | None = Field(default=None, description="PEM file of the server's certificate chain")
    private_key: Path | None = Field(default=None, description="PEM file of its private key")
    client_ca: Path | None = Field(
        default=None, description="PEM file; clients and executors must present a certificate of it"
    )

    @model_validator(mode="after")
    def _whole(self) -> TlsSection:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca needs certificate and private_key")
        return self


class QueueSection(_Section):
    limit_per_model: int = Field(default=10_000, ge=1, description="requests that may wait for one model")
    arriving_limit: int = Field(default=4_096, ge=1, description="submissions on their way through the door at once")
    default_deadline_s: float = Field(default=3_600.0, gt=0, description="seconds; for requests that name no deadline")
    orphan_timeout_s: float = Field(
        default=60.0, gt=0, description="seconds after which requests fail whose model no instance serves any more"
    )
    max_attempts: int = Field(default=5, ge=1, description="placements of one request before it fails")


class InstanceSection(_Section):
    lease_s: float = Field(default=5.0, gt=0, description="seconds of silence after which an instance is lost")
    heartbeat_interval_s: float = Field(default=0.5, gt=0, description="seconds between an executor's heartbeats")
    reconnect_grace_s: float = Field(default=0.3, ge=0, description="seconds a broken stream may take to come back")
    stall_limit_s: float = Field(
        default=10.0, gt=0, description="seconds without progress before a busy instance is stalled"
    )
    known_wait_limit_s: float = Field(default=60.0, gt=0, description="the same where the engine says why it waits")
    forget_after_s: float = Field(
        default=600.0, gt=0, description="seconds a lost instance, and a model without others, stays listed"
    )
    probation_s: float = Field(default=5.0, gt=0, description="seconds an instance rests that fails in a row")

    @model_validator(mode="after")
    def _in_time(self) -> InstanceSection:
        if 2 * self.heartbeat_interval_s > self.lease_s:
            raise ValueError(
                f"heartbeat_interval_s ({self.heartbeat_interval_s:g}) is more than half of lease_s ({self.lease_s:g}):"
                " every instance would be suspect between two heartbeats"
            )
        return self


class PdSeparationSection(_Section):
    enabled: bool = Field(default=False, description="split requests into a prefill and a decode leg")
    routing_policy: Literal["always", "threshold", "adaptive"] = Field(
        default="adaptive", description="which requests are split"
    )
    prefilling_threshold_input_tokens: int = Field(
        default=2_048, ge=1, description="threshold: split prompts of at least this many tokens"
    )
    prefilling_threshold_ratio: float = Field(
        default=4.0, gt=0, description="threshold: or this many times the predicted output"
    )


class RecordSection(_Section):
    requests: int = Field(default=2_000, ge=1, description="ended requests kept for explain and attach")
    output_tokens: int = Field(default=4_000_000, ge=1, description="output tokens kept with them")
    candidates: int = Field(default=200_000, ge=1, description="placement candidates kept with them")


ENDLESS_TOKENS = 2**31
"""Stands for the max_tokens that a model's defaults leave open."""

_SAMPLING = TypeAdapter(Sampling)
_SAMPLING_DEFAULTS = set(Sampling.__dataclass_fields__) - {"structured_output", "logit_bias"}


class ModelSection(_Section):
    sampling: dict[str, Any] = Field(default_factory=dict, description="sampling defaults")

    @field_validator("sampling")
    @classmethod
    def _known(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name not in _SAMPLING_DEFAULTS:
                there_are = ", ".join(sorted(_SAMPLING_DEFAULTS))
                raise ValueError(f"{name!r} is not a sampling field; there are: {there_are}")
        try:
            sampling = _SAMPLING.validate_python({"max_tokens": ENDLESS_TOKENS, **value})
        except ValidationError as error:
            raise ValueError(_one_line(error)) from error
        found = check_sampling(sampling, vocab_size=2**32)
        if found:
            raise ValueError("; ".join(f"{v.field.removeprefix('spec.sampling.')}: {v.description}" for v in found))
        return {name: getattr(sampling, name) for name in value}


class SchedulerConfig(BaseSettings):
    """Flags win over environment (SAGE_SCHEDULER_INSTANCE__LEASE_S), which wins over the file."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    listen: str = Field(default="127.0.0.1:50051", description="host:port to serve on; port 0 takes a free one")
    insecure: bool = Field(default=False, description="allow an address other than loopback without TLS")
    policy: str = Field(
        default="adaptive", description="fifo, priority, slo_aware, cost_optimized, adaptive, or an installed one"
    )
    drain_timeout_s: float = Field(default=30.0, ge=0, description="seconds running requests get to finish at SIGTERM")
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="least severe level logged"
    )
    log_format: Literal["text", "json"] = Field(default="text", description="lines for people, or JSON lines")
    tls: TlsSection = TlsSection()
    queue: QueueSection = QueueSection()
    instance: InstanceSection = InstanceSection()
    pd_separation: PdSeparationSection = PdSeparationSection()
    record: RecordSection = RecordSection()
    telemetry: TelemetrySettings = TelemetrySettings()
    models: dict[str, ModelSection] = Field(default_factory=dict, description="per model: sampling defaults")

    @field_validator("listen")
    @classmethod
    def _has_port(cls, value: str) -> str:
        port = value.rpartition(":")[2]
        if not value.startswith("unix:") and not (port.isdigit() and int(port) < 65_536 and ":" in value):
            raise ValueError(f"{value!r} is not host:port")
        return value

    @model_validator(mode="after")
    def _safe(self) -> SchedulerConfig:
        unsafe = self.telemetry.unsafe(tls=self.tls.certificate is not None)
        if unsafe is not None and not self.insecure:
            raise ValueError(unsafe)
        return self


def load(arguments: Sequence[str]) -> SchedulerConfig:
    """Raises ConfigError.  ``--help`` prints and exits."""
    rest, file = _config_flag(list(arguments))

    class Sources(SchedulerConfig):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            cli: CliSettingsSource[Any] = CliSettingsSource(
                settings_cls,
                cli_prog_name="python -m scheduler_svc",
                cli_parse_args=rest,
                cli_kebab_case=True,
                cli_implicit_flags=True,
                cli_avoid_json=True,
                cli_hide_none_type=True,
                cli_exit_on_error=False,
            )
            toml = TomlConfigSettingsSource(settings_cls, toml_file=file)
            return (cli, env_settings, toml) if file else (cli, env_settings)

    Sources.__doc__ = "SAGE scheduler. Also: --config FILE (TOML), environment SAGE_SCHEDULER_*."
    _check_environment()
    try:
        return Sources()
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from error
    except SettingsError as error:
        raise ConfigError(str(error)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"--config: {file}: {error}") from error


def _config_flag(arguments: list[str]) -> tuple[list[str], Path | None]:
    for index, argument in enumerate(arguments):
        if argument == "--config":
            if index + 1 == len(arguments):
                raise ConfigError("--config: needs a file")
            return arguments[:index] + arguments[index + 2 :], _existing(arguments[index + 1])
        if argument.startswith("--config="):
            return arguments[:index] + arguments[index + 1 :], _existing(argument.partition("=")[2])
    return arguments, None


def _existing(name: str) -> Path:
    path = Path(name)
    if not path.is_file():
        raise ConfigError(f"--config: no file {name}")
    return path


def _check_environment() -> None:
    """pydantic-settings passes over variables it does not know; a misspelt one must not."""
    known = {name.upper() for name in SchedulerConfig.model_fields}
    for variable in os.environ:
        if variable.upper().startswith(ENV_PREFIX):
            key = variable.upper().removeprefix(ENV_PREFIX).split("__")[0]
            if key not in known and variable.upper() != CLIENTS_VARIABLE:
                raise ConfigError(f"environment: {variable} is not a setting")


def _one_line(error: ValidationError) -> str:
    found = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"]) or "configuration"
        what = "unknown key" if problem["type"] == "extra_forbidden" else problem["msg"].removeprefix("Value error, ")
        found.append(f"{key}: {what}")
    return "; ".join(found)


def load_or_exit(arguments: Sequence[str]) -> SchedulerConfig:
    """For ``main``: one clear line and exit status 2."""
    try:
        return load(arguments)
    except ConfigError as error:
        print(f"sage-scheduler: configuration: {error}", file=sys.stderr)
        raise SystemExit(2) from None

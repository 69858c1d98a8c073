"""The executor's configuration: one typed object, filled from flags, environment and a TOML file, checked once."""

from __future__ import annotations

import os
import re
import socket
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
)

from executor_svc.engine.settings import EngineSettings
from executor_svc.transport.addresses import is_loopback
from sage_telemetry.settings import TelemetrySettings

ENV_PREFIX = "SAGE_EXECUTOR_"
INSTANCE_ID = r"[A-Za-z0-9][A-Za-z0-9._:-]{0,127}"
PROGRAM = "python -m executor_svc"


class ConfigError(Exception):
    """One line that names the key at fault."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class TlsSection(_Section):
    """TLS files.  With `ca` schedulers are dialled over TLS; with a certificate the listener serves TLS."""

    ca: Path | None = Field(default=None, description="PEM file that the scheduler's certificate is verified against.")
    certificate: Path | None = Field(
        default=None, description="PEM file of this executor's own certificate chain, shown to both sides."
    )
    private_key: Path | None = Field(default=None, description="PEM file of its private key.")

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key go together")
        return self


class LocationSection(_Section):
    """Where the instance stands in the world."""

    host: str = Field(default="", description="Default: this machine's name.")
    rack: str = Field(default="", description="Rack, by any name.")
    zone: str = Field(default="", description="Zone or site, by any name.")


class ExecutorConfig(BaseSettings):
    """One engine, offered to a SAGE scheduler.  Flags win over the environment (SAGE_EXECUTOR_ENGINE__KIND), which wins
    over the file."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    config: Path | None = Field(default=None, description="TOML file with any of these settings.")
    scheduler: Annotated[tuple[str, ...], NoDecode] = Field(
        default=("127.0.0.1:50051",),
        min_length=1,
        description="host:port of the scheduler; several (comma or repeated) are tried in turn.",
    )
    instance_id: str = Field(
        default="", description="Name of this instance, the same at every start.  Default: machine and model name."
    )
    role: Literal["general", "prefilling", "decoding", "hybrid", "embedding"] = Field(
        default="general", description="What the scheduler may give it."
    )
    labels: dict[str, str] = Field(default_factory=dict, description="Labels, as name=value.")
    price_per_hour: float = Field(
        default=0.0, ge=0.0, allow_inf_nan=False, description="Of the whole instance, in one currency per fleet."
    )
    listen: str = Field(default="127.0.0.1:0", description="host:port for health checks; port 0 takes a free one.")
    insecure: bool = Field(default=False, description="Allow addresses other than loopback without TLS.")
    drain_timeout_s: float = Field(
        default=60.0, ge=0.0, allow_inf_nan=False, description="Seconds running requests get to finish at SIGTERM."
    )
    max_held_attempts: int = Field(
        default=4_096, ge=1, le=1_000_000, description="Attempts held at once, unacknowledged ended ones included."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="Least severe level logged."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Lines for people, or JSON lines.")
    tls: TlsSection = TlsSection()
    location: LocationSection = LocationSection()
    telemetry: TelemetrySettings = TelemetrySettings()
    engine: EngineSettings = Field(description="The engine and its model.")

    @field_validator("scheduler", mode="before")
    @classmethod
    def _comma_separated(cls, value: Any) -> Any:
        if isinstance(value, str):
            value = [value]
        return [part for item in value for part in _parts(item)]

    @field_validator("scheduler")
    @classmethod
    def _have_ports(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for address in value:
            if not address.startswith("unix:") and not _has_port(address, least=1):
                raise ValueError(f"{address!r} is not host:port")
        return value

    @field_validator("listen")
    @classmethod
    def _has_port(cls, value: str) -> str:
        if not _has_port(value, least=0):
            raise ValueError(f"{value!r} is not host:port")
        return value

    @field_validator("instance_id")
    @classmethod
    def _well_formed(cls, value: str) -> str:
        if value and not re.fullmatch(INSTANCE_ID, value):
            raise ValueError(f"{value!r}: letters, digits and . _ : -, at most 128")
        return value

    @model_validator(mode="after")
    def _safe(self) -> Self:
        if self.insecure:
            return self
        if self.tls.certificate is None and not is_loopback(self.listen):
            raise ValueError(f"listen: {self.listen} is not loopback: give tls.certificate, or insecure")
        for address in self.scheduler:
            if self.tls.ca is None and not is_loopback(address):
                raise ValueError(f"scheduler: {address} is not loopback: give tls.ca, or insecure")
        if (unsafe := self.telemetry.unsafe(tls=self.tls.certificate is not None)) is not None:
            raise ValueError(unsafe)
        return self

    @property
    def name(self) -> str:
        """The instance's id, given or made of the machine and the model: stable over restarts either way."""
        if self.instance_id:
            return self.instance_id
        model = self.engine.model.name.rstrip("/").rsplit("/", 1)[-1]
        made = re.sub(r"[^A-Za-z0-9._:-]+", "-", f"{socket.gethostname()}-{model}").lstrip("._:-")
        return made[:128] or "executor"


def _parts(item: Any) -> list[Any]:
    return [part.strip() for part in item.split(",") if part.strip()] if isinstance(item, str) else [item]


def _has_port(address: str, *, least: int) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and port.isdigit() and least <= int(port) < 65_536


def load(arguments: Sequence[str], environment: Mapping[str, str] = os.environ) -> ExecutorConfig:
    """Raises ConfigError.  ``--help`` prints and exits."""
    _refuse_unknown(environment)
    file = _config_file(arguments, environment)

    class Sources(ExecutorConfig):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            sources = [_flags(settings_cls, arguments), _variables(settings_cls, environment)]
            return (*sources, *([TomlConfigSettingsSource(settings_cls, toml_file=file)] if file else []))

    Sources.__doc__ = ExecutorConfig.__doc__
    try:
        return Sources()  # type: ignore[call-arg]  # the sources fill it
    except ValidationError as error:
        raise ConfigError(_one_line(error)) from error
    except SettingsError as error:
        raise ConfigError(" ".join(str(error).split()).removeprefix("error parsing CLI: ")) from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{file}: {error}") from error


def _flags(settings_cls: type[BaseSettings], arguments: Sequence[str]) -> CliSettingsSource[Any]:
    flags: CliSettingsSource[Any] = CliSettingsSource(
        settings_cls,
        cli_prog_name=PROGRAM,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
        cli_shortcuts={"engine.model.model": "model"},
    )
    flags.root_parser.usage = f"{PROGRAM} --model MODEL [--scheduler HOST:PORT] [--engine.kind vllm|simulated] [...]"
    return flags(args=list(arguments))


def _variables(settings_cls: type[BaseSettings], environment: Mapping[str, str]) -> EnvSettingsSource:
    variables = EnvSettingsSource(settings_cls)
    variables.env_vars = {name.lower(): value for name, value in environment.items()}
    return variables


def _config_file(arguments: Sequence[str], environment: Mapping[str, str]) -> Path | None:
    name = environment.get(f"{ENV_PREFIX}CONFIG")
    for index, argument in enumerate(arguments):
        if argument == "--config" and index + 1 < len(arguments):
            name = arguments[index + 1]
        elif argument.startswith("--config="):
            name = argument.partition("=")[2]
    if name is None:
        return None
    if not Path(name).is_file():
        raise ConfigError(f"config: there is no file {name}")
    return Path(name)


def _refuse_unknown(environment: Mapping[str, str]) -> None:
    """The library passes over top-level variables it does not know; a misspelt one must not be passed over."""
    for variable in environment:
        if variable.upper().startswith(ENV_PREFIX):
            key = variable.upper().removeprefix(ENV_PREFIX).split("__")[0].lower()
            if key not in ExecutorConfig.model_fields:
                raise ConfigError(f"environment: {variable} is not a setting")


def _one_line(error: ValidationError) -> str:
    problems = [_problem(problem["loc"], problem["type"], problem["msg"]) for problem in error.errors()]
    return "; ".join(dict.fromkeys(problems))


def _problem(where: tuple[int | str, ...], kind: str, message: str) -> str:
    key = ".".join(str(part) for part in where)
    if kind == "missing" and key in ("engine", "engine.model", "engine.model.model"):
        return "engine.model.model: is required (--model)"
    if kind == "missing":
        message = "is required"
    elif kind == "extra_forbidden":
        message = "unknown key"
    message = message.removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def load_or_exit(arguments: Sequence[str]) -> ExecutorConfig:
    """For ``main``: one clear line and exit status 2."""
    try:
        return load(arguments)
    except ConfigError as error:
        print(f"sage-executor: configuration: {error}", file=sys.stderr)
        raise SystemExit(2) from None

"""A service's configuration: flags, environment variables and a TOML file fill one typed object, checked once at start.

Flags win over the environment, which wins over the file.  Whatever is wrong is one sentence that names the key.
"""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_settings import (
    BaseSettings,
    CliSettingsSource,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

BAD_CONFIGURATION = 2
"""Exit status of a service whose configuration is wrong: starting it again does not help."""


class ConfigError(Exception):
    """The configuration is wrong: one sentence that names the key at fault."""


class Section(BaseModel):
    """A table of the configuration file.  An unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ServiceConfig(BaseSettings):
    """Base of a service's configuration.  A subclass adds ``env_prefix`` to ``model_config``, and its settings."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    config: Path | None = Field(default=None, exclude=True, description="TOML file with any of these settings.")


Config = TypeVar("Config", bound=ServiceConfig)


@dataclass(frozen=True, kw_only=True, slots=True)
class Program:
    """The names that a service's command line and messages use."""

    name: str  # at the start of an error message: sage-scheduler
    command: str  # in --help: python -m scheduler_svc
    usage: str | None = None  # first line of --help; None: a list of all flags
    shortcuts: Mapping[str, str] = field(default_factory=dict)  # key of a setting -> its flag, without dashes
    foreign_variables: frozenset[str] = frozenset()  # variables that have the prefix and are not settings, upper case


def load(
    config_class: type[Config], program: Program, arguments: Sequence[str], environment: Mapping[str, str]
) -> Config:
    """Return the configuration.  ``--help`` prints the flags and exits.

    Raises:
        ConfigError: a source cannot be read, or names an unknown key or a bad value.
    """

    class Sources(config_class):  # type: ignore[misc, valid-type]  # the base class is an argument
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            flags = _flags(settings_cls, program, arguments)
            variables = _variables(settings_cls, environment)
            name = flags().get("config", variables().get("config"))
            return flags, variables, InitSettingsSource(settings_cls, {} if name is None else _read(name))

    Sources.__doc__ = inspect.getdoc(config_class)
    _refuse_unknown_variables(config_class, program, environment)
    try:
        loaded: Config = Sources()
    except ValidationError as error:
        raise ConfigError(in_one_line(error, program.shortcuts)) from error
    except SettingsError as error:
        raise ConfigError(_unparsable(error)) from error
    return loaded


def load_or_exit(config_class: type[Config], program: Program, arguments: Sequence[str]) -> Config:
    """Return the configuration from ``arguments`` and the process's environment; exit with status 2 if it is wrong."""
    try:
        return load(config_class, program, arguments, os.environ)
    except ConfigError as error:
        exit_for(error, program)


def exit_for(error: Exception, program: Program) -> NoReturn:
    """Print one line on stderr that says what is wrong with the configuration, and exit with status 2."""
    for handler in logging.getLogger().handlers:
        handler.flush()  # the line is to be the last one
    print(f"{program.name}: configuration: {error}", file=sys.stderr)
    raise SystemExit(BAD_CONFIGURATION) from None


def in_one_line(error: ValidationError, shortcuts: Mapping[str, str] | None = None) -> str:
    """Name every key at fault and what is wrong with it: ``queue.limit: unknown key; listen: ...``."""
    problems = [_problem(one["loc"], one["type"], one["msg"], shortcuts or {}) for one in error.errors()]
    return "; ".join(dict.fromkeys(problems))


def _unparsable(error: SettingsError) -> str:
    message = " ".join(str(error).split()).removeprefix("error parsing CLI: ")
    message = re.sub(r"argument (\S+)/(--no-\S+): ignored explicit argument .*", r"\1 takes no value; off: \2", message)
    return re.sub(r'error parsing value for field "(.+)" from source "\w+"', r"\1: is not JSON", message)


def _problem(where: tuple[int | str, ...], kind: str, message: str, shortcuts: Mapping[str, str]) -> str:
    key = ".".join(str(part) for part in where)
    if kind == "missing":
        return _missing(key, shortcuts)
    if kind == "extra_forbidden":
        message = "unknown key"
    message = message.removeprefix("Value error, ")
    return f"{key}: {message}" if key else message


def _missing(key: str, shortcuts: Mapping[str, str]) -> str:
    """Name the flag to give, even if the whole section of its setting is missing."""
    for long, short in shortcuts.items():
        if f"{long}.".startswith(f"{key}."):
            return f"{long}: is required (--{short})"
    return f"{key}: is required"


def _flags(settings_class: type[BaseSettings], program: Program, arguments: Sequence[str]) -> CliSettingsSource[Any]:
    flags: CliSettingsSource[Any] = CliSettingsSource(
        settings_class,
        cli_prog_name=program.command,
        cli_kebab_case=True,
        cli_implicit_flags=True,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_exit_on_error=False,
        cli_shortcuts=dict(program.shortcuts),
    )
    if program.usage is not None:
        flags.root_parser.usage = program.usage
    return flags(args=list(arguments))


def _variables(settings_class: type[BaseSettings], environment: Mapping[str, str]) -> EnvSettingsSource:
    variables = EnvSettingsSource(settings_class)
    variables.env_vars = {name.lower(): value for name, value in environment.items()}
    return variables


def _refuse_unknown_variables(
    config_class: type[ServiceConfig], program: Program, environment: Mapping[str, str]
) -> None:
    """Refuse a misspelt variable, because pydantic-settings ignores one whose first part is not a setting."""
    prefix = config_class.model_config.get("env_prefix", "").upper()
    for variable in environment:
        name = variable.upper()
        if name.startswith(prefix) and name not in program.foreign_variables:
            key = name.removeprefix(prefix).split("__")[0].lower()
            if key not in config_class.model_fields:
                raise ConfigError(f"environment: {variable} is not a setting")


def _read(name: str) -> dict[str, Any]:
    """Return the settings of a TOML file.  Raises ConfigError."""
    try:
        with open(name, encoding="utf-8") as file:
            found = tomllib.loads(file.read())
    except OSError as error:
        raise ConfigError(f"config: cannot read {name!r}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config: {name!r} is not UTF-8 text: {error.reason} at byte {error.start}") from error
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"config: {name!r} is not TOML: {error}") from error
    except ValueError as error:  # a name that no file can have
        raise ConfigError(f"config: cannot read {name!r}: {error}") from error
    if "config" in found:
        raise ConfigError(f"config: {name!r} names another file; one file holds all settings")
    return found

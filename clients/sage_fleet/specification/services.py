"""The sections of a fleet's scheduler and its HTTP gateway."""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, JsonValue, field_validator, model_validator

from sage_common.addresses import check_address, refuse_exposed
from sage_common.configuration import Section


class TlsSection(Section):
    """PEM files of the scheduler's TLS, and of what its callers trust."""

    ca: Path = Field(description="Certificate of the authority that signed the scheduler's certificate.")
    certificate: Path = Field(description="Certificate chain of the scheduler.")
    private_key: Path = Field(description="Private key of the certificate.")


class AccessSection(Section):
    """Identities: the scheduler's keys file, and a file with a token for each of its callers."""

    keys_file: Path = Field(description="The scheduler's keys file, as `sagectl keys add` writes it.")
    executor_token_file: Path = Field(description="Token of the executors.")
    gateway_token_file: Path | None = Field(default=None, description="Token of the HTTP gateway.")
    operator_token_file: Path = Field(description="Token with which this fleet asks for instances and their number.")


class SchedulerSection(Section):
    """The scheduler of a fleet."""

    address: str = Field(
        default="127.0.0.1:50051", description="host:port that it listens on, and that executors and clients dial."
    )
    policy: str = Field(default="adaptive", min_length=1, description="Scheduling policy.")
    standby: bool = Field(default=False, description="A second scheduler, which leads when the first one dies.")
    journal: str = Field(default="", description="URL of its PostgreSQL database.  Default: SQLite, in its directory.")
    settings: dict[str, JsonValue] = Field(
        default_factory=dict, description="Further settings by their keys: {queue: {limit_per_model: 500}} ..."
    )
    tls: TlsSection | None = Field(default=None, description="TLS of every connection to it.  Default: none.")
    access: AccessSection | None = Field(default=None, description="Identities of its callers.  Default: none.")
    insecure: bool = Field(
        default=False, description="Allow an address that other machines can reach to be used without TLS."
    )

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        check_address(value, lowest_port=1)
        return value

    @model_validator(mode="after")
    def _tokens_need_tls(self) -> Self:
        if self.access is not None and self.tls is None:
            raise ValueError("access without tls: tokens are sent over TLS only")
        return self

    @model_validator(mode="after")
    def _is_safe(self) -> Self:
        if self.tls is None and not self.insecure:
            refuse_exposed("address", self.address, give="tls")
        return self


class GatewaySection(Section):
    """The HTTP gateway of a fleet."""

    address: str = Field(description="host:port that it serves OpenAI's API on.  On Kubernetes its port is 80 or 443.")
    replicas: int = Field(default=2, ge=1, le=1_000, description="Number of gateways on Kubernetes; else there is one.")

    @field_validator("address")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        check_address(value, lowest_port=1)
        return value

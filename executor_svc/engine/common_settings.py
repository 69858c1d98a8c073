"""Settings that both engines have.  Unknown keys are errors."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, Field, field_validator

from sage_common.configuration import Section

KV_CONNECTORS = ("NixlConnector",)
"""KV connectors that can be configured, by vLLM's names.  ``engine/vllm/kv_connectors`` has a file for each."""


class SettingsSection(Section):
    """Base of all engine settings, whose names may begin with ``model_``."""

    model_config = ConfigDict(protected_namespaces=())


class ModelSettings(SettingsSection):
    """Which model, and where its files are kept."""

    model: str = Field(
        min_length=1,
        description="Hub id ('org/name') or path of a local directory.  A simulated engine takes any name.",
    )
    served_name: str | None = Field(
        default=None, min_length=1, description="Name that clients ask for.  Default: `model` as given."
    )
    revision: str | None = Field(
        default=None,
        min_length=1,
        description="Branch, tag or commit of a hub model; only a commit never changes.  Not for local paths.  Of a "
        "simulated engine: other tokens for each.",
    )
    cache_dir: Path | None = Field(
        default=None, description="Directory to keep downloads in.  Default: the hub library's own cache."
    )
    tokenizer: str | None = Field(
        default=None,
        min_length=1,
        description="Hub id or path of another tokenizer.  Default: the model's own.",
    )
    tokenizer_revision: str | None = Field(
        default=None, min_length=1, description="Branch, tag or commit of a hub tokenizer."
    )
    chat_template: Path | None = Field(
        default=None, description="File with a Jinja chat template used instead of the model's own."
    )
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that ships with the model.  Only for models you trust."
    )

    @property
    def name(self) -> str:
        """Model name that clients ask for."""
        return self.served_name or self.model


class KvTransferSettings(SettingsSection):
    """Transfer of a prompt's KV from one engine to another.  Off without a connector."""

    connector: str = Field(
        default="",
        description="vLLM's name of the KV connector: NixlConnector.  Engines with the same connector can fetch KV "
        "from each other.  Default: none, no KV is transferred.",
    )
    side_channel_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="Address of this machine that other engines fetch KV from.  The traffic is neither encrypted nor "
        "authenticated: use loopback, or an address in a private network.",
    )
    side_channel_port: int = Field(
        default=0, ge=0, le=65_535, description="Port that other engines fetch KV from; 0 picks a free port."
    )
    lease_s: float = Field(
        default=30.0,
        gt=0.0,
        le=3_600.0,
        description="Seconds that a prompt's KV is kept for another engine to fetch.",
    )
    load_failure_policy: Literal["recompute", "fail"] = Field(
        default="recompute",
        description="What to do when a prompt's KV cannot be fetched: compute it here, or fail the request.",
    )
    extra: dict[str, Any] = Field(
        default_factory=dict, description="Further options of the connector, under its own names."
    )

    @field_validator("connector")
    @classmethod
    def _known(cls, value: str) -> str:
        if value and value not in KV_CONNECTORS:
            raise ValueError(f"unknown KV connector {value!r}; there are: {', '.join(KV_CONNECTORS)}")
        return value

    @field_validator("side_channel_host")
    @classmethod
    def _one_address(cls, value: str) -> str:
        if value in ("0.0.0.0", "::", "*"):
            raise ValueError(f"{value!r} is not an address that another engine can connect to")
        return value

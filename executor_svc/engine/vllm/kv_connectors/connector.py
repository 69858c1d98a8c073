"""The port to one of vLLM's KV connectors, as plain data: vLLM is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from executor_svc.engine.common_settings import KvTransferSettings
from executor_svc.runtime.engine_port import JsonValue


class UnusableParams(Exception):
    """Transfer parameters that would crash the connector.  The message continues a sentence: "the handoff ..."."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KvLayout:
    """The properties of an engine that decide whether another one can read its KV."""

    engine_version: str
    model: str  # directory, as the engine's configuration names it
    weights: str  # fingerprint of the model's files
    dtype: str
    cache_dtype: str
    block_size: int  # tokens
    kv_heads: int  # of all ranks together
    head_size: int
    layers: int
    tensor_parallel_size: int
    pipeline_parallel_size: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Pull:
    """A prompt's KV that is to be fetched."""

    params: Mapping[str, JsonValue]  # kv_transfer_params for vLLM
    peer: str  # id of the engine that keeps the KV
    tokens: int  # prompt tokens whose KV is here after the pull, cached ones included
    cached_tokens: int | None  # prompt tokens that the other engine found in its prefix cache; None if unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferCounts:
    """The increments of the engine's counters from one report of the connector."""

    pulls: int = 0
    failed: int = 0  # pulls that failed, and failed first contacts with a peer
    notices_failed: int = 0  # notices that did not reach their peer
    expired: int = 0  # prompts whose KV was kept and not fetched in time


class KvConnector(Protocol):
    """One of vLLM's KV connectors."""

    name: str

    def refuse_missing(self) -> None:
        """Raise ModelError that says what to install, if the connector's library is missing."""
        ...

    def config(self, settings: KvTransferSettings, device: str) -> dict[str, Any]:
        """Return the arguments of vLLM's KVTransferConfig.  ``device``: cpu, cuda, ...  Raises ModelError."""
        ...

    def environment(self, settings: KvTransferSettings, port: int) -> dict[str, str]:
        """Return environment variables to set before vLLM starts.  ``port``: the side channel's."""
        ...

    def compatibility_key(self, layout: KvLayout, settings: KvTransferSettings) -> str:
        """Return a key that is equal for engines that can fetch KV from each other."""
        ...

    def prefill_params(self) -> dict[str, JsonValue]:
        """Return transfer parameters for a prefill, whose KV is kept for another engine."""
        ...

    def check(self, params: Mapping[str, JsonValue]) -> None:
        """Raise UnusableParams for parameters that would crash the engine."""
        ...

    def pull(self, params: Mapping[str, JsonValue], prompt_tokens: int, block_size: int) -> Pull:
        """Return the pull of a prompt of ``prompt_tokens`` tokens by these parameters.

        Raises UnusableParams as ``check`` does, and for parameters of a shorter prompt.
        """
        ...

    def peer(self, params: Mapping[str, JsonValue]) -> str:
        """Return the id of the engine that keeps the KV; the same in all of its handoffs."""
        ...

    def counts(self, report: Mapping[str, Any]) -> TransferCounts:
        """Return the counts in a report of the connector's statistics, as vLLM passes it on."""
        ...

"""What the executor has to know of one of vLLM's KV connectors.  Plain data: vLLM is not imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from executor_svc.engine.common_settings import KvTransferSettings
from executor_svc.runtime.engine_port import JsonValue


class UnusableParams(Exception):
    """Transfer parameters that would bring the connector down; the message is the end of a sentence."""


@dataclass(frozen=True, kw_only=True, slots=True)
class KvLayout:
    """The properties of an engine that decide whether another one can read its KV."""

    engine_version: str
    model: str  # as the engine was given it: a directory
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
    """A prompt's KV to be fetched."""

    params: Mapping[str, JsonValue]  # what the engine is given
    peer: str  # the engine it is fetched from
    tokens: int  # prompt tokens whose KV is here after the pull, cached ones included
    cached_tokens: int | None  # prompt tokens that the other engine found in its prefix cache, if it says


@dataclass(frozen=True, kw_only=True, slots=True)
class TransferCounts:
    """The increments of the engine's counters from one report of the connector."""

    pulls: int = 0
    failed: int = 0  # pulls that came to nothing, the first contact with a peer included
    unnoticed: int = 0  # notices that did not reach their peer
    expired: int = 0  # prompts that were kept and not fetched in time


class KvConnector(Protocol):
    """One of vLLM's KV connectors."""

    name: str

    def refuse_missing(self) -> None:
        """Raise ModelError saying what to install, if the connector's library is not there."""
        ...

    def config(self, settings: KvTransferSettings, device: str) -> dict[str, Any]:
        """Return the arguments of vLLM's KVTransferConfig.  ``device``: cpu, cuda, ...  Raises ModelError."""
        ...

    def environment(self, settings: KvTransferSettings, port: int) -> dict[str, str]:
        """Return variables to be set before vLLM starts; ``port`` is the side channel's."""
        ...

    def compatibility_key(self, layout: KvLayout, settings: KvTransferSettings) -> str:
        """Return a key that is equal for engines that can hand over to each other."""
        ...

    def prefill_params(self) -> dict[str, JsonValue]:
        """Return transfer parameters of a request whose KV is kept for another engine."""
        ...

    def check(self, params: Mapping[str, JsonValue]) -> None:
        """Raise UnusableParams for parameters that would bring the engine down."""
        ...

    def pull(self, params: Mapping[str, JsonValue], prompt_tokens: int, block_size: int) -> Pull:
        """Return what fetching a prompt by these parameters comes to.

        Raises UnusableParams as ``check`` does, and for parameters of a shorter prompt.
        """
        ...

    def peer(self, params: Mapping[str, JsonValue]) -> str:
        """Return the engine that keeps the KV, by a name that is the same in all of its handoffs."""
        ...

    def counts(self, report: Mapping[str, Any]) -> TransferCounts:
        """Read a report of the connector's statistics as vLLM passes it on."""
        ...

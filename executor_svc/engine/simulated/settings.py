"""What an operator configures about a simulated engine.  Unknown keys are errors; every field says its unit."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from executor_svc.engine.common_settings import KvTransferSettings, SettingsSection
from executor_svc.engine.simulated.faults import Fault, FaultKind


class FaultSettings(SettingsSection):
    """A fault the simulated engine has from its start."""

    kind: Literal["none", "die", "hang", "slow", "error", "kv_connect", "kv_slow", "kv_corrupt"] = Field(
        default="none", description="What goes wrong."
    )
    after_tokens: int = Field(default=0, ge=0, description="Tokens generated before it starts.")
    factor: float = Field(
        default=10.0, gt=0.0, description="slow, kv_slow: how many times longer a step or pull takes."
    )
    times: int = Field(default=1, ge=1, description="error, kv_connect, kv_corrupt: requests it happens to.")

    def fault(self) -> Fault | None:
        """Return the configured fault; None if there is none."""
        if self.kind == "none":
            return None
        return Fault(kind=FaultKind(self.kind), after_tokens=self.after_tokens, factor=self.factor, times=self.times)


class SimulatedKvTransferSettings(KvTransferSettings):
    """A modelled transfer between simulated engines.

    It takes ``handshake_s`` once per peer, then ``pull_base_s + tokens * bytes_per_token / bandwidth_bytes_per_s``.
    """

    handshake_s: float = Field(default=0.5, ge=0.0, description="Seconds of the first contact with another engine.")
    pull_base_s: float = Field(default=0.025, ge=0.0, description="Seconds of a pull, however short the prompt.")
    bytes_per_token: int = Field(default=114_688, ge=1, description="Bytes of KV per token.")
    bandwidth_bytes_per_s: float = Field(default=10e9, gt=0.0, description="Bytes per second of each pull.")


class SimulatedSettings(SettingsSection):
    """A simulated engine: real batching and KV bookkeeping, made-up tokens, modelled time.

    One step takes ``step_base_s + step_per_sequence_s * decoding sequences + prefill tokens /
    prefill_tokens_per_s``.
    """

    prefill_tokens_per_s: float = Field(default=20_000.0, gt=0.0, description="Prompt tokens per second.")
    step_base_s: float = Field(default=0.005, ge=0.0, description="Seconds of a step, whatever is in it.")
    step_per_sequence_s: float = Field(default=0.0002, ge=0.0, description="Seconds per decoding sequence.")
    kv_capacity_tokens: int = Field(default=65_536, ge=16, description="Tokens the KV cache holds.")
    kv_block_size: int = Field(default=16, ge=1, description="Tokens of one KV block.")
    max_running: int = Field(default=64, ge=1, description="Sequences run at once.")
    max_waiting: int = Field(default=10_000, ge=1, description="Requests that may wait inside; more are refused.")
    max_batched_tokens: int = Field(default=2_048, ge=1, description="Tokens of one step: the prefill chunk.")
    max_model_len: int = Field(default=8_192, ge=2, description="Tokens of prompt and output together.")
    vocab_size: int = Field(default=2_048, ge=512, le=32_768, description="Token ids are below this.")
    mean_output_tokens: int = Field(
        default=256, ge=2, description="Mean length of an answer that nothing cuts short, in tokens."
    )
    max_logprobs: int = Field(default=20, ge=0, description="Top logprobs a request may ask for.")
    load_s: float = Field(default=0.0, ge=0.0, description="Seconds spent downloading, loading and warming up.")
    adapters: tuple[str, ...] = Field(default=(), description="Names of LoRA adapters it pretends to have.")
    kv_transfer: SimulatedKvTransferSettings = Field(
        default_factory=SimulatedKvTransferSettings, description="Handing KV over between simulated engines."
    )
    fault: FaultSettings = Field(default_factory=FaultSettings, description="A fault it has from its start.")

    @model_validator(mode="after")
    def _one_request_must_fit(self) -> Self:
        whole_blocks = self.kv_capacity_tokens // self.kv_block_size * self.kv_block_size
        if whole_blocks < self.max_model_len:
            raise ValueError(
                f"kv_capacity_tokens ({self.kv_capacity_tokens}, {whole_blocks} in whole blocks) must hold "
                f"one request of max_model_len ({self.max_model_len}) tokens"
            )
        if self.max_batched_tokens < self.max_running:
            raise ValueError(
                f"max_batched_tokens ({self.max_batched_tokens}) must be at least max_running "
                f"({self.max_running}): each running sequence decodes one token per step"
            )
        return self

"""The settings of a simulated engine.  Unknown keys are errors."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from executor_svc.engine.common_settings import KvTransferSettings, SettingsSection
from executor_svc.engine.simulated.faults import Fault, FaultKind


class FaultSettings(SettingsSection):
    """A fault that the simulated engine has from its start."""

    kind: Literal["none", "die", "hang", "slow", "error", "kv_connect", "kv_slow", "kv_corrupt"] = Field(
        default="none", description="Kind of fault."
    )
    after_tokens: int = Field(default=0, ge=0, description="Tokens generated before the fault begins.")
    factor: float = Field(
        default=10.0, gt=0.0, description="slow, kv_slow: how many times longer a step or pull takes."
    )
    times: int = Field(default=1, ge=1, description="error, kv_connect, kv_corrupt: number of requests that fail.")

    def fault(self) -> Fault | None:
        """Return the configured fault; None if there is none."""
        if self.kind == "none":
            return None
        return Fault(kind=FaultKind(self.kind), after_tokens=self.after_tokens, factor=self.factor, times=self.times)


class SimulatedKvTransferSettings(KvTransferSettings):
    """A modelled KV transfer between simulated engines.

    The transfer takes ``handshake_s`` once per peer, then ``pull_base_s + tokens * bytes_per_token /
    bandwidth_bytes_per_s``.
    """

    handshake_s: float = Field(
        default=0.5, ge=0.0, description="Seconds that the first contact with another engine takes."
    )
    pull_base_s: float = Field(
        default=0.025, ge=0.0, description="Seconds that every pull takes, however short the prompt."
    )
    bytes_per_token: int = Field(default=114_688, ge=1, description="Bytes of KV per token.")
    bandwidth_bytes_per_s: float = Field(default=10e9, gt=0.0, description="Bytes per second of each pull.")


class SimulatedSettings(SettingsSection):
    """A simulated engine: real batching and KV bookkeeping, made-up tokens, modelled time.

    One step takes ``step_base_s + step_per_sequence_s * decoding sequences + prefill tokens /
    prefill_tokens_per_s``.
    """

    prefill_tokens_per_s: float = Field(default=20_000.0, gt=0.0, description="Prompt tokens computed per second.")
    step_base_s: float = Field(
        default=0.005, ge=0.0, description="Seconds that every step takes, whatever it computes."
    )
    step_per_sequence_s: float = Field(
        default=0.0002, ge=0.0, description="Seconds that each decoding sequence adds to a step."
    )
    kv_capacity_tokens: int = Field(default=65_536, ge=16, description="Size of the KV cache in tokens.")
    kv_block_size: int = Field(default=16, ge=1, description="Tokens of one KV block.")
    max_running: int = Field(default=64, ge=1, description="Most sequences that run at once.")
    max_waiting: int = Field(
        default=10_000, ge=1, description="Most requests that wait in the engine; further ones are refused."
    )
    max_batched_tokens: int = Field(
        default=2_048, ge=1, description="Most tokens computed in one step; longer prompts take several."
    )
    max_model_len: int = Field(default=8_192, ge=2, description="Most tokens of a prompt and its output together.")
    vocab_size: int = Field(default=2_048, ge=512, le=32_768, description="Number of token ids.")
    mean_output_tokens: int = Field(
        default=256, ge=2, description="Mean length in tokens of outputs that end by themselves."
    )
    max_logprobs: int = Field(default=20, ge=0, description="Most top logprobs a request may ask for.")
    load_s: float = Field(
        default=0.0, ge=0.0, description="Seconds that the start takes: the modelled download, load and warm-up."
    )
    adapters: tuple[str, ...] = Field(default=(), description="Names of LoRA adapters that requests may ask for.")
    adapter_slots: int = Field(
        default=0,
        ge=0,
        le=1_024,
        description="LoRA adapters that operators may add while the engine runs, beside those in adapters.  0: none.",
    )
    adapter_rank: int = Field(default=16, ge=1, description="Largest rank of a LoRA adapter that is added.")
    adapter_load_s: float = Field(default=0.0, ge=0.0, description="Seconds that loading an adapter takes.")
    sleep_mode: bool = Field(
        default=False, description="Let the engine sleep: others have the memory of its device meanwhile."
    )
    sleep_s: float = Field(default=1.0, ge=0.0, description="Seconds that falling asleep takes.")
    wake_s: float = Field(default=0.5, ge=0.0, description="Seconds that waking up takes.")
    output_history: bool = Field(
        default=True,
        description="Continue requests of lost instances from their delivered tokens as output; off, requests with a "
        "seed, penalties or a constraint are replayed.",
    )
    kv_transfer: SimulatedKvTransferSettings = Field(
        default_factory=SimulatedKvTransferSettings,
        description="Transfer of a prompt's KV between simulated engines.",
    )
    fault: FaultSettings = Field(
        default_factory=FaultSettings, description="A fault that the engine has from its start."
    )

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

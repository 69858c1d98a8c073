"""What an engine is asked to run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from executor_svc.runtime.engine_port.sampling import Sampling
from sage_media.kinds import MediaKind

JsonValue = None | bool | int | float | str | list["JsonValue"] | dict[str, "JsonValue"]


@dataclass(frozen=True, kw_only=True, slots=True)
class EmbeddingOptions:
    """How a prompt becomes a vector."""

    dimensions: int | None = None  # length of the vector; None: the model's own
    normalize: bool = False  # scale it to length 1; False: as the model is configured
    raw: bool = False  # leave out the model's last step, such as scaling to length 1 or the sigmoid of a score


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineMedia:
    """An image or an audio clip of a prompt, as its caller sent it."""

    kind: MediaKind = MediaKind.IMAGE
    data: bytes = field(repr=False)
    digest: str  # SHA-256 of the data, hex: by it the engine knows one that it had before


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineRequest:
    """One run of the engine."""

    engine_request_id: str  # unique for the engine's life: "<request>/<attempt>"
    prompt_token_ids: Sequence[int]
    sampling: Sampling
    priority: int = 0  # lower = sooner
    trace_headers: Mapping[str, str] | None = None  # W3C traceparent, tracestate
    adapter: str | None = None  # LoRA adapter by its configured name
    prefill_only: bool = False  # keep the prompt's KV for another engine; the last output says how to fetch it
    kv_transfer_params: Mapping[str, JsonValue] | None = None  # fetch the prompt's KV: another engine's last output
    output_history: Sequence[int] = ()  # output tokens delivered before: the run goes on after them and counts them
    embedding: EmbeddingOptions | None = None  # make a vector of the prompt, and generate nothing
    media: Sequence[EngineMedia] = ()  # one for each placeholder of its kind in the prompt, in order
    media_tokens: int = 0  # most tokens that they take beside their placeholders

    @property
    def prompt_tokens(self) -> int:
        """Length of the prompt; with images or audio, the most that it can have."""
        return len(self.prompt_token_ids) + self.media_tokens

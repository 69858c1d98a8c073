"""What a simulated engine answers, asked directly: no scheduler, no executor, no time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.engine.simulated.tokenizer import LEAD_BYTE_ID, tokenizer_for
from executor_svc.runtime.engine_port import EngineRequest, EngineState, FinishReason, Sampling, TokenLogprob
from tests.support.instant_clock import InstantClock

ENDLESS = SimulatedSettings(mean_output_tokens=1_000_000)
"""An engine whose answers run to max_tokens unless something else ends them."""

VOCAB_SIZE = ENDLESS.vocab_size


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    token_ids: tuple[int, ...]
    text: str  # the token that stopped generation left out
    finish_reason: FinishReason
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token when asked for


def encode(text: str) -> list[int]:
    """The prompt's token ids."""
    return list(tokenizer_for(VOCAB_SIZE).encode(text, add_special_tokens=True).ids)


def decode(token_ids: Sequence[int]) -> str:
    """Their text; half a letter at the very end is left out."""
    if token_ids and token_ids[-1] == LEAD_BYTE_ID:
        token_ids = token_ids[:-1]
    return str(tokenizer_for(VOCAB_SIZE).decode(list(token_ids), skip_special_tokens=True))


async def answer(
    prompt: str | Sequence[int],
    sampling: Sampling,
    *,
    model: str = "sim",
    revision: str | None = None,
    adapter: str | None = None,
    settings: SimulatedSettings = ENDLESS,
) -> Answer:
    """The whole, uninterrupted answer of an engine that serves ``model``."""
    if adapter is not None:
        settings = settings.model_copy(update={"adapters": (adapter,)})
    factory = SimulatedEngineFactory(ModelSettings(model=model, revision=revision), settings, InstantClock())
    engine = await factory.start(_ignore)
    request = EngineRequest(
        engine_request_id="direct/1",
        prompt_token_ids=encode(prompt) if isinstance(prompt, str) else list(prompt),
        sampling=sampling,
        adapter=adapter,
    )
    token_ids: list[int] = []
    logprobs: list[tuple[TokenLogprob, ...]] = []
    try:
        async for output in engine.generate(request):
            token_ids += output.token_ids
            logprobs += [tuple(row) for row in output.logprobs or ()]
            last = output
    finally:
        await engine.shutdown()
    assert last.finish_reason is not None
    shown = token_ids if last.stop_token_id is None else token_ids[:-1]
    return Answer(
        token_ids=tuple(token_ids),
        text=decode(shown),
        finish_reason=last.finish_reason,
        logprobs=tuple(logprobs),
    )


def _ignore(state: EngineState, fraction: float | None, message: str) -> None: ...

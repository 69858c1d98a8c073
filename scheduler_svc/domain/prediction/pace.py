"""How fast an engine is."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.engine_facts import EngineFacts


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Coefficients of an engine's speed.

    One iteration takes base + prefill tokens x a + running sequences x b + KV tokens in use x c.

    A prompt of p tokens is prefilled in ceil(p / chunk) iterations; each later token costs one iteration.
    """

    base_s: float  # seconds of an iteration whatever it does
    prefill_token_s: float  # seconds per prefilled token
    running_s: float  # seconds per running sequence
    kv_token_s: float  # seconds per token of KV cache in use

    def iteration_s(self, prefill_tokens: float, running: float, kv_used_tokens: float) -> float:
        """Predict seconds of one iteration."""
        return (
            self.base_s
            + self.prefill_token_s * prefill_tokens
            + self.running_s * running
            + self.kv_token_s * kv_used_tokens
        )

    def service_s(self, prompt_tokens: int, output_tokens: int, running: float = 1.0) -> float:
        """Predict seconds from the start of prefill to the last token, beside ``running`` sequences of equal size."""
        kv = running * (prompt_tokens + output_tokens / 2)
        first = self.iteration_s(prompt_tokens, running, kv)
        return first + max(0, output_tokens - 1) * self.iteration_s(0, running, kv)


GPU_PRIOR = Pace(base_s=8e-3, prefill_token_s=5e-5, running_s=5e-5, kv_token_s=5e-9)
CPU_PRIOR = Pace(base_s=1e-2, prefill_token_s=2e-4, running_s=1e-3, kv_token_s=1e-8)


def prior_pace(facts: EngineFacts) -> Pace:
    """Return the pace assumed of an engine before it has reported an iteration."""
    return GPU_PRIOR if facts.parallelism.gpu_count > 0 else CPU_PRIOR

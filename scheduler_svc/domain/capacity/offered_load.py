"""What the requests of a model ask for per second."""

from __future__ import annotations

from math import exp

from scheduler_svc.domain.capacity.account import Account

#: Seconds over which the load is averaged: a request weighs 1/e of a new one after that.
MEMORY_S = 10.0
_FIRST_S = 1.0  # the first requests count as the load of one second


class OfferedLoad:
    """Averages the tokens that arriving requests ask for: of prompts, of outputs, and of context read for them."""

    __slots__ = ("_at", "_context", "_output", "_prompt", "_since")

    def __init__(self) -> None:
        self._since = self._at = float("-inf")  # of the first and of the last request
        self._prompt = self._output = self._context = 0.0

    def add(self, prompt_tokens: int, output_tokens: float, now: float) -> None:
        """Take a request that arrives.  ``output_tokens``: what it is expected to generate."""
        if self._since == float("-inf"):
            self._since = self._at = now
            return  # one request says nothing of how often they come
        if now > self._at:
            forget = exp((self._at - now) / MEMORY_S)
            self._prompt *= forget
            self._output *= forget
            self._context *= forget
            self._at = now
        self._prompt += prompt_tokens
        self._output += output_tokens
        self._context += output_tokens * (prompt_tokens + output_tokens / 2)

    def on(self, account: Account, now: float) -> float:
        """Return how many such instances, with every slot taken, the load would take."""
        seen_s = MEMORY_S * (1 - exp(-max(now - self._since, _FIRST_S) / MEMORY_S))
        fresh = exp(min(0.0, self._at - now) / MEMORY_S) / seen_s
        pace = account.pace
        per_output = pace.base_s / max(1, account.max_running) + pace.running_s
        return fresh * (
            pace.prefill_token_s * account.uncached_share * self._prompt
            + per_output * self._output
            + pace.kv_token_s * self._context
        )

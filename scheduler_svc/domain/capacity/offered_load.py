"""What the requests of a model ask for per second."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from scheduler_svc.domain.capacity.account import Account

#: Seconds over which the load is averaged: a request weighs 1/e of a new one after that.
MEMORY_S = 30.0
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

    def age_s(self, now: float) -> float:
        """Return the seconds since the first request; 0 where none came."""
        return now - self._since if self._since > float("-inf") else 0.0

    def of_instances(self, accounts: Sequence[Account], now: float) -> list[float]:
        """Return for each of the accounts how many such instances, with every slot taken, the load would take."""
        seen_s = MEMORY_S * (1 - exp(-max(now - self._since, _FIRST_S) / MEMORY_S))
        fresh = exp(min(0.0, self._at - now) / MEMORY_S) / seen_s
        prompt, output, context = fresh * self._prompt, fresh * self._output, fresh * self._context
        return [
            a.load_pace.prefill_token_s * a.uncached_share * prompt
            + (a.load_pace.base_s / (a.max_running or 1) + a.load_pace.running_s) * output
            + a.load_pace.kv_token_s * context
            for a in accounts
        ]


#: Of a model without requests; nothing is ever added to it.
NO_LOAD = OfferedLoad()

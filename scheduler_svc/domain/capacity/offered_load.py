"""What the requests of a model ask for per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

from scheduler_svc.domain.capacity.account import Account

#: Seconds over which the load is averaged: a request weighs 1/e of a new one after that.
MEMORY_S = 30.0
_FIRST_S = 1.0  # the first requests count as the load of one second


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadRates:
    """What a model's requests ask for per second, in tokens."""

    prompt: float
    output: float
    context: float  # read for the output tokens


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCosts:
    """Seconds that an instance with every slot taken needs for a token."""

    prompt_s: float  # of a prompt
    output_s: float  # of an output
    context_s: float  # of context read

    @classmethod
    def of(cls, account: Account) -> TokenCosts:
        """Return the costs at an account's instance."""
        pace = account.load_pace
        return cls(
            prompt_s=pace.prefill_token_s * account.uncached_share,
            output_s=pace.base_s / (account.max_running or 1) + pace.running_s,
            context_s=pace.kv_token_s,
        )

    def prefill_of(self, rates: LoadRates) -> float:
        """Return how many such instances the prompts take."""
        return self.prompt_s * rates.prompt

    def decode_of(self, rates: LoadRates) -> float:
        """Return how many such instances the outputs take."""
        return self.output_s * rates.output + self.context_s * rates.context


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

    def idle_s(self, now: float) -> float:
        """Return the seconds since the last request; infinite where none came."""
        return now - self._at

    def rates(self, now: float) -> LoadRates:
        """Return what is asked for per second."""
        seen_s = MEMORY_S * (1 - exp(-max(now - self._since, _FIRST_S) / MEMORY_S))
        fresh = exp(min(0.0, self._at - now) / MEMORY_S) / seen_s
        return LoadRates(prompt=fresh * self._prompt, output=fresh * self._output, context=fresh * self._context)

    def of_instances(self, accounts: Sequence[Account], now: float) -> list[float]:
        """Return for each of the accounts how many such instances, with every slot taken, the load would take."""
        rates = self.rates(now)
        return [cost.prefill_of(rates) + cost.decode_of(rates) for cost in map(TokenCosts.of, accounts)]


#: Of a model without requests; nothing is ever added to it.
NO_LOAD = OfferedLoad()

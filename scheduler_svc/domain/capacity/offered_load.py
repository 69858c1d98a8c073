"""What the requests of a model ask for per second."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import exp, inf, pow

from scheduler_svc.domain.capacity.account import Account

#: Seconds over which the load is averaged: a request weighs 1/e of a new one after that.
MEMORY_S = 30.0
#: The same of the load at a time, whose peaks count.
BRIEF_S = 10.0
#: How much what company adds to a time per token may grow while a load rises.
_COMPANY = 1.5
#: Power of what steps that carry fewer tokens cost more: a load rises before those who run slow down, and the tighter
#: the targets are, the less of that is in time.
_RISE = 1.5
#: The most that they cost more.
_DEAREST = 3.0
#: By how much a target is above what a lone sequence takes, as a share of that, before all of this counts: nearer to
#: it, noise of the pace decides whether it is kept at all.
_CLEAR = 0.25
_FIRST_S = 1.0  # the first requests count as the load of one second


@dataclass(frozen=True, kw_only=True, slots=True)
class LoadRates:
    """What a model's requests ask for per second, in tokens."""

    prompt: float
    output: float
    context: float  # read for the output tokens
    hurry: float = 0.0  # output tokens by their TPOT targets, in seconds; those without a target count as 0

    @property
    def tpot_s(self) -> float:
        """The mean TPOT target of the output tokens, the tight ones weighing most; infinite without any."""
        return self.output / self.hurry if self.hurry else inf


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenCosts:
    """Seconds that an instance needs for a token."""

    prompt_s: float  # of a prompt
    output_s: float  # of an output, with every slot taken
    context_s: float  # of context read
    alone_s: float = 0.0  # of a step, whatever it does
    beside_s: float = 0.0  # that an output adds to its step

    @classmethod
    def of(cls, account: Account) -> TokenCosts:
        """Return the costs at an account's instance."""
        pace = account.load_pace
        return cls(
            prompt_s=pace.prefill_token_s * account.uncached_share,
            output_s=pace.base_s / (account.max_running or 1) + pace.running_s,
            context_s=pace.kv_token_s,
            alone_s=pace.base_s,
            beside_s=pace.running_s,
        )

    def prefill_of(self, rates: LoadRates) -> float:
        """Return how many such instances the prompts take."""
        return self.prompt_s * rates.prompt

    def decode_of(self, rates: LoadRates) -> float:
        """Return how many such instances the outputs take."""
        return self.output_s * rates.output + self.context_s * rates.context

    def in_time_of(self, rates: LoadRates, prefill: float) -> float:
        """Return how many such instances the load takes if output tokens are to come within their TPOT targets.

        0 where there are none, or no instance keeps those, so that nothing is gained by more.  ``prefill``: what
        ``prefill_of`` returned.

        An engine that makes a step in t seconds has 1 - alone_s / t of each second for what tokens add to its steps.
        """
        tpot_s = rates.tpot_s
        lone_s = self.alone_s + self.beside_s
        if not 0 < lone_s < tpot_s < inf:
            return 0.0
        usual_s = lone_s + (tpot_s - lone_s) / _COMPANY
        added = prefill + self.beside_s * rates.output + self.context_s * rates.context
        dearer = min(pow(1 - self.alone_s / usual_s, -_RISE), _DEAREST)
        return added * (1 + (dearer - 1) * min((tpot_s / lone_s - 1) / _CLEAR, 1.0))


#: Of an instance that loads of any two times can be compared by.
_REFERENCE = TokenCosts(prompt_s=5e-5, output_s=2e-4, context_s=1e-8)


class _Average:
    """The tokens asked for, averaged over ``memory_s`` seconds."""

    __slots__ = ("_at", "_context", "_hurry", "_memory_s", "_output", "_prompt")

    def __init__(self, memory_s: float) -> None:
        self._memory_s = memory_s
        self._at = float("-inf")  # of the last request
        self._prompt = self._output = self._context = self._hurry = 0.0

    def add(self, prompt_tokens: int, output_tokens: float, tpot_target_s: float, now: float) -> None:
        """Take a request."""
        if now > self._at:
            forget = exp((self._at - now) / self._memory_s)
            self._prompt *= forget
            self._output *= forget
            self._context *= forget
            self._hurry *= forget
            self._at = now
        self._prompt += prompt_tokens
        self._output += output_tokens
        self._context += output_tokens * (prompt_tokens + output_tokens / 2)
        self._hurry += output_tokens / tpot_target_s

    def rates(self, since: float, now: float) -> LoadRates:
        """Return what is asked for per second.  ``since``: when the first request came."""
        seen_s = self._memory_s * (1 - exp(-max(now - since, _FIRST_S) / self._memory_s))
        fresh = exp(min(0.0, self._at - now) / self._memory_s) / seen_s
        return LoadRates(
            prompt=fresh * self._prompt,
            output=fresh * self._output,
            context=fresh * self._context,
            hurry=fresh * self._hurry,
        )


class OfferedLoad:
    """Averages the tokens that arriving requests ask for: of prompts, of outputs, and of context read for them."""

    __slots__ = ("_at", "_brief", "_mean", "_since")

    def __init__(self) -> None:
        self._since = self._at = float("-inf")  # of the first and of the last request
        self._mean, self._brief = _Average(MEMORY_S), _Average(BRIEF_S)

    def add(self, prompt_tokens: int, output_tokens: float, now: float, *, tpot_target_s: float = inf) -> None:
        """Take a request that arrives.

        ``output_tokens``: what it is expected to generate.  ``tpot_target_s``: its TPOT target; infinite without one.
        """
        if self._since == float("-inf"):
            self._since = self._at = now
            return  # one request says nothing of how often they come
        self._at = max(self._at, now)
        self._mean.add(prompt_tokens, output_tokens, tpot_target_s, now)
        self._brief.add(prompt_tokens, output_tokens, tpot_target_s, now)

    def age_s(self, now: float) -> float:
        """Return the seconds since the first request; 0 where none came."""
        return now - self._since if self._since > float("-inf") else 0.0

    def idle_s(self, now: float) -> float:
        """Return the seconds since the last request; infinite where none came."""
        return now - self._at

    def rates(self, now: float) -> LoadRates:
        """Return what is asked for per second."""
        return self._mean.rates(self._since, now)

    def work(self, now: float) -> tuple[float, float]:
        """Return the load of the last ``MEMORY_S`` and of the last ``BRIEF_S`` seconds, in one unit for all times."""
        mean, brief = self.rates(now), self._brief.rates(self._since, now)
        of = _REFERENCE
        return of.prefill_of(mean) + of.decode_of(mean), of.prefill_of(brief) + of.decode_of(brief)

    def of_instances(self, accounts: Sequence[Account], now: float) -> list[float]:
        """Return for each of the accounts how many such instances the load would take: in time, with free slots."""
        rates = self.rates(now)
        return [_taken(cost, rates) for cost in map(TokenCosts.of, accounts)]


def _taken(costs: TokenCosts, rates: LoadRates) -> float:
    """Return how many instances of such costs the load would take."""
    prefill = costs.prefill_of(rates)
    return max(prefill + costs.decode_of(rates), costs.in_time_of(rates, prefill))


#: Of a model without requests; nothing is ever added to it.
NO_LOAD = OfferedLoad()

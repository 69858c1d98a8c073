"""One instance as an oracle sees it: what runs there, how long each output gets, how fast the engine is."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from math import exp, inf

from sage_simulator.executor_model import ExecutorModel
from sage_simulator.traced_request import TracedRequest
from scheduler_svc.domain.targets import Targets

#: Seconds over which the prefill that an instance gets is averaged.
_PREFILL_MEMORY_S = 10.0
#: Largest share of engine time that prefill is expected to take.
_MOST_PREFILL = 0.9
#: Chunks of prompt tokens that may wait at an engine; beyond, a request waits where its order can still change.
_OPEN_CHUNKS = 2


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A request with what only an oracle knows of it."""

    index: int  # in the trace
    traced: TracedRequest
    output_tokens: int  # that it will generate
    targets: Targets

    @property
    def context_tokens(self) -> float:
        """Mean KV tokens while it decodes."""
        return self.traced.prompt_tokens + self.output_tokens / 2


class OracleInstance:
    """Predicts a request's times here from the engine's true constants and the true lengths of all that runs here."""

    def __init__(self, executor: ExecutorModel) -> None:
        self.executor = executor
        model = executor.model
        self._pace = model.pace_here
        self._chunk = model.max_batched_tokens
        self._slots = model.max_running
        self._kv_tokens = model.kv_capacity_tokens
        self._wanted: dict[int, Wanted] = {}  # what runs here, by attempt number
        self._tpot_targets: Counter[float] = Counter()  # of what runs here
        self._prefilling: dict[int, int] = {}  # prompt tokens to compute, by attempt number
        self._prefill_tokens = 0  # of all of them
        self._context = 0.0  # mean KV tokens of what runs here
        self._prefill_rate = 0.0  # seconds of prefill per second
        self._rated_at = 0.0

    @property
    def open(self) -> bool:
        """Whether a slot is free and so little prefill waits that a request would begin soon."""
        return len(self._wanted) < self._slots and self._prefill_tokens <= _OPEN_CHUNKS * self._chunk

    def holds(self, wanted: Wanted) -> bool:
        """Whether KV tokens for all of the request are free."""
        return self._context + wanted.traced.prompt_tokens + wanted.output_tokens <= self._kv_tokens

    def prefill_s(self, wanted: Wanted) -> float:
        """Predict seconds to the first token if the instance did nothing else."""
        tokens = self._uncached_tokens(wanted.traced)
        return self._pace.prefill_token_s * tokens + self._pace.base_s * -(-tokens // self._chunk)

    def share(self, wanted: Wanted, now: float) -> float:
        """Predict the share of targets used if the request were sent here now: at most 1 where all are met.

        It is the largest share of the request itself and of the TPOT targets of those that run here.
        """
        tokens = self._uncached_tokens(wanted.traced)
        pace, running = self._pace, len(self._wanted) + 1
        step_s = pace.base_s + pace.running_s * running + pace.kv_token_s * (self._context + wanted.context_tokens)
        to_prefill = self._prefill_tokens + tokens
        steps = -(-to_prefill // max(1, self._chunk - running)) + 0.5  # half of a step is under way
        first_token_s = steps * step_s + pace.prefill_token_s * to_prefill
        rate = self._rate(now) + pace.prefill_token_s * tokens / _PREFILL_MEMORY_S
        token_s = step_s / (1 - min(rate, _MOST_PREFILL))
        finish_s = first_token_s + (wanted.output_tokens - 1) * token_s
        waited_s = now - wanted.traced.arrival_s
        shares = [token_s / self._tightest_s()]
        if wanted.targets.ttft_s is not None:
            shares.append((waited_s + first_token_s) / wanted.targets.ttft_s)
        if wanted.targets.tpot_s is not None:
            shares.append(token_s / wanted.targets.tpot_s)
        if wanted.traced.deadline_s is not None:
            shares.append((waited_s + finish_s) / wanted.traced.deadline_s)
        return max(shares)

    def enter(self, number: int, wanted: Wanted, now: float) -> None:
        """Note that a request is sent here, as the attempt of this number."""
        tokens = self._uncached_tokens(wanted.traced)
        self._wanted[number] = wanted
        if wanted.targets.tpot_s is not None:
            self._tpot_targets[wanted.targets.tpot_s] += 1
        self._prefilling[number] = tokens
        self._prefill_tokens += tokens
        self._context += wanted.context_tokens
        self._prefill_rate = self._rate(now) + self._pace.prefill_token_s * tokens / _PREFILL_MEMORY_S
        self._rated_at = now

    def first_token(self, number: int) -> None:
        """Note that a prompt is computed."""
        self._prefill_tokens -= self._prefilling.pop(number, 0)

    def leave(self, number: int) -> None:
        """Note the end of an attempt."""
        self.first_token(number)
        wanted = self._wanted.pop(number)
        self._context -= wanted.context_tokens
        if wanted.targets.tpot_s is not None:
            self._tpot_targets -= Counter((wanted.targets.tpot_s,))

    def _rate(self, now: float) -> float:
        return self._prefill_rate * exp((self._rated_at - now) / _PREFILL_MEMORY_S)

    def _tightest_s(self) -> float:
        """Return the least TPOT target of what runs here; infinite without one."""
        return min(self._tpot_targets, default=inf)

    def _uncached_tokens(self, traced: TracedRequest) -> int:
        """Count the prompt tokens that the engine would have to compute: at least one."""
        if not traced.block_hashes or not self.executor.model.prefix_caching:
            return traced.prompt_tokens
        cached = self.executor.engine.kv.cached_prefixes(traced.block_hashes) * traced.block_tokens
        return max(1, traced.prompt_tokens - cached)

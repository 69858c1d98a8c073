"""Makes heartbeats: the engine's load, token rates, the event loop's lag."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from executor_svc.runtime.engine_port import Engine, EngineLoad, Iteration
from executor_svc.runtime.messages.reports import Heartbeat
from executor_svc.runtime.observer import NULL_OBSERVER, Observer
from executor_svc.runtime.session.loop_lag import LoopLag

ITERATIONS_SENT = 64  # most iterations in one heartbeat


@dataclass(frozen=True, kw_only=True, slots=True)
class _Totals:
    at: float
    prompt_tokens: int
    generation_tokens: int


class LoadMeter:
    """Makes heartbeats.

    Token rates are means over one to two heartbeat intervals, also when heartbeats are sent more often.
    """

    def __init__(self, lag: LoopLag, observer: Observer = NULL_OBSERVER) -> None:
        self._lag = lag
        self._observer = observer
        self._engine: Engine | None = None
        self._number = 0
        self._baseline: _Totals | None = None
        self._next_baseline: _Totals | None = None

    def watch(self, engine: Engine) -> None:
        """Read the load of ``engine`` from now on."""
        self._engine = engine

    def load(self) -> EngineLoad | None:
        """Return the engine's current load; None until the engine is up."""
        return None if self._engine is None else self._engine.load()

    def kv_used_tokens(self) -> int:
        """Return the KV tokens that the engine reports as in use; 0 until the engine is up."""
        load = self.load()
        return 0 if load is None else load.kv_used_tokens

    def heartbeat(self, last_assign: int, interval_s: float) -> Heartbeat:
        """Make the next heartbeat.

        ``last_assign``: number of the last Assign that the engine has.  ``interval_s``: the session's heartbeat
        interval, which token rates are averaged over.
        """
        self._number += 1
        load = self.load()
        iterations = () if self._engine is None else self._engine.take_iterations()
        if iterations:
            self._observer.iterated(iterations)
        prompt_rate = generation_rate = 0.0
        if load is not None:
            prompt_rate, generation_rate = self._rates(
                load.prompt_tokens_total, load.generation_tokens_total, interval_s
            )
        return Heartbeat(
            number=self._number,
            last_assign=last_assign,
            load=load,
            prompt_tokens_per_s=prompt_rate,
            generation_tokens_per_s=generation_rate,
            iterations=sample(iterations, ITERATIONS_SENT),
            event_loop_lag_s=self._lag.take(),
        )

    def _rates(self, prompt_tokens: int, generation_tokens: int, interval_s: float) -> tuple[float, float]:
        now = _Totals(
            at=asyncio.get_running_loop().time(), prompt_tokens=prompt_tokens, generation_tokens=generation_tokens
        )
        if self._baseline is None or self._next_baseline is None:
            self._baseline = self._next_baseline = now
        if now.at - self._next_baseline.at >= interval_s:
            self._baseline, self._next_baseline = self._next_baseline, now
        elapsed = now.at - self._baseline.at
        if elapsed <= 0:
            return 0.0, 0.0
        return (
            (now.prompt_tokens - self._baseline.prompt_tokens) / elapsed,
            (now.generation_tokens - self._baseline.generation_tokens) / elapsed,
        )


def sample(iterations: Sequence[Iteration], limit: int) -> Sequence[Iteration]:
    """Return at most ``limit`` iterations, evenly spread and with the latest one."""
    if len(iterations) <= limit:
        return iterations
    step = len(iterations) / limit
    return [iterations[len(iterations) - 1 - int(index * step)] for index in range(limit - 1, -1, -1)]

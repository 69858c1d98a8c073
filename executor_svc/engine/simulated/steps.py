"""The simulated engine's step loop: plans a step, waits its modelled time, gives each sequence its token."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from collections.abc import Sequence as Listing

from executor_svc.engine.simulated.batch import Batch, StepPlan
from executor_svc.engine.simulated.faults import FaultState
from executor_svc.engine.simulated.sequence import Sequence
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.step_outputs import StepOutputs
from executor_svc.runtime.engine_port import EngineError, Iteration, JsonValue
from sage_common.clock import Clock

ITERATIONS_KEPT = 256
_CATCH_UP_S = 0.005  # steps catch up a lag behind the model up to this (timers round up to about 1 ms)


class StepLoop:
    """Computes the sequences of one engine, step after step.  Sleeps while there is nothing to compute."""

    def __init__(
        self,
        *,
        settings: SimulatedSettings,
        clock: Clock,
        batch: Batch,
        faults: FaultState,
        outputs: StepOutputs,
        keep_kv: Callable[[Sequence], dict[str, JsonValue] | None],
        notice_death: Callable[[], None],
        forget: Callable[[Sequence], None],
    ) -> None:
        """Make a step loop; ``run`` runs it.

        ``keep_kv``: keeps the KV of a finished prefill for another engine; returns how to fetch it.

        ``notice_death``: ends the engine if a fault has killed it.  ``forget``: is told of a sequence that ended.
        """
        self._settings = settings
        self._clock = clock
        self._batch = batch
        self._faults = faults
        self._keep_kv = keep_kv
        self._notice_death = notice_death
        self._outputs = outputs
        self._forget = forget
        self._changed = asyncio.Event()
        self._listeners: list[Callable[[], None]] = []
        self._recent: deque[Iteration] = deque(maxlen=ITERATIONS_KEPT)
        self.iterations = 0  # so far
        self.generated_tokens = 0  # so far

    def wake(self) -> None:
        """Make the loop plan again, because a sequence or capacity was added."""
        self._changed.set()

    def on_step(self, callback: Callable[[], None]) -> None:
        """Call ``callback`` after each step, when all its outputs were taken."""
        self._listeners.append(callback)

    def take_iterations(self) -> Listing[Iteration]:
        """Return the iterations since the last call, oldest first, at most the latest 256."""
        taken = list(self._recent)
        self._recent.clear()
        return taken

    def forget_work(self) -> None:
        """Count from here on: what ran so far was no request of anybody's."""
        self.iterations = self.generated_tokens = 0
        self._recent.clear()

    async def run(self) -> None:
        """Compute until cancelled."""
        deadline = self._clock.now()
        while True:
            if self._batch.idle:
                deadline = await self._wait_for_change()
            self._faults.strike(self.generated_tokens)
            self._notice_death()
            await self._faults.running.wait()
            started = self._clock.now()
            preemptions = self._batch.preemptions
            plan = self._batch.plan()
            if not plan.work:
                if self._batch.preemptions == preemptions:
                    deadline = (
                        await self._wait_for_change()
                    )  # all wait for KV, or for blocks that are kept for other engines
                continue
            deadline = max(deadline, started - _CATCH_UP_S) + self._duration(plan)
            await self._clock.sleep(deadline - started)
            await self._faults.running.wait()
            self._finish_step(plan, started)

    async def _wait_for_change(self) -> float:
        """Wait for ``wake``.  Return the time of waking."""
        self._changed.clear()
        await self._changed.wait()
        return self._clock.now()

    def _duration(self, plan: StepPlan) -> float:
        settings = self._settings
        seconds = (
            settings.step_base_s
            + settings.step_per_sequence_s * plan.decode_tokens
            + plan.prefill_tokens / settings.prefill_tokens_per_s
        )
        return seconds * self._faults.slow_factor

    def _finish_step(self, plan: StepPlan, started: float) -> None:
        running = len(self._batch.running)
        used = self._batch.kv.used_tokens
        for sequence, tokens in plan.work.items():
            if not sequence.ended and self._batch.computed(sequence, tokens):
                self._extend(sequence)
        self.iterations += 1
        self._recent.append(
            Iteration(
                index=self.iterations,
                prefill_tokens=plan.prefill_tokens,
                decode_tokens=plan.decode_tokens,
                running=running,
                kv_used_tokens=used,
                elapsed_s=self._clock.now() - started,
            )
        )
        self._outputs.deliver()
        loop = asyncio.get_running_loop()
        for listener in self._listeners:
            loop.call_soon(listener)  # runs after the readers, which were woken first

    def _extend(self, sequence: Sequence) -> None:
        """Give a sequence its next token, or the error injected for it."""
        if sequence.fails_after is not None and sequence.emitted >= sequence.fails_after:
            self._batch.remove(sequence)
            sequence.fail(EngineError("injected error"))
            self._forget(sequence)
            return
        if sequence.embedding is not None:
            self._batch.remove(sequence)
            sequence.put_embedding()
            return
        token = sequence.draw()
        top = sequence.request.sampling.logprobs
        logprobs = None if top is None else sequence.source.logprobs(sequence.tokens, token, top)
        sequence.tokens.append(token)
        self.generated_tokens += 1
        reason = sequence.finish_reason(token, self._settings.max_model_len)
        kept = None
        if reason is not None:
            if sequence.request.prefill_only:
                kept = self._keep_kv(sequence)
            self._batch.remove(sequence)
        sequence.put(token, logprobs, reason, kept)
        if reason is not None:
            self._forget(sequence)

"""Turns what the scheduler decides into assignments.  Event-driven: it sleeps until something could have changed."""

from __future__ import annotations

from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.control.timing.clock import ControlClock
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.scheduler import Scheduler


class Dispatcher:
    def __init__(
        self,
        scheduler: Scheduler,
        clock: ControlClock,
        lifecycle: RequestTable,
        assignments: AttemptTable,
        wakeup: Wakeup,
        observer: Observer = NULL_OBSERVER,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._lifecycle = lifecycle
        self._assignments = assignments
        self._wakeup = wakeup
        self._observer = observer

    async def run(self) -> None:
        while True:
            await self._wakeup.wait()
            while self.dispatch():
                await self._clock.sleep(0)  # tokens and heartbeats get their turn between passes

    def dispatch(self) -> bool:
        """One pass.  True if it stopped at its bound and more could be placed."""
        started = self._clock.now()
        decisions = self._scheduler.schedule(started)
        if decisions:
            self._observer.scheduled(decisions, self._clock.now() - started)
        for decision in decisions:
            live = self._lifecycle.find(decision.key)
            if live is None or live.state.ended:
                # Ending a request withdraws it from the queue, so this is a bug; its room must not leak all the same.
                numbers = [decision.attempt_number]
                if decision.prefill is not None:
                    numbers.append(decision.prefill.attempt_number)
                for number in numbers:
                    self._scheduler.release(number, self._clock.now(), output_tokens=None, finished=False)
                continue
            self._assignments.start(live, decision)
        self._wakeup.answer()
        return self._scheduler.more

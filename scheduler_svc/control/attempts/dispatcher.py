"""Turns the scheduler's decisions into attempts.  It sleeps until something could have changed."""

from __future__ import annotations

from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.attempts.request_attempt import RequestAttempt
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import NULL_OBSERVER, FailoverCause, Observer
from scheduler_svc.control.requests.policy_failure import announce
from scheduler_svc.control.timing.wakeup import Wakeup
from scheduler_svc.domain.decision import Decision


class Dispatcher:
    """Runs scheduling passes and starts what they decide."""

    def __init__(
        self, runner: RequestRunner, handoffs: Handoffs, wakeup: Wakeup, observer: Observer = NULL_OBSERVER
    ) -> None:
        self._runner = runner
        self._scheduler = runner.scheduler
        self._clock = runner.clock
        self._handoffs = handoffs
        self._wakeup = wakeup
        self._observer = observer

    async def run(self) -> None:
        """Dispatch at every wake-up, for ever."""
        try:
            while True:
                await self._wakeup.wait()
                while self.dispatch():
                    await self._clock.sleep(0)  # tokens and heartbeats get their turn between passes
        finally:
            self._wakeup.close()

    def dispatch(self) -> bool:
        """Run one scheduling pass; return whether it stopped at its bound and more requests could be placed."""
        started = self._clock.now()
        decisions = self._scheduler.schedule(started)
        if decisions:
            self._observer.scheduled(decisions, self._clock.now() - started)
        for key, error in self._scheduler.take_policy_failures():
            announce(error, key)
            failed = self._runner.requests.find(key)
            if failed is not None:
                self._runner.requests.end(failed, error)
        for decision in decisions:
            live = self._runner.requests.find(decision.key)
            if live is None or live.state.ended:
                # Ending a request withdraws it from the queue, so this is a bug.  Free the capacity, so that the bug
                # does not leak it.
                self._release(decision)
            else:
                self._start(live, decision)
        self._wakeup.answer()
        return self._scheduler.more

    def _start(self, live: LiveRequest, decision: Decision) -> None:
        """Send a decision to its executors; its capacity is reserved already."""
        live.observed.decided(live, decision, self._clock.now())
        if decision.prefill is not None:
            sent = self._handoffs.begin(live, decision)
        else:
            sent = RequestAttempt(self._runner, live, decision).send()
            if not sent:
                self._release(decision)
        if sent:
            live.placed(decision, self._clock.now())
        else:
            # The session broke between the decision and now; its loss has not been announced yet.
            why = f"{decision.instance_id} lost its session"
            self._runner.requeue(live, why, FailoverCause.LOST, excluded=decision.instance_id)

    def _release(self, decision: Decision) -> None:
        self._runner.release(decision.attempt_number)
        if decision.prefill is not None:
            self._runner.release(decision.prefill.attempt_number)

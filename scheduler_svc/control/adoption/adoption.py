"""Adopts attempts that an earlier scheduler began and that executors still hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from sage_common.clock import Clock
from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.adoption.outstanding import Name, Outstanding
from scheduler_svc.control.adoption.regrouping import Regrouping
from scheduler_svc.control.adoption.restart_figures import RestartFigures
from scheduler_svc.control.adoption.restoration import Restoration
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.attempts.request_attempt import RequestAttempt
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.requests.grace import ADOPTED_S, Grace
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import NULL_OBSERVER, Observer
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.errors import GenerationFailed, OutputLost
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class Adoption:
    """Asks executors that register for the attempts they hold, and makes live requests of them.

    Bounded by what executors say they hold, which registration bounds.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        requests: RequestTable,
        attempts: AttemptTable,
        runner: RequestRunner,
        grace: Grace,
        recovery: Recovery,
        observer: Observer = NULL_OBSERVER,
        *,
        on: bool,
        epoch: int,
        restoration: Restoration | None = None,
    ) -> None:
        """``on``: whether attempts can be adopted.  ``restoration``: None without a journal."""
        self._restoration = restoration
        self.on = on
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._attempts = attempts
        self._runner = runner
        self._grace = grace
        self._recovery = recovery
        self._observer = observer
        self._epoch = epoch
        self._outstanding: dict[str, Outstanding] = {}  # by instance
        self._regrouping = Regrouping(clock, requests, runner.enqueue, observer)
        self._anew: dict[RequestKey, HeldRequest] = {}  # prefill legs whose requests are placed anew after recovery
        self._adopted: dict[RequestKey, Name] = {}  # the attempts of live requests that were adopted
        self.adopted = 0  # requests so far
        requests.on_end(lambda live, reason: self._adopted.pop(live.key, None) and None)
        recovery.on_end(self._recovered)
        recovery.on_back(self._place_anew)

    @property
    def figures(self) -> RestartFigures:
        """What became of the earlier scheduler's requests so far."""
        recovery = self._recovery
        return RestartFigures(self.adopted, recovery.open, recovery.missing, recovery.duration_s)

    def registered(self, instance_id: str, held: Sequence[HeldAttempt], link: ExecutorLink) -> None:
        """Ask an executor that registers for what it holds of earlier epochs.

        An executor ends by itself what it holds without a proof.  Its instance is back once its engine's state is
        known, too: until then no request for its model can be read.
        """
        names = ((each.epoch, each.number) for each in held if each.adoption_proof and each.epoch != self._epoch)
        known = self._attempts.names.number
        outstanding = Outstanding.of(name for name in names if self.on and known(*name) is None)
        self._outstanding[instance_id] = outstanding
        outstanding.ask(link)

    def engine_starts(self, instance_id: str) -> None:
        """Note that the engine of an instance is not up, so that nothing waits for its facts."""
        self._settle(instance_id)

    def answered(self, instance_id: str, name: Name, held: HeldRequest | None, link: ExecutorLink) -> None:
        """Take an executor's answer; ``held`` is None if it does not hold what a scheduler of this fleet sent it.

        Adopts the request once the facts of the instance's engine are known.
        """
        outstanding = self._outstanding.get(instance_id)
        if outstanding is None or name not in outstanding.asked:
            return
        outstanding.asked.discard(name)
        if held is None:
            link.cancel_named(*name, "no scheduler of this fleet sent its Assign, or it makes no sense")
        else:
            outstanding.answered.append(held)
        self.engine_ready(instance_id, link)

    def engine_ready(self, instance_id: str, link: ExecutorLink) -> None:
        """Adopt what was held back until the facts of the instance's engine were known."""
        instance, outstanding = self._scheduler.find_instance(instance_id), self._outstanding.get(instance_id)
        if instance is None or instance.facts is None or outstanding is None:
            return
        answered, outstanding.answered = outstanding.answered, []
        for held in answered:
            self._take_or_refuse(instance_id, held, link)
        outstanding.ask(link)
        if not self._recovery.open and not outstanding:
            self._regrouping.fill()
        self._settle(instance_id)

    def settled(self, instance_id: str) -> bool:
        """Return whether an instance with a session has told everything that it holds of earlier schedulers."""
        return not self._outstanding.get(instance_id)

    def lost(self, instance_id: str) -> None:
        """Forget what was asked of an instance that is gone; after recovery its choices are generated anew."""
        outstanding = self._outstanding.pop(instance_id, None)
        if outstanding and not self._recovery.open:
            self._regrouping.fill()

    # --- inside -----------------------------------------------------------------------------------

    def _settle(self, instance_id: str) -> None:
        """Note that an instance is back once nothing of it is outstanding."""
        if self.settled(instance_id):
            self._recovery.back(instance_id)

    def _take_or_refuse(self, instance_id: str, held: HeldRequest, link: ExecutorLink) -> None:
        """Take one attempt; what is wrong with it does not keep the next one from being adopted."""
        try:
            self._take(instance_id, held, link)
        except Exception:
            log.exception("request %s cannot be adopted from %s", held.request.key, instance_id)
            link.cancel_named(*held.attempt.name, "it cannot be adopted")

    def _take(self, instance_id: str, held: HeldRequest, link: ExecutorLink) -> None:
        restoration = self._restoration
        refused = restoration.refuses(held) if restoration is not None else ""
        if refused:
            link.cancel_named(*held.attempt.name, refused)
            return
        key = held.request.key
        known = self._requests.find(key) or self._requests.find(key._replace(choice=0))  # the record has choice 0 alone
        if known is not None and not self._regrouping.misses(known, held) and not self._replaces(known, held):
            link.cancel_named(*held.attempt.name, "another attempt at the same request goes on, or it has ended")
            return
        if held.phase is Phase.PREFILLING:
            link.cancel_named(*held.attempt.name, "prefill legs are not adopted: the request is placed anew")
            if restoration is not None and restoration.waits(key):
                return  # it is queued again from the journal
            if held.request.choices > 1:
                self._regrouping.expect(held)
                return
            self._anew[key] = held
            self._place_anew()
            return
        self._adopt(instance_id, held, link)

    def _replaces(self, known: LiveRequest, held: HeldRequest) -> bool:
        """Return whether an attempt is a later one than the one that a known request goes on with.

        Whoever has read that request has nothing of the later attempt, and is not to get other tokens.
        """
        running = self._adopted.get(known.key)
        return (
            held.request.choices == 1
            and not known.state.ended
            and not known.journaled
            and known.choices is None
            and not known.was_read
            and running is not None
            and running < held.attempt.name
        )

    def _adopt(self, instance_id: str, held: HeldRequest, link: ExecutorLink) -> None:
        """Go on with a request whose attempt runs, or has ended, at this instance."""
        now = self._clock.now()
        decision = self._scheduler.adopt(held.request, instance_id, held.attempt.tokens, held.policy, now)
        live = self._live(held)
        live.adopted = replace(held.attempt, number_here=decision.attempt_number)
        live.first_assigned_at = held.first_assigned_at
        live.observed = self._observer.adopted(live, decision, now)
        self._requests.admit(live)
        attempt = RequestAttempt(self._runner, live, decision)
        live.placed(decision, now)
        name, tokens = held.attempt.name, held.attempt.tokens
        attempt.adopt(self._attempts.adopt(name, decision.attempt_number, instance_id, held.phase, link, attempt))
        live.note(now, "adopted", f"{instance_id} runs it for an earlier scheduler: {tokens} output tokens so far")
        self._adopted[live.key] = name
        self.adopted += 1
        log.info("request %s is adopted from %s with %d tokens", live.key, instance_id, tokens, extra=live.about)
        link.resend(decision.attempt_number, len(live.output))
        self._wait_for_reader(live)

    def _place_anew(self) -> None:
        """Place the requests of prefill legs anew whose decode legs cannot come back any more.

        Not those whose decode leg came back, or that a client sent again.
        """
        for key, held in list(self._anew.items()):
            if self._recovery.may_return(key, held.request.model):
                continue
            del self._anew[key]
            if self._requests.find(key) is None:
                self._place(held)

    def _place(self, held: HeldRequest) -> None:
        live = self._live(held)
        live.observed = self._observer.adopted(live, None, self._clock.now())
        self._requests.admit(live)
        if held.delivered:
            self._requests.end(live, OutputLost(f"nobody holds its first {held.delivered} output tokens any more"))
            return
        self._runner.enqueue(live)
        self._wait_for_reader(live)

    def _live(self, held: HeldRequest) -> LiveRequest:
        restored = self._restoration.adopt(held) if self._restoration is not None else None
        if restored is not None and restored.choices is None:
            return restored
        if restored is not None:
            self._regrouping.join(restored.members)
        if held.request.choices > 1:
            return self._regrouping.take(held)
        known = self._requests.find(held.request.key)
        if known is not None:
            if not known.state.ended:
                self._requests.end(known, GenerationFailed("replaced by a later attempt", attempts=known.attempts))
            self._requests.forget(known)
        live = LiveRequest(
            request=held.request,
            digest=held.digest,
            detached=held.detached,
            warnings=held.warnings,
            identity=held.identity,
            first_token_at=held.first_token_at,
            cost=held.cost,
        )
        live.attempts_before = held.attempts
        return live

    def _wait_for_reader(self, live: LiveRequest) -> None:
        """Begin the grace of an adopted request; while requests still come back, its end is not in sight."""
        if not self._recovery.open and not live.readers and not live.detached and not live.all_ended:
            self._grace.begin(live.lead, ADOPTED_S)

    def _recovered(self) -> None:
        self._regrouping.fill()
        for key in list(self._adopted):
            live = self._requests.find(key)
            if live is not None:
                self._wait_for_reader(live)

"""Adopts attempts that an earlier scheduler began and that executors still hold."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from sage_common.clock import Clock
from scheduler_svc.control.adoption.held_request import HeldRequest
from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.attempts.request_attempt import RequestAttempt
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.requests.grace import ADOPTED_S, Grace
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.errors import GenerationFailed, OutputLost
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

Name = tuple[int, int]
"""An attempt's epoch and number."""


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
        proofs: Proofs | None,
        *,
        epoch: int,
    ) -> None:
        """``proofs``: None: nothing is adopted."""
        self._scheduler = scheduler
        self._clock = clock
        self._requests = requests
        self._attempts = attempts
        self._runner = runner
        self._grace = grace
        self._recovery = recovery
        self._proofs = proofs
        self._epoch = epoch
        self._asked: dict[str, set[Name]] = {}  # by instance: attempts whose Assign was asked for
        self._answered: dict[str, list[HeldRequest]] = {}  # by instance: until its engine's facts are known
        self._adopted: dict[RequestKey, Name] = {}  # the attempts of live requests that were adopted
        self.adopted = 0  # requests so far
        requests.on_end(lambda live, reason: self._adopted.pop(live.key, None) and None)
        recovery.on_end(self._wait_for_readers)

    @property
    def on(self) -> bool:
        """Whether attempts can be adopted."""
        return self._proofs is not None

    def registered(self, instance_id: str, held: Sequence[HeldAttempt], link: ExecutorLink) -> None:
        """Ask an executor that registers for what it holds of earlier epochs; refuse what has no valid proof."""
        asked: set[Name] = set()
        for each in held:
            name = (each.epoch, each.number)
            if each.epoch == self._epoch or self._attempts.names.number(*name) is not None:
                continue
            if self._proved(instance_id, each):
                asked.add(name)
                link.fetch_assign(*name)
            else:
                link.cancel_named(*name, "the scheduler does not know this attempt, and it has no valid proof")
        self._asked[instance_id] = asked
        self._answered.pop(instance_id, None)
        self._settle(instance_id)

    def answered(self, instance_id: str, name: Name, held: HeldRequest | None, link: ExecutorLink) -> None:
        """Take an executor's answer; ``held`` is None if it does not hold the attempt any more, or nobody can read it.

        Adopts the request once the facts of the instance's engine are known.
        """
        asked = self._asked.get(instance_id)
        if asked is None or name not in asked:
            return
        asked.discard(name)
        if held is None:
            link.cancel_named(*name, "its Assign makes no sense")
        else:
            self._answered.setdefault(instance_id, []).append(held)
        self.engine_ready(instance_id, link)

    def engine_ready(self, instance_id: str, link: ExecutorLink) -> None:
        """Adopt what was held back until the facts of the instance's engine were known."""
        instance = self._scheduler.find_instance(instance_id)
        if instance is None or instance.facts is None:
            return
        for held in self._answered.pop(instance_id, ()):
            self._take(instance_id, held, link)
        self._settle(instance_id)

    def lost(self, instance_id: str) -> None:
        """Forget what was asked of an instance that is gone."""
        self._asked.pop(instance_id, None)
        self._answered.pop(instance_id, None)

    # --- inside -----------------------------------------------------------------------------------

    def _proved(self, instance_id: str, held: HeldAttempt) -> bool:
        return self._proofs is not None and self._proofs.proves(
            held.adoption_proof, instance_id, held.epoch, held.number, held.record
        )

    def _settle(self, instance_id: str) -> None:
        """Note that an instance is back once nothing of it is outstanding."""
        if not self._asked.get(instance_id) and not self._answered.get(instance_id):
            self._recovery.back(instance_id)

    def _take(self, instance_id: str, held: HeldRequest, link: ExecutorLink) -> None:
        known = self._requests.find(held.request.key)
        if known is not None and not self._replaces(known, held):
            link.cancel_named(*held.attempt.name, "another attempt at the same request goes on, or it has ended")
            return
        if held.phase is Phase.PREFILLING:
            link.cancel_named(*held.attempt.name, "prefill legs are not adopted: the request is placed anew")
            self._place_anew(held)
            return
        self._adopt(instance_id, held, link)

    def _replaces(self, known: LiveRequest, held: HeldRequest) -> bool:
        """Return whether an attempt is a later one than the one that a known request goes on with.

        Somebody who reads that request already has nothing of the later attempt, and is not to get other tokens.
        """
        running = self._adopted.get(known.key)
        return not known.state.ended and not known.readers and running is not None and running < held.attempt.name

    def _adopt(self, instance_id: str, held: HeldRequest, link: ExecutorLink) -> None:
        """Go on with a request whose attempt runs, or has ended, at this instance."""
        now = self._clock.now()
        decision = self._scheduler.adopt(held.request, instance_id, held.attempt.tokens, held.policy, now)
        live = self._live(held)
        live.adopted = replace(held.attempt, number_here=decision.attempt_number)
        self._requests.admit(live)
        attempt = RequestAttempt(self._runner, live, decision)
        live.placed(decision, now)
        live.first_assigned_at = held.first_assigned_at
        name, tokens = held.attempt.name, held.attempt.tokens
        attempt.adopt(self._attempts.adopt(name, decision.attempt_number, instance_id, held.phase, link, attempt))
        live.note(now, "adopted", f"{instance_id} runs it for an earlier scheduler: {tokens} output tokens so far")
        self._adopted[live.key] = name
        self.adopted += 1
        log.info("request %s is adopted from %s with %d tokens", live.key, instance_id, tokens, extra=live.about)
        link.resend(decision.attempt_number, 0)
        self._wait_for_reader(live)

    def _place_anew(self, held: HeldRequest) -> None:
        live = self._live(held)
        self._requests.admit(live)
        if held.delivered:
            self._requests.end(live, OutputLost(f"nobody holds its first {held.delivered} output tokens any more"))
            return
        self._runner.enqueue(live)
        self._wait_for_reader(live)

    def _live(self, held: HeldRequest) -> LiveRequest:
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
        if not self._recovery.open and not live.readers and not live.detached and not live.state.ended:
            self._grace.begin(live, ADOPTED_S)

    def _wait_for_readers(self) -> None:
        for key in list(self._adopted):
            live = self._requests.find(key)
            if live is not None:
                self._wait_for_reader(live)

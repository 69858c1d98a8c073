"""Warm-up handoffs: a pair of instances is used once one worked, so that no request pays for the first handshake or
finds out that there is none."""

from __future__ import annotations

import itertools
import logging

from scheduler_svc.control.attempts.attempt_table import PREFILL_SAMPLING, AttemptTable, InstanceSessions
from scheduler_svc.control.attempts.executor_link import AssignOrder, KvHandoff
from scheduler_svc.control.timing.clock import ControlClock
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.pd.pairs import Pair
from scheduler_svc.domain.request import Request, RequestKey, Sampling
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

TIMEOUT_S = 30.0
"""For both legs of a warm-up: the first pull of a pair takes up to a second, and it waits behind what runs there."""

BLOCKS = 2
"""Prompt of a warm-up: one whole block is handed over, and the last one is not full."""

INTERNAL_TENANT = "sage.internal"
DECODE_SAMPLING = Sampling(temperature=0.0, max_tokens=2, ignore_eos=True)


class WarmUp:
    """One handoff between two engines that belongs to no request.  A Guest twice: of both legs."""

    def __init__(self, owner: WarmUps, pair: Pair, prompt: list[int]) -> None:
        self._owner = owner
        self.pair = pair
        self.prompt = prompt
        self.attempt_number = 0  # of the leg under way
        self.phase = Phase.PREFILLING
        self.prefill_ended_at = 0.0
        self.first_token_at: float | None = None
        self.over = False

    def token(self, now: float) -> None:
        if self.phase is Phase.DECODING and self.first_token_at is None:
            self.first_token_at = now

    def ended(self, end: AttemptEnd) -> None:
        finished = end.cause is EndCause.FINISHED
        if self.phase is Phase.PREFILLING and finished and end.kv_transfer_params:
            self._owner.prefilled(self, end)
        elif self.phase is Phase.DECODING and finished and self.first_token_at is not None and not end.kv_recomputed:
            # Not before its end: tokens come of a prompt that was computed there, too.
            self._owner.fetched(self, self.first_token_at - self.prefill_ended_at)
        elif not self.over:
            self._owner.failed(self, end.message or f"its {self.phase.value} leg ended: {end.cause.value}")


class WarmUps:
    """At most one under way per pair; each ends within ``TIMEOUT_S``."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: ControlClock,
        assignments: AttemptTable,
        sessions: InstanceSessions,
        *,
        epoch: int,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._assignments = assignments
        self._sessions = sessions
        self._epoch = epoch
        self._numbers = itertools.count(1)
        self._said: list[str] = []  # conditions as last logged

    def check(self) -> None:
        """Form the pairs there are and warm up those that need it; say what keeps splitting from working."""
        if not self._scheduler.pd_settings.enabled:
            self._said = []
            return
        self._scheduler.renew_pairs()
        for pair in self._scheduler.pairs_due(self._clock.now()):
            self._start(pair)
        conditions = self._scheduler.pd_conditions()
        if conditions != self._said:
            for condition in conditions:
                log.warning("prefill/decode: %s", condition)
            self._said = conditions

    def prefilled(self, warm_up: WarmUp, end: AttemptEnd) -> None:
        warm_up.phase = Phase.DECODING
        warm_up.prefill_ended_at = self._clock.now()
        handoff = KvHandoff(params=end.kv_transfer_params, lease_s=end.kv_lease_s)
        if not self._send(warm_up, warm_up.pair.decode.instance_id, DECODE_SAMPLING, handoff):
            self.failed(warm_up, f"{warm_up.pair.decode.instance_id} lost its session")

    def fetched(self, warm_up: WarmUp, took_s: float) -> None:
        if not warm_up.over:
            warm_up.over = True
            self._scheduler.handed_over(warm_up.pair, took_s)
            log.info("prefill/decode: %s hands over, %.3f s", _name(warm_up.pair), took_s)

    def failed(self, warm_up: WarmUp, reason: str) -> None:
        self._assignments.dismiss(warm_up.attempt_number)
        if not warm_up.over:
            warm_up.over = True
            self._scheduler.warm_up_failed(warm_up.pair, reason, self._clock.now())
            log.warning("prefill/decode: %s cannot hand over: %s", _name(warm_up.pair), reason)

    def _start(self, pair: Pair) -> None:
        instance = self._scheduler.find_instance(pair.prefill.instance_id)
        if instance is None or instance.facts is None:
            return
        self._scheduler.warm_up_started(pair)
        warm_up = WarmUp(self, pair, self._prompt(instance.facts))
        if self._send(warm_up, pair.prefill.instance_id, PREFILL_SAMPLING, None):
            self._clock.call_at(
                self._clock.now() + TIMEOUT_S, lambda: self.failed(warm_up, f"no answer in {TIMEOUT_S:.0f} s")
            )
        else:
            self.failed(warm_up, f"{pair.prefill.instance_id} lost its session")

    def _prompt(self, facts: EngineFacts) -> list[int]:
        """Different each time, so that no prefix cache answers in the other instance's stead."""
        first = next(self._numbers) * 7919
        length = min(BLOCKS * facts.kv_block_size - 1, facts.max_model_len - DECODE_SAMPLING.max_tokens)
        return [(first + i) % facts.vocab_size for i in range(max(1, length))]

    def _send(self, warm_up: WarmUp, instance_id: str, sampling: Sampling, handoff: KvHandoff | None) -> bool:
        found = self._sessions.link_of(instance_id)
        if found is None:
            return False
        link, number = found
        warm_up.attempt_number = self._scheduler.unreserved_attempt()
        self._assignments.receive(warm_up.attempt_number, warm_up, instance_id)
        instance = self._scheduler.instance(instance_id)
        link.assign(
            AssignOrder(
                number=number,
                epoch=self._epoch,
                attempt_number=warm_up.attempt_number,
                phase=warm_up.phase,
                request=Request(
                    key=RequestKey(tenant=INTERNAL_TENANT, request_id=f"warm-up-{warm_up.attempt_number}"),
                    model=instance.spec.model,
                    prompt_token_ids=warm_up.prompt,
                    sampling=sampling,
                    arrived_at=self._clock.now(),
                ),
                sampling=sampling,
                engine_priority=0,
                remaining_s=TIMEOUT_S,
                reasons=("warms the pair up",),
                handoff=handoff,
            )
        )
        return True


def _name(pair: Pair) -> str:
    return f"{pair.prefill.instance_id} to {pair.decode.instance_id}"

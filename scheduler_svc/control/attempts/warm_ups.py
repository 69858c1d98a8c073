"""Warm-up handoffs: a pair of instances is used only after one of them worked.

Without them a request would pay for a pair's first handshake, or be the one that finds out that it cannot hand over.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Sequence

from sage_common.clock import Clock
from scheduler_svc.control.attempts.attempt import Attempt
from scheduler_svc.control.attempts.attempt_listener import AttemptListener, Loss
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_link import AssignOrder, KvHandoff
from scheduler_svc.control.attempts.request_runner import PREFILL_SAMPLING
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.domain.attempt_end import AttemptEnd, EndCause
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.pd.pairs import Pair
from scheduler_svc.domain.request import Request, RequestKey, Sampling
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

_Ends = tuple[tuple[str, str], tuple[str, str]]  # identities of the prefill and the decode engine

TIMEOUT_S = 30.0
"""Time for both legs of a warm-up: the first pull takes up to a second, and each leg waits behind running requests."""

BLOCKS = 2
"""KV blocks of a warm-up's prompt: one whole block is handed over, and the last one is not full."""

INTERNAL_TENANT = "sage.internal"
DECODE_SAMPLING = Sampling(temperature=0.0, max_tokens=2, ignore_eos=True)


class WarmUp:
    """One handoff between two engines that belongs to no request."""

    def __init__(self, pair: Pair, prompt: list[int]) -> None:
        self.pair = pair
        self.prompt = prompt
        self.attempt: Attempt | None = None  # of the leg under way
        self.over = False


class WarmUps:
    """Warms up the pairs that need it.  At most one warm-up per pair is under way; each ends within ``TIMEOUT_S``."""

    def __init__(self, scheduler: Scheduler, clock: Clock, attempts: AttemptTable, *, epoch: int) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._attempts = attempts
        self._epoch = epoch
        self._numbers = itertools.count(1)
        self._latest: dict[_Ends, WarmUp] = {}  # while an attempt of it is in the table
        self._logged: list[str] = []  # the conditions that were logged last

    def check(self) -> None:
        """Form the pairs there are, warm up those that need it, and log what keeps splitting from working."""
        if not self._scheduler.pd_settings.enabled:
            self._logged = []
            return
        self._scheduler.renew_pairs()
        for pair in self._scheduler.pairs_due(self._clock.now()):
            self._start(pair)
        conditions = self._scheduler.pd_conditions()
        if conditions != self._logged:
            for condition in conditions:
                log.warning("prefill/decode: %s", condition)
            self._logged = conditions

    def prefilled(self, warm_up: WarmUp, end: AttemptEnd) -> None:
        """Send the decode leg of a warm-up whose prefill left KV behind."""
        handoff = KvHandoff(params=end.kv_transfer_params, lease_s=end.kv_lease_s)
        leg = _DecodeLeg(self, warm_up, prefill_ended_at=self._clock.now(), clock=self._clock)
        instance_id = warm_up.pair.decode.instance_id
        if not self._send(warm_up, instance_id, Phase.DECODING, DECODE_SAMPLING, leg, handoff):
            self.failed(warm_up, f"{instance_id} lost its session")

    def fetched(self, warm_up: WarmUp, took_s: float) -> None:
        """Use the pair from now on: its warm-up handed over in ``took_s`` seconds."""
        if not warm_up.over:
            warm_up.over = True
            self._scheduler.handed_over(warm_up.pair, took_s)
            log.info("prefill/decode: %s hands over in %.3f s", _name(warm_up.pair), took_s)

    def failed(self, warm_up: WarmUp, reason: str) -> None:
        """Leave the pair unused until its next warm-up."""
        if warm_up.over:
            return
        warm_up.over = True
        if warm_up.attempt is not None:
            warm_up.attempt.abandon("its warm-up is over")
        self._scheduler.warm_up_failed(warm_up.pair, reason, self._clock.now())
        log.warning("prefill/decode: %s cannot hand over: %s", _name(warm_up.pair), reason)

    def _start(self, pair: Pair) -> None:
        instance = self._scheduler.find_instance(pair.prefill.instance_id)
        if instance is None or instance.facts is None or self._under_way(pair):
            return
        self._scheduler.warm_up_started(pair)
        warm_up = self._latest[_ends(pair)] = WarmUp(pair, self._prompt(instance.facts))
        leg = _PrefillLeg(self, warm_up)
        if self._send(warm_up, pair.prefill.instance_id, Phase.PREFILLING, PREFILL_SAMPLING, leg, None):
            self._clock.call_at(
                self._clock.now() + TIMEOUT_S, lambda: self.failed(warm_up, f"no answer in {TIMEOUT_S:.0f} s")
            )
        else:
            self.failed(warm_up, f"{pair.prefill.instance_id} lost its session")

    def _under_way(self, pair: Pair) -> bool:
        """Return whether an attempt of an earlier warm-up of the same two engines is still in the table.

        That is so after the pair was formed anew, because one end was away for a moment, and where an engine does not
        confirm that it stopped.
        """
        self._latest = {ends: earlier for ends, earlier in self._latest.items() if self._in_table(earlier)}
        return _ends(pair) in self._latest

    def _in_table(self, warm_up: WarmUp) -> bool:
        return warm_up.attempt is not None and self._attempts.find(warm_up.attempt.number) is not None

    def _prompt(self, facts: EngineFacts) -> list[int]:
        """Make a prompt that differs each time, so that no prefix cache makes the handoff unnecessary."""
        first = next(self._numbers) * 7919
        length = min(BLOCKS * facts.kv_block_size - 1, facts.max_model_len - DECODE_SAMPLING.max_tokens)
        return [(first + i) % facts.vocab_size for i in range(max(1, length))]

    def _send(
        self,
        warm_up: WarmUp,
        instance_id: str,
        phase: Phase,
        sampling: Sampling,
        listener: AttemptListener,
        handoff: KvHandoff | None,
    ) -> bool:
        """Send one leg; False while its instance has no session."""
        number = self._scheduler.unreserved_attempt()

        def order(assign_number: int) -> AssignOrder:
            return AssignOrder(
                number=assign_number,
                epoch=self._epoch,
                attempt_number=number,
                phase=phase,
                request=Request(
                    key=RequestKey(tenant=INTERNAL_TENANT, request_id=f"warm-up-{number}"),
                    model=warm_up.pair.prefill.model,
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

        warm_up.attempt = self._attempts.send(number, instance_id, phase, listener, order)
        return warm_up.attempt is not None


class _Leg:
    """Implements AttemptListener for one leg of a warm-up, as far as both legs do the same."""

    position = 0  # a warm-up has no earlier output
    published = 0  # nobody reads it

    def __init__(self, owner: WarmUps, warm_up: WarmUp, phase: Phase) -> None:
        self._owner = owner
        self._warm_up = warm_up
        self._phase = phase

    def accepted(self) -> bool:
        return True

    def token(self, first_index: int, token_id: int, text: str, now: float) -> None:
        self.tokens(first_index, (token_id,), text, None, False)

    def tokens(
        self,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
        kv_recomputed: bool,
    ) -> None:
        pass

    def prompt(self, facts: PromptFacts) -> None:
        """Do nothing: a warm-up is about the handoff."""

    def rejected(self, reason: str, message: str, *, counted: bool) -> None:
        self._fail(f"its {self._phase.value} leg was rejected: {reason} {message}".rstrip())

    def lost(self, loss: Loss) -> None:
        self._fail(loss.why)

    def ended(self, end: AttemptEnd, *, counted: bool) -> None:
        if not counted or not self._worked(end):
            self._fail(end.message or f"its {self._phase.value} leg ended: {end.cause.value}")

    def _worked(self, end: AttemptEnd) -> bool:
        """Go on where the leg did what it should; return whether it did."""
        raise NotImplementedError

    def _fail(self, reason: str) -> None:
        self._owner.failed(self._warm_up, reason)


class _PrefillLeg(_Leg):
    def __init__(self, owner: WarmUps, warm_up: WarmUp) -> None:
        super().__init__(owner, warm_up, Phase.PREFILLING)

    def _worked(self, end: AttemptEnd) -> bool:
        if end.cause is not EndCause.FINISHED or not end.kv_transfer_params:
            return False
        self._owner.prefilled(self._warm_up, end)
        return True


class _DecodeLeg(_Leg):
    def __init__(self, owner: WarmUps, warm_up: WarmUp, *, prefill_ended_at: float, clock: Clock) -> None:
        super().__init__(owner, warm_up, Phase.DECODING)
        self._prefill_ended_at = prefill_ended_at
        self._clock = clock
        self._first_token_at: float | None = None

    def tokens(
        self,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
        kv_recomputed: bool,
    ) -> None:
        if self._first_token_at is None:
            self._first_token_at = self._clock.now()

    def _worked(self, end: AttemptEnd) -> bool:
        # Judged at the leg's end: tokens alone prove nothing, the engine may have computed the prompt itself.
        if end.cause is not EndCause.FINISHED or self._first_token_at is None or end.kv_recomputed:
            return False
        self._owner.fetched(self._warm_up, self._first_token_at - self._prefill_ended_at)
        return True


def _ends(pair: Pair) -> _Ends:
    return pair.prefill.identity, pair.decode.identity


def _name(pair: Pair) -> str:
    return f"{pair.prefill.instance_id} to {pair.decode.instance_id}"

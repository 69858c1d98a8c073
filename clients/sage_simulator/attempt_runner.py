"""Runs requests on the modelled executors as ``scheduler_svc/control/attempts`` does: one leg or two, and failover."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from sage_simulator.attempt import Attempt, Leg
from sage_simulator.event_queue import EventQueue
from sage_simulator.executor_model import Assignment, ExecutorModel, KvSource
from sage_simulator.live_request import LiveRequest
from sage_simulator.outcome import End
from scheduler_svc.domain.decision import Decision
from scheduler_svc.domain.pd.fallbacks import Fallback
from scheduler_svc.domain.scheduler import PROGRESS_TOKENS, Scheduler

MAX_ATTEMPTS = 5  # placements of one request, the service's default

#: Ends a request: how, and why in words.
EndRequest = Callable[[LiveRequest, End, str], None]


class AttemptRunner:
    """Sends attempts, and does what follows from what becomes of them."""

    def __init__(
        self,
        scheduler: Scheduler,
        events: EventQueue,
        executors: Mapping[str, ExecutorModel],
        *,
        end: EndRequest,
        requeued: Callable[[LiveRequest], None],
    ) -> None:
        """``requeued``: called with a request that waits again."""
        self._scheduler = scheduler
        self._events = events
        self._executors = executors
        self._end = end
        self._requeued = requeued
        self._attempts: dict[int, Attempt] = {}  # by number, until their capacity is free
        self._under_way: dict[int, Attempt] = {}  # of each request that runs, by its index: the attempt that counts
        self.failovers = 0  # requests that were requeued

    def __len__(self) -> int:
        return len(self._attempts)

    def begin(self, live: LiveRequest, decision: Decision) -> None:
        """Send the attempt of a request that was placed: the prefill leg if it is split."""
        live.attempts += 1
        live.instance_id = decision.instance_id
        live.split = decision.prefill is not None
        if live.placed_at is None:
            live.placed_at = self._events.now
        if decision.prefill is not None:
            prefill = decision.prefill
            self._send(prefill.attempt_number, Leg.PREFILL, live, decision, prefill.instance_id)
        else:
            self._send(decision.attempt_number, Leg.WHOLE, live, decision, decision.instance_id)

    def stop(self, live: LiveRequest) -> None:
        """Have the executor drop what a request runs.  Its capacity stays taken until the executor confirms."""
        attempt = self._under_way.pop(live.index, None)
        if attempt is None:
            return
        attempt.counts = False
        attempt.executor.abort(attempt.number)
        if attempt.leg is Leg.PREFILL:
            self._release(attempt.decision.attempt_number)
        self._give_up_kv(attempt)

    def on_instance(self, instance_id: str) -> bool:
        """Whether an attempt runs on an instance or is to decode there."""
        return any(instance_id in _instances(each) for each in self._attempts.values())

    def note_progress(self, instance_id: str) -> None:
        """Have the reservations on an instance grow whose outputs are longer than predicted."""
        for number, tokens in self._executors[instance_id].engine.emitted():
            attempt = self._attempts.get(number)
            if attempt is None or attempt.leg is Leg.PREFILL or tokens <= attempt.reserved_tokens:
                continue
            self._scheduler.progress(number, attempt.live.emitted + tokens)
            attempt.reserved_tokens = tokens + PROGRESS_TOKENS

    # ------------------------------------------------------------------ what executors say

    def output(self, first: Sequence[int], ended: Sequence[int]) -> None:
        """Take a step's output: attempts with their first token, and those that ended."""
        for number in first:
            self._first_token(number)
        for number in ended:
            self._ended(number)

    def _first_token(self, number: int) -> None:
        """Note the first token of an attempt; a prefill leg's is no part of the output."""
        attempt = self._attempts.get(number)
        if attempt is None or attempt.leg is Leg.PREFILL or not attempt.counts:
            return
        now, live = self._events.now, attempt.live
        if live.first_token_at is None:
            live.first_token_at = now
        self._scheduler.first_token(number, now)
        self._conclude_handoff(attempt)

    def _ended(self, number: int) -> None:
        """Finish a request, or send the decode leg of one whose prefill leg is over."""
        attempt = self._attempts.get(number)
        if attempt is None:
            return
        if attempt.leg is Leg.PREFILL:
            self._prefilled(attempt)
            return
        del self._attempts[number]
        live = attempt.live
        self._scheduler.release(number, self._events.now, output_tokens=live.output_tokens, finished=True)
        if attempt.counts:  # otherwise it finished while its abort was on the way
            del self._under_way[live.index]
            live.emitted = live.output_tokens
            self._end(live, End.FINISHED, "")

    def aborted(self, number: int, emitted_tokens: int) -> None:
        """Free the capacity of an attempt that was aborted."""
        attempt = self._attempts.pop(number, None)
        if attempt is None:
            return
        tokens = attempt.live.emitted + emitted_tokens if attempt.leg is not Leg.PREFILL else 0
        self._release(number, output_tokens=tokens or None)

    def lose(self, instance_id: str, reason: str) -> None:
        """Have the requests on an instance that is gone go on elsewhere, from the tokens that arrived."""
        there = [each for each in self._attempts.values() if each.executor.instance_id == instance_id]
        for each in there:
            del self._attempts[each.number]
        self._scheduler.lose(instance_id, reason, self._events.now)
        for each in list(self._attempts.values()):
            if each.counts and each.leg is Leg.PREFILL and each.decision.instance_id == instance_id:
                self.stop(each.live)
                self._requeue(each.live, excluded=instance_id)
        for each in there:
            if each.counts:
                self._lost(each, instance_id, reason)

    # ------------------------------------------------------------------ inside

    def _send(
        self,
        number: int,
        leg: Leg,
        live: LiveRequest,
        decision: Decision,
        instance_id: str,
        *,
        prefill: Attempt | None = None,
    ) -> None:
        executor = self._executors[instance_id]
        attempt = self._attempts[number] = self._under_way[live.index] = Attempt(number, leg, live, decision, executor)
        attempt.prefill = prefill
        assign_number = executor.assign(
            Assignment(
                attempt_number=number,
                request=live.traced,
                emitted_tokens=live.emitted,
                output_tokens=1 if leg is Leg.PREFILL else live.output_tokens - live.emitted,
                priority=decision.engine_priority,
                keeps_kv=leg is Leg.PREFILL,
                source=KvSource(executor=prefill.executor, attempt_number=prefill.number) if prefill else None,
            )
        )
        self._scheduler.assigned(number, assign_number)

    def _release(self, number: int, *, output_tokens: int | None = None) -> None:
        self._scheduler.release(number, self._events.now, output_tokens=output_tokens, finished=False)

    def _prefilled(self, prefill: Attempt) -> None:
        """Keep the prompt's KV taken until it is fetched, and send the decode leg."""
        del self._attempts[prefill.number]
        prefill.prefill_ended_at = self._events.now
        if not prefill.counts:
            self._release(prefill.number)
            prefill.executor.release_kv(prefill.number)
            return
        self._scheduler.park(prefill.number, self._events.now)
        decision = prefill.decision
        self._send(decision.attempt_number, Leg.DECODE, prefill.live, decision, decision.instance_id, prefill=prefill)

    def _conclude_handoff(self, decode: Attempt) -> None:
        """Note whether the KV of a decode leg came, once its first token is there."""
        prefill, decode.prefill = decode.prefill, None
        if prefill is None:
            return
        now = self._events.now
        self._release(prefill.number)
        pair = self._scheduler.pair_between(prefill.executor.instance_id, decode.executor.instance_id)
        if decode.number in decode.executor.recomputed:
            self._scheduler.handoff_failed(pair, Fallback.RECOMPUTED, "the prefill instance is gone", now)
        else:
            self._scheduler.handed_over(pair, now - prefill.prefill_ended_at)

    def _give_up_kv(self, attempt: Attempt) -> None:
        """Free the KV that a decode leg was to fetch."""
        prefill, attempt.prefill = attempt.prefill, None
        if prefill is not None:
            self._release(prefill.number)
            prefill.executor.release_kv(prefill.number)

    def _lost(self, attempt: Attempt, instance_id: str, reason: str) -> None:
        live = attempt.live
        if attempt.leg is Leg.PREFILL and self._executors[attempt.decision.instance_id].up:
            # The decode instance computes the prompt itself, in the capacity that is reserved there.
            decision = attempt.decision
            pair = self._scheduler.pair_between(instance_id, decision.instance_id)
            self._scheduler.handoff_failed(pair, Fallback.PREFILL_FAILED, reason, self._events.now)
            self._send(decision.attempt_number, Leg.WHOLE, live, decision, decision.instance_id)
            return
        if attempt.leg is Leg.PREFILL:
            self._release(attempt.decision.attempt_number)
        self._give_up_kv(attempt)
        del self._under_way[live.index]
        live.emitted += attempt.executor.engine.emitted_by(attempt.number) if attempt.leg is not Leg.PREFILL else 0
        self._requeue(live, excluded=instance_id, whole=attempt.leg is Leg.PREFILL)

    def _requeue(self, live: LiveRequest, *, excluded: str, whole: bool = False) -> None:
        live.excluded |= {excluded}
        if live.attempts >= MAX_ATTEMPTS:
            self._end(live, End.FAILED, f"{live.attempts} attempts failed")
            return
        self.failovers += 1
        self._scheduler.enqueue(
            live.request,
            self._events.now,
            emitted_tokens=live.emitted,
            excluded=live.excluded,
            resumed=True,
            whole=whole,
        )
        self._requeued(live)


def _instances(attempt: Attempt) -> set[str]:
    """Return the instances that an attempt needs: where it runs, where it is to decode, where its KV lies."""
    needed = {attempt.executor.instance_id, attempt.decision.instance_id}
    return needed | {attempt.prefill.executor.instance_id} if attempt.prefill is not None else needed

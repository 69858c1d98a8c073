"""The attempts that may hold capacity, and what executors report about them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import repeat

from sage_common.clock import Clock
from scheduler_svc.control.attempts.attempt import Attempt
from scheduler_svc.control.attempts.attempt_listener import AttemptListener, Loss
from scheduler_svc.control.attempts.attempt_names import AttemptNames
from scheduler_svc.control.attempts.executor_link import AssignOrder, ExecutorLink
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.instance_events import InstanceEvents
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.domain.attempt_end import AttemptEnd
from scheduler_svc.domain.decision import Phase

log = logging.getLogger(__name__)


class AttemptTable:
    """All attempts whose capacity may still be taken, each with the listener that is told what happens to it.

    Bounded by the capacity there is, and by one warm-up per pair of instances.
    """

    def __init__(self, links: ExecutorLinks, clock: Clock, events: InstanceEvents) -> None:
        self._links = links
        self._clock = clock
        self._events = events
        self._table: dict[int, Attempt] = {}
        self._by_instance: dict[str, dict[int, Attempt]] = {}
        self.names = AttemptNames()
        self.foreign = 0  # messages about attempts that belong to another instance than their sender; dropped
        self.of_other_epochs = 0  # messages about attempts that another scheduler began; dropped

    def __len__(self) -> int:
        return len(self._table)

    def on_instance(self, instance_id: str) -> list[Attempt]:
        """Return the attempts whose capacity the instance may hold, oldest first."""
        return list(self._by_instance.get(instance_id, {}).values())

    def find(self, number: int) -> Attempt | None:
        """Return the attempt of this number, if its capacity may still be taken."""
        return self._table.get(number)

    def send(
        self,
        number: int,
        instance_id: str,
        phase: Phase,
        listener: AttemptListener,
        order: Callable[[int], AssignOrder],
    ) -> Attempt | None:
        """Enter an attempt and send it to its executor; None if the executor has no session, and then nothing is done.

        ``order`` makes the order from the number that the Assign has in the session.
        """
        found = self._links.next_assign(instance_id)
        if found is None:
            return None
        link, assign_number = found
        attempt = self._enter(number, instance_id, phase, link, listener)
        link.assign(order(assign_number))
        return attempt

    def adopt(
        self,
        name: tuple[int, int],
        number: int,
        instance_id: str,
        phase: Phase,
        link: ExecutorLink,
        listener: AttemptListener,
    ) -> Attempt:
        """Enter an attempt that an earlier scheduler began, as epoch and number ``name``, and that its executor has."""
        self.names.adopt(name, number)
        attempt = self._enter(number, instance_id, phase, link, listener)
        attempt.accepted = True
        return attempt

    def _enter(
        self, number: int, instance_id: str, phase: Phase, link: ExecutorLink, listener: AttemptListener
    ) -> Attempt:
        attempt = Attempt(
            number=number,
            instance_id=instance_id,
            phase=phase,
            link=link,
            listener=listener,
            sent_at=self._clock.now(),
        )
        self._table[number] = attempt
        self._by_instance.setdefault(instance_id, {})[number] = attempt
        return attempt

    # --- reports of executors; ``sender`` is the instance that sent the report ----------------------

    def accepted(self, sender: str, number: int) -> None:
        """Note that an executor started an attempt."""
        attempt = self._owned(sender, number)
        if attempt is not None and not attempt.fenced:
            attempt.accepted = True
            attempt.listener.accepted()

    def rejected(self, sender: str, number: int, reason: str, message: str) -> None:
        """Note that an executor did not start an attempt; nothing of the attempt is left there."""
        attempt = self._owned(sender, number)
        if attempt is not None:
            self._remove(attempt)
            attempt.let_go().rejected(reason, message, counted=not attempt.fenced)
            self._tell_if_idle(attempt.instance_id)

    def tokens(
        self,
        sender: str,
        number: int,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
        kv_recomputed: bool = False,
    ) -> None:
        """Take new output of one attempt.  See ``AttemptListener.tokens`` for the arguments."""
        attempt = self._delivering(sender, number)
        if attempt is not None:
            attempt.listener.tokens(first_index, token_ids, text, logprobs, kv_recomputed)

    def prompt(self, sender: str, number: int, facts: PromptFacts) -> None:
        """Take what the engine of one attempt tells of the prompt."""
        attempt = self._delivering(sender, number)
        if attempt is not None:
            attempt.listener.prompt(facts)

    def published(self, sender: str, number: int) -> int | None:
        """Return how many output tokens of an attempt's request readers may have; None if the sender runs no such."""
        attempt = self._table.get(number)
        return attempt.listener.published if attempt is not None and attempt.instance_id == sender else None

    def columns(self, sender: str, output: OutputColumns) -> None:
        """Take new output of many attempts.  The hot path: every token without log probabilities passes here."""
        numbers, first_indexes, counts, text_lengths, token_ids, text = output
        table, now = self._table, self._clock.now()
        start = text_start = 0
        for number, first_index, count, text_length in zip(
            numbers, first_indexes, counts or repeat(1), text_lengths or repeat(0), strict=False
        ):
            text_end = text_start + text_length
            attempt = table.get(number)
            if attempt is None or not attempt.accepted or attempt.fenced or attempt.instance_id != sender:
                attempt = self._delivering(sender, number)
            if attempt is not None:
                piece = text[text_start:text_end]
                if count == 1:
                    attempt.listener.token(first_index, token_ids[start], piece, now)
                else:
                    attempt.listener.tokens(first_index, token_ids[start : start + count], piece, None, False)
            start += count
            text_start = text_end

    def _delivering(self, sender: str, number: int) -> Attempt | None:
        """Return an attempt whose output counts; None if there is none.  Its first output says that it is accepted."""
        attempt = self._owned(sender, number)
        if attempt is None or attempt.fenced:
            return None
        if not attempt.accepted:
            attempt.accepted = True
            if not attempt.listener.accepted():
                return None
        return attempt

    def ended(self, sender: str, end: AttemptEnd) -> LiveRequest | None:
        """Note that an attempt is over; return the request whose output and end the executor is to keep, if any."""
        attempt = self._owned(sender, end.attempt_number)
        if attempt is None:
            return None
        self._remove(attempt)
        live = attempt.let_go().ended(end, counted=not attempt.fenced)
        if end.engine_died:
            self._events.engine_died(attempt.instance_id, end.message)
        self._tell_if_idle(attempt.instance_id)
        return live

    def of_other_epoch(self, sender: str, epoch: int, number: int) -> None:
        """Count and drop a message about an attempt that another scheduler began; this one may use its number too."""
        self.of_other_epochs += 1
        if _worth_a_line(self.of_other_epochs):
            log.warning(
                "instance %s sent a message about attempt %d/%d of another epoch: dropped (%d such messages so far)",
                sender,
                epoch,
                number,
                self.of_other_epochs,
            )

    # --- what happens to instances ----------------------------------------------------------------

    def instance_lost(self, instance_id: str, reason: str, *, engine_died: bool = False) -> None:
        """End all attempts on an instance whose engine is gone, and their capacity with it.

        ``engine_died``: its executor reported that; else the executor itself is gone, or the connection to it.
        """
        why = f"{instance_id} was lost: {reason}"
        for attempt in self.on_instance(instance_id):
            self._remove(attempt)
            self._lose(attempt, why, FailoverCause.LOST, engine_died=engine_died)

    def instance_stalled(self, instance_id: str, reason: str) -> None:
        """Fence all attempts on an instance that makes no progress; it may hold their capacity until it is lost."""
        why = f"{instance_id} stalled: {reason}"
        for attempt in self.on_instance(instance_id):
            if not attempt.fenced:
                attempt.abandon(reason)
                attempt.listener.lost(
                    Loss(
                        why=why,
                        cause=FailoverCause.STALLED,
                        counted=True,
                        capacity_is_free=False,
                        blames_instance=True,
                    )
                )

    def give_back(self, instance_id: str, reason: str) -> int:
        """Fence all attempts on an instance that is to sleep; return how many.  Their requests may come back there.

        It holds their capacity until it confirms their ends.
        """
        running = [attempt for attempt in self.on_instance(instance_id) if not attempt.fenced]
        for attempt in running:
            attempt.abandon(reason)
            attempt.listener.lost(
                Loss(
                    why=f"{instance_id} is to sleep: {reason}",
                    cause=FailoverCause.RETURNED,
                    counted=True,
                    capacity_is_free=False,
                    blames_instance=False,
                )
            )
        return len(running)

    def never_arrived(self, attempt: Attempt) -> None:
        """End an attempt whose Assign was lost with a broken stream; its request may be placed anywhere again."""
        self._remove(attempt)
        why = "its Assign was lost on the way"
        self._lose(attempt, why, FailoverCause.UNDELIVERED, blames_instance=False)
        self._tell_if_idle(attempt.instance_id)

    # --- inside -----------------------------------------------------------------------------------

    def _lose(
        self,
        attempt: Attempt,
        why: str,
        cause: FailoverCause,
        *,
        blames_instance: bool = True,
        engine_died: bool = False,
    ) -> None:
        counted, attempt.fenced = not attempt.fenced, True
        attempt.let_go().lost(
            Loss(
                why=why,
                cause=cause,
                counted=counted,
                capacity_is_free=True,
                blames_instance=blames_instance,
                engine_died=engine_died,
            )
        )

    def _remove(self, attempt: Attempt) -> None:
        del self._table[attempt.number]
        self.names.forget(attempt.number)
        on_instance = self._by_instance[attempt.instance_id]
        del on_instance[attempt.number]
        if not on_instance:
            del self._by_instance[attempt.instance_id]

    def _tell_if_idle(self, instance_id: str) -> None:
        if instance_id not in self._by_instance:
            self._events.idle(instance_id)

    def _owned(self, sender: str, number: int) -> Attempt | None:
        """Return the attempt, if there is one and it is the sender's."""
        attempt = self._table.get(number)
        if attempt is not None and attempt.instance_id != sender:
            self._note_foreign(sender, number, attempt.instance_id)
            return None
        return attempt

    def _note_foreign(self, sender: str, number: int, owner: str) -> None:
        """Count and log a message of an executor about an attempt that it does not run."""
        self.foreign += 1
        if _worth_a_line(self.foreign):
            log.error(
                "instance %s sent a message about attempt %d, which belongs to %s: dropped (%d such messages so far)",
                sender,
                number,
                owner,
                self.foreign,
            )


def _worth_a_line(count: int) -> bool:
    """Return whether the 1st, 2nd, 4th, 8th ... of messages that may come per token is due."""
    return count & (count - 1) == 0

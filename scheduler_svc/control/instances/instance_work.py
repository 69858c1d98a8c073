"""What executors hold of requests: attempts, KV for others, what an earlier scheduler sent, ends kept for readers."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.attempts.held_attempt import HeldAttempt
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.requests.kept_ends import KeptEnds


class InstanceWork:
    """Carries what an instance holds from one session to the next, and frees it when its engine is gone."""

    def __init__(
        self, attempts: AttemptTable, handoffs: Handoffs, adoption: Adoption, ends: KeptEnds, *, epoch: int
    ) -> None:
        self._attempts = attempts
        self._handoffs = handoffs
        self._adoption = adoption
        self._ends = ends
        self._epoch = epoch

    def runs(self, instance_id: str) -> bool:
        """Return whether attempts run on an instance."""
        return bool(self._attempts.on_instance(instance_id))

    # --- from session to session --------------------------------------------------------------------

    def keep_held(self, instance_id: str, held: Collection[HeldAttempt]) -> tuple[int, ...]:
        """Return the held attempts that go on, by number; end the instance's other ones.

        An attempt that the executor does not hold was lost on the way.  Attempts that are not kept the executor drops
        without reporting an end, so the capacity of fenced ones is free as well.
        """
        numbers = {self._attempts.names.number(each.epoch, each.number) for each in held}
        numbers |= {each.number for each in held if each.epoch == self._epoch}
        keep = []
        for attempt in self._attempts.on_instance(instance_id):
            if attempt.number in numbers and not attempt.fenced:
                keep.append(attempt.number)
            else:
                self._attempts.never_arrived(attempt)
        return tuple(keep)

    def kept_ends(self, instance_id: str, held: Collection[HeldAttempt]) -> tuple[tuple[int, int], ...]:
        """Return the held attempts whose ends the executor keeps for readers, by epoch and number."""
        names = {(each.epoch, each.number) for each in held}
        return tuple(name for name in self._ends.attempts(instance_id) if name in names)

    def goes_on_in(self, session: Session) -> None:
        """Send what is about the instance's attempts over this session from now on."""
        for attempt in self._attempts.on_instance(session.instance_id):
            attempt.link = session.link

    def outputs_broken(self, session: Session) -> None:
        """Note that output may be lost: it is requested again when the session's output stream is back."""
        running = self._attempts.on_instance(session.instance_id)
        session.resend = tuple(attempt.number for attempt in running if not attempt.fenced)

    def outputs_opened(self, session: Session) -> None:
        """Request the output again that may be lost, from the position up to which it arrived."""
        for number in session.resend:
            attempt = self._attempts.find(number)
            if attempt is not None:
                session.link.resend(number, attempt.listener.position)
        kept = self._ends.attempts(session.instance_id)
        for name in session.resend_ended:  # or the executor takes it for one that nobody wants any more
            if name in kept:
                session.link.resend_named(*name, len(kept[name].output))
        session.resend = session.resend_ended = ()

    def adopt(self, session: Session, held: Sequence[HeldAttempt]) -> None:
        """Ask the executor for the requests of what it holds of earlier schedulers, ends aside."""
        ended = session.resend_ended
        others = [each for each in held if (each.epoch, each.number) not in ended]
        self._adoption.registered(session.instance_id, others, session.link)

    @property
    def adopts(self) -> bool:
        """Whether the next scheduler goes on with what runs when this one ends."""
        return self._adoption.on

    # --- without the instance -----------------------------------------------------------------------

    def lost(self, instance_id: str, reason: str, *, engine_died: bool) -> None:
        """End everything on an engine that is gone; the requests go on elsewhere."""
        self._adoption.lost(instance_id)
        self._ends.release_all(instance_id)
        self._attempts.instance_lost(instance_id, reason, engine_died=engine_died)
        self._handoffs.instance_lost(instance_id, reason)

    def stalled(self, instance_id: str, reason: str) -> None:
        """Fence the attempts on an engine that stands still; the requests go on elsewhere."""
        self._attempts.instance_stalled(instance_id, reason)
        self._handoffs.instance_stalled(instance_id, reason)

    def give_back(self, instance_id: str, reason: str) -> int:
        """Have the requests that run on an instance wait again, with the tokens they have; return how many did."""
        return self._attempts.give_back(instance_id, reason)

    def release_ends(self, instance_id: str) -> None:
        """Have the executor keep no ends any more, because it drains."""
        self._ends.release_all(instance_id)

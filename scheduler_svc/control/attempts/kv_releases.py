"""Has KV blocks freed that a prefill leg left behind and that no decode leg will fetch."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable

from sage_common.clock import Clock
from scheduler_svc.control.attempts.executor_link import ExecutorLink
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.handoff import Handoff
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class KvReleases:
    """Asks executors to release KV blocks, and takes in their answers.

    Only the engine of an instance that could fetch the blocks can tell the prefill engine to free them.  Without an
    answer the blocks are free at the end of their lease, and KvReleases forgets that it asked.
    """

    def __init__(
        self, scheduler: Scheduler, clock: Clock, links: ExecutorLinks, release: Callable[[int], None]
    ) -> None:
        """``release`` frees the capacity reserved for the attempt of this number."""
        self._scheduler = scheduler
        self._clock = clock
        self._links = links
        self._release = release
        self._asked: dict[int, tuple[str, int]] = {}  # release number -> instance that was asked, prefill attempt
        self._numbers = itertools.count(1)

    def ask(self, handoff: Handoff) -> None:
        """Ask an instance that could fetch the blocks to have them freed."""
        found = self._link_that_could_fetch(handoff)
        if found is None:
            log.warning(
                "KV blocks of attempt %d stay until their lease ends: no connected instance can have them freed",
                handoff.prefill_number,
            )
            return
        instance_id, link = found
        number = next(self._numbers)
        self._asked[number] = instance_id, handoff.prefill_number
        self._clock.call_at(handoff.lease_ends_at, lambda: self._forget(number))
        link.release_kv(number, handoff.params)

    def answered(self, sender: str, number: int, *, released: bool, message: str) -> None:
        """Take an executor's answer; an answer from an executor that was not asked is ignored."""
        asked, prefill_number = self._asked.get(number, ("", 0))
        if asked != sender:
            return
        del self._asked[number]
        if released:
            self._release(prefill_number)
        else:
            log.warning("KV blocks of attempt %d stay until their lease ends: %s", prefill_number, message)

    def _forget(self, number: int) -> None:
        self._asked.pop(number, None)

    def _link_that_could_fetch(self, handoff: Handoff) -> tuple[str, ExecutorLink] | None:
        others = [
            pair.decode.instance_id
            for pair in self._scheduler.pairs()
            if pair.prefill.instance_id == handoff.prefill_instance
        ]
        for instance_id in (handoff.decode_instance, *others):
            instance = self._scheduler.find_instance(instance_id)
            link = self._links.find(instance_id)
            if link is not None and instance is not None and instance.state is not InstanceState.STALLED:
                return instance_id, link
        return None

"""Requests that were present when engines died: they run alone, so that no other stream dies with them.

One request can end engine after engine: by a kernel that fails an assertion, by memory that it alone needs.  Which of
the requests on a dead engine did it cannot be seen.  So a request that was present at two deaths is quarantined: it
runs on an instance that runs nothing else, one such request at a time and model.  It is acquitted once it has run
there for more tokens than before any of the deaths.  If the engine of that instance dies as well, before a new token
or as the fourth, the request ends.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

DEATHS_TO_QUARANTINE = 2
"""Engine deaths at which a request was present, after which it runs alone."""


DEATHS_TO_END = 4
"""Engine deaths that end a quarantined request, even if each of its attempts had delivered new tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class EngineDeath:
    """The death of an engine while it ran an attempt."""

    instance_id: str
    certain: bool  # its executor reported it; else the connection was lost before the attempt had a new token
    tokens: int  # output tokens that the attempt delivered before it


class Quarantine:
    """Decides which requests run alone."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler

    def died(self, live: LiveRequest, death: EngineDeath, now: float) -> str:
        """Note that an engine died under a request.

        Returns why the request ends; empty if it may go on.
        """
        setbacks = live.setbacks
        setbacks.deaths.append(death.instance_id)
        setbacks.tokens_before_death = max(setbacks.tokens_before_death, death.tokens)
        where = ", ".join(setbacks.deaths)
        if setbacks.alone and death.certain and (not death.tokens or len(setbacks.deaths) >= DEATHS_TO_END):
            why = f"quarantined: engines died while they ran it ({where}), the last one while it ran nothing else"
            log.error("request %s ends: %s", live.key, why, extra=live.about)
            return why
        if len(setbacks.deaths) >= DEATHS_TO_QUARANTINE and not setbacks.alone:
            setbacks.alone = True
            why = f"present when the engines of {where} died: it runs alone from now on"
            log.error("request %s is quarantined: %s", live.key, why, extra=live.about)
            live.note(now, "quarantined", why)
            live.observed.quarantined(live, now)
        return ""

    def outlived(self, live: LiveRequest, attempt_number: int, tokens: int, now: float) -> None:
        """Acquit a quarantined request whose attempt has delivered more tokens than any attempt before a death."""
        setbacks = live.setbacks
        if tokens <= setbacks.tokens_before_death:
            return
        setbacks.alone = False
        del setbacks.deaths[:-1]  # one more death, and it is quarantined again
        self._scheduler.share_instance(attempt_number)
        log.info("request %s leaves quarantine after %d tokens alone", live.key, tokens, extra=live.about)
        live.note(now, "acquitted", f"ran alone for {tokens} tokens")

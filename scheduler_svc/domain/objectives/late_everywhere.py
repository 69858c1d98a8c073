"""Where a request goes, or whether it waits, that makes somebody late wherever it goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Mask, count
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.held_back import with_company

#: An instance whose time per token is predicted above the tightest target there by no more than this factor counts as
#: kept in time: one request less, and it is.
_NEARLY = 1.1
#: As many requests wait at most as are predicted to end within so many times the TTFT target of the next one.
_MOST_TARGETS = 2.0
#: The rule by which a request goes to the most crowded instance, and why it does.
RULE = "most_crowded"
WHY = "somebody is late wherever it goes: it goes where those who run are the latest"
_LEAST_S = 1e-6  # per token of an engine that seems to take no time


class LateEverywhere:
    """How crowded the instances that can serve a request would be with it, prompts ahead or not.

    Spread out, the requests beyond what a fleet does within its targets make everybody late.  Sent to one instance,
    they make those late who run there, and the others stay in time.  So such a request goes where those who run are
    the latest already, and waits while prompts that are ahead keep it out there.

    This is worth it only where most instances are kept in time.  Where targets are tighter than that, requests are
    spread out, and nobody waits.
    """

    __slots__ = ("_accounts", "_demand", "_each", "_pressure", "_taking", "_token_s")

    def __init__(self, demand: Demand, accounts: Sequence[Account], own_s: float, now: float) -> None:
        """``accounts``: those that can serve the request.  ``own_s``: its TPOT target; infinite without one."""
        self._demand = demand
        self._accounts = accounts
        self._each = each = figures_of(accounts)
        self._token_s = scorers.token_beside_prompt_s(each, demand)
        # What is predicted per token, by the tightest target there: above 1, somebody is late.
        self._pressure = with_company(each, self._token_s) / np.minimum(each.tightest_token_s, own_s)
        self._taking = self._which_take(now)

    @property
    def room_soon(self) -> bool:
        """Whether nobody would be late on an instance with a free slot.

        It is not offered, as prompts are ahead there, which are computed in a moment.
        """
        return count(self._taking & (self._pressure <= 1)) > 0

    @property
    def keeps_most(self) -> bool:
        """Whether at least half of the instances are kept in time."""
        return 2 * count(self._pressure <= _NEARLY) >= len(self._pressure)

    def few_wait(self, ttft_s: float) -> bool:
        """Whether no more requests wait than end within some TTFT targets.  ``ttft_s``: that of the request."""
        outputs_s = self._demand.output_tokens * np.maximum(self._token_s, _LEAST_S)
        ends_per_s = float((self._each.live / outputs_s).sum())
        return self._demand.others_wait < ends_per_s * _MOST_TARGETS * ttft_s

    def most_crowded(self) -> Account | None:
        """Return the instance where those who run are the latest; None if none has room."""
        rows = self._taking.nonzero()[0]
        return self._accounts[int(rows[self._pressure[rows].argmax()])] if len(rows) else None

    def _which_take(self, now: float) -> Mask:
        """Return which have room for the request, now or once prompts are computed that are not overdue."""
        each, demand = self._each, self._demand
        room = (each.slot_limit >= demand.prompt_tokens) & (each.free_tokens >= demand.tokens)
        soon = (each.full_prefill_s <= 0) | (each.ready_at > now)
        taking: Mask = room & soon & each.with_free_slot
        return taking

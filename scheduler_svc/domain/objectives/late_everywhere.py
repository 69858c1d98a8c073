"""Where a request goes, or whether it waits, that makes somebody late wherever it goes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of, row_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Mask, count
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.objectives.held_back import MOST_LATE_S, MOST_S, with_company
from scheduler_svc.domain.objectives.overdue import is_overdue
from scheduler_svc.domain.objectives.scorers import Scores

#: An instance whose time per token is predicted above the tightest target there by no more than this factor counts as
#: kept in time: one request less, and it is.
_NEARLY = 1.1
#: As many requests wait at most as are predicted to end within so many times the TTFT target of the next one.
_MOST_TARGETS = 2.0
#: The rule by which a request goes to the most crowded instance, and why it does, or waits.
RULE = "most_crowded"
WHY = "somebody is late wherever it goes: it goes where those who run are the latest"
WAITS = "waits for its turn where those who run are the latest, as somebody is late wherever it goes"
_LEAST_S = 1e-6  # per token of an engine that seems to take no time


class LateEverywhere:
    """How crowded the instances that can serve a request would be with it, prompts ahead or not.

    Spread out, the requests beyond what a fleet does within its targets make everybody late.  Sent to one instance,
    they make those late who run there, and the others stay in time.  So such a request goes where those who run are
    the latest already, and waits while prompts that are ahead keep it out there.

    This is worth it only where most instances are kept in time.  Where targets are tighter than that, requests are
    spread out, and nobody waits.
    """

    __slots__ = (
        "_accounts",
        "_demand",
        "_each",
        "_is_offered",
        "_now",
        "_offered",
        "_pressure",
        "_roomy",
        "_taking",
        "_token_s",
    )

    def __init__(
        self, demand: Demand, accounts: Sequence[Account], offered: Sequence[Account], own_s: float, now: float
    ) -> None:
        """``accounts``: those that can serve the request.

        ``offered``: of these, perhaps among others, those that take a prompt now.  ``own_s``: the request's TPOT
        target; infinite without one.
        """
        self._demand = demand
        self._accounts = accounts
        self._offered = offered
        self._now = now
        self._each = each = figures_of(accounts)
        self._token_s = scorers.token_beside_prompt_s(accounts, demand)
        # What is predicted per token, by the tightest target there: above 1, somebody is late.
        self._pressure = with_company(each, self._token_s) / np.minimum(each.tightest_token_s, own_s)
        self._is_offered = _which(accounts, offered)
        self._taking = self._which_take(now)
        self._roomy: Mask = self._taking & (self._pressure <= 1)

    def settle(self, *, patient: bool, ttft_s: float) -> tuple[int | None, bool]:
        """Return the row of those offered where the request goes, None: wherever; and whether it waits instead.

        ``patient``: whether it stays in time if it waits.  ``ttft_s``: its TTFT target, or its class's.  One whose
        patience is over may come late for this wait, but does not miss a deadline for it.
        """
        if count(self._roomy & self._is_offered):
            return None, False
        if patient and count(self._roomy):
            return None, True  # prompts are ahead there, which are computed in a moment
        if not self._keeps_most or (crowded := self._most_crowded()) is None:
            return None, False
        row = row_of(self._offered, crowded.instance_id)
        if not patient and (row is not None or self._demand.request.target_at is not None):
            return row, False
        most_s = MOST_S if patient else MOST_LATE_S
        return row, self._now - self._demand.request.arrived_at < most_s and self._few_wait(ttft_s)

    def roomy_among(self, accounts: Sequence[Account]) -> Mask:
        """Return which of the accounts take the request now without anybody being late there."""
        rows = (self._roomy & self._is_offered).nonzero()[0].tolist()
        return _which(accounts, [self._accounts[row] for row in rows])

    @property
    def _keeps_most(self) -> bool:
        """Whether at least half of the instances are kept in time."""
        return 2 * count(self._pressure <= _NEARLY) >= len(self._pressure)

    def _few_wait(self, ttft_s: float) -> bool:
        """Whether no more requests wait than end within some TTFT targets."""
        outputs_s = self._demand.output_tokens * np.maximum(self._token_s, _LEAST_S)
        ends_per_s = float((self._each.live / outputs_s).sum())
        return self._demand.others_wait < ends_per_s * _MOST_TARGETS * ttft_s

    def _most_crowded(self) -> Account | None:
        """Return the instance where those who run are the latest; None if none has room, or nobody is late there."""
        rows = (self._taking & (self._pressure > 1)).nonzero()[0]
        latest_first = rows[np.argsort(-self._pressure[rows], kind="stable")].tolist()
        return next((a for a in map(self._accounts.__getitem__, latest_first) if not is_overdue(a, self._now)), None)

    def _which_take(self, now: float) -> Mask:
        """Return which have room for the request, now or once the prompts are computed that keep it out."""
        each, demand = self._each, self._demand
        room = (each.slot_limit >= demand.prompt_tokens) & (each.free_tokens >= demand.tokens)
        soon = (each.full_prefill_s > 0) & (each.ready_at > now)
        taking: Mask = room & (self._is_offered | soon) & each.with_free_slot
        return taking


def too_late_only_there(row: int | None, due: Scores | None, least_due: float) -> bool:
    """Whether its first token, or its end, would be too late for a request in this row, and in time elsewhere.

    ``due``: the share of the time to these that it would use in each row; None: they have no target.
    ``least_due``: the least of that where it may go.
    """
    return row is not None and due is not None and least_due <= 1 < due.item(row)


def _which(accounts: Sequence[Account], offered: Sequence[Account]) -> Mask:
    """Return which of the accounts are offered."""
    if accounts is offered:
        return np.ones(len(accounts), dtype=np.bool_)
    ids = {account.instance_id for account in offered}
    return np.array([account.instance_id in ids for account in accounts], dtype=np.bool_)

"""Holds a request back that would make those late who run on the instances already."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

import numpy as np

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Figures, Mask, count, lowest
from scheduler_svc.domain.objectives import one_candidate, scorers
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.objectives.scorers import Scores
from scheduler_svc.domain.prediction.margin import PRIOR_MARGINS
from scheduler_svc.domain.request import Priority, Request
from scheduler_svc.domain.targets import Targets, ttft_target_of

#: Share of its TTFT target, and of the time to its deadline, for which a request may be held back: the rest is for its
#: prompt and for what is ahead.
PATIENCE = 0.5
#: Seconds for which a request is held back at most: half of what its class leaves a BACKGROUND request.
MOST_S = 60.0
#: Most of what is left of its targets that a request which is held back may be predicted to use: one whose prompt or
#: output takes more goes before the wait makes it late.
HEADROOM = 0.8
#: Seconds after its arrival for which a request whose patience is over waits for its turn where others are late.
MOST_LATE_S = 15.0
#: How much what company adds to a time per token may grow: later requests come, and those who run get longer.
COMPANY = 1.2
#: The rule by which a request waits for others, and why it does.
RULE = "waits_for_others"
WAITS = "waits until those who run on the instances are not late for it"


def may_wait(demand: Demand, defaults: Mapping[Priority, Targets], now: float) -> bool:
    """Whether a request may be held back: it did not begin elsewhere, and is patient."""
    return not demand.started and is_patient(demand.request, defaults, now)


def is_patient(request: Request, defaults: Mapping[Priority, Targets], now: float) -> bool:
    """Whether a request has waited for less than ``PATIENCE`` of its TTFT target and deadline, and ``MOST_S``.

    One that states no TTFT target waits as its class's allows.
    """
    patience_s = min(PATIENCE * (ttft_target_of(request, defaults) or 0.0), MOST_S)
    due_at = request.target_at
    if due_at is not None:
        patience_s = min(patience_s, PATIENCE * (due_at - request.arrived_at))
    return now - request.arrived_at < patience_s


def gives_way(late: Mask, shares: Scores) -> bool:
    """Whether a request should wait: where it would be in time, it makes others late, and it stays in time meanwhile.

    ``late``: where it makes others late.  ``shares``: of its targets that it is predicted to use.  One that would be in
    time nowhere gains nothing for itself by waiting, and often others go before it anyway.
    """
    return count(late & (shares <= HEADROOM)) > 0 and count(~late & (shares <= 1)) == 0


def held_back(scores: Mapping[str, Scores | Sequence[float]], *, why: str = WAITS, alike: bool = False) -> Choice:
    """Have a request wait for others.

    ``scores``: of the accounts that were offered.  ``alike``: whether whoever asks for as much waits as well.
    """
    return Choice(index=0, why=why, rule=RULE, scores=scores, waits=True, waits_alike=alike)


def makes_late(accounts: Sequence[Account], demand: Demand, own_s: float) -> Mask | None:
    """Return for each instance whether one more request is predicted to make those late who run there; None: nowhere.

    Late is a time per token above the tightest TPOT target of those who run there, as predicted once one more is
    there, its prompt beside them.  ``own_s``: the request's own TPOT target; infinite without one.

    More requests come later.  So one whose own target is looser adds half of the margin that the engine's own times
    have shown to be needed, but no more than of an engine of which nothing is known yet: a margin that is borrowed with
    another engine's pace says how far that pace may be off.  No step takes longer than one that is full of prompt
    tokens.  One whose own target is as tight adds some company (``with_company``).
    """
    each = figures_of(accounts)
    tightest = each.tightest_token_s
    if lowest(tightest) == inf:
        return None
    per_token = scorers.token_beside_prompt_s(accounts, demand)
    with_margin = per_token * (1 + np.minimum(each.token_margin, PRIOR_MARGINS.token)) / 2
    expected = np.minimum(with_margin, np.maximum(per_token, each.chunk_s))
    late: Mask = np.where(tightest < own_s, expected, with_company(each, per_token)) > tightest
    return late if late.any() else None


def one_makes_late(account: Account, demand: Demand, own_s: float) -> bool:
    """Return for the only instance what ``makes_late`` does."""
    if account.tightest_token_s == inf:
        return False
    token_s = one_candidate.token_beside_prompt_s(account, demand)
    if account.tightest_token_s >= own_s:
        lone_s = account.lone_token_s
        return lone_s + COMPANY * max(token_s - lone_s, 0.0) > account.tightest_token_s
    with_margin = token_s * (1 + min(account.token_margin, PRIOR_MARGINS.token)) / 2
    return min(with_margin, max(token_s, account.chunk_s)) > account.tightest_token_s


def with_company(each: Figures, per_token: Scores) -> Scores:
    """Return the time per token with a fifth as much company again.

    What a sequence takes without any is known, and as good as certain.  So a target that an engine just reaches counts
    as kept while next to nothing else runs there.
    """
    lone: Scores = each.lone_token_s
    return lone + COMPANY * np.maximum(per_token - lone, 0.0)

"""How good each instance would be for a request: seconds, cost or share; lower is better.

A pass scores every instance for every request, so each formula is written once for all of them: the accounts' figures
are columns, and so are the scores.  A rule of one's own may as well loop over the accounts and give a list.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.accounts import figures_of
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.figures import Column, Figures
from scheduler_svc.domain.capacity.prefill_rate import PREFILL_MEMORY_S

Scores = Column
"""A score for each account, in their order."""

#: Least share of its time that an engine is taken to have left for output tokens.
LEAST_LEFT = 0.05
_ONE = np.array(1.0)  # added to a column in half the time that a number takes


def start_s(accounts: Sequence[Account], now: float) -> Scores:
    """Predict seconds until prefill starts: after prompts that wait there and, without a free slot, the next end."""
    each = figures_of(accounts)
    return np.maximum(each.ready_at - now, each.start_floor)


def prefill_s(accounts: Sequence[Account], demand: Demand) -> Scores:
    """Predict seconds of prefill: of the prompt tokens that an instance's prefix cache does not hold."""
    held = demand.cached_in(accounts) if demand.cached_tokens else None
    return prefill_beside_s(figures_of(accounts), demand, held)


def prefill_beside_s(each: Figures, demand: Demand, held: Column | None) -> Scores:
    """Predict seconds of prefill, as ``prefill_s`` does.

    ``held``: prompt tokens in each instance's prefix cache, which count where caches are known; None: none.
    """
    prompt = float(demand.prompt_tokens)
    if not demand.cache_known:
        return each.prefill_token_s * prompt
    return each.computed_token_s * (prompt if held is None else prompt - held)


def first_token_s(accounts: Sequence[Account], demand: Demand, starts: Scores) -> Scores:
    """Predict seconds until the first token: the start, and the prompt's prefill."""
    return starts + figures_of(accounts).decode_token_s + prefill_s(accounts, demand)


def first_step_s(each: Figures, now: float) -> Scores:
    """Predict seconds until the first token, the prompt's own prefill left out: the start, and one iteration."""
    return np.maximum(each.first_step_at - now, each.first_step_floor)


def overtaking_first_step_s(each: Figures, now: float) -> Scores:
    """Predict the same of a request whose prompt goes before those of other classes.

    The engines may be without priorities: then all that is ahead stays ahead.
    """
    starts = np.maximum(each.ready_at - now, each.start_floor)
    return np.maximum(starts - each.overtaken_s, 0.0) + each.decode_token_s


def token_s(accounts: Sequence[Account] | Figures, demand: Demand) -> Scores:
    """Predict seconds per output token after the first, prefill that shares the iterations included."""
    each = figures_of(accounts)
    return each.output_token_s + each.output_kv_token_s * (demand.prompt_tokens + demand.output_tokens / 2)


def token_beside_prompt_s(accounts: Sequence[Account], demand: Demand) -> Scores:
    """Predict the same of those who run there meanwhile: the request's own prompt shares their iterations, too."""
    each = figures_of(accounts)
    if demand.decode_leg:
        return token_s(each, demand)
    left, taken = each.decode_share, prefill_s(accounts, demand) / PREFILL_MEMORY_S
    beside: Scores = token_s(each, demand) * (left / np.maximum(left - taken, LEAST_LEFT))
    return beside


def finish_s(demand: Demand, first_tokens: Scores, per_token: Scores) -> Scores:
    """Predict seconds until the last token."""
    return first_tokens + float(demand.output_tokens - 1) * per_token


def cost(accounts: Sequence[Account], demand: Demand, per_token: Scores, prefills: Scores | None = None) -> Scores:
    """Predict price x busy share: prefill has the engine to itself, a decode step is shared by all that run.

    ``prefills``: from ``prefill_s``, if the caller has them.
    """
    if prefills is None:
        prefills = prefill_s(accounts, demand)
    return cost_by(figures_of(accounts).costing, demand.output_tokens, per_token, prefills)


def cost_by(costing: NDArray[np.float64], output_tokens: int, per_token: Scores, prefills: Scores) -> Scores:
    """Predict the same.  ``costing``: from ``Figures.costing``."""
    decode_token_s, live, price_per_s = costing
    decode_s = float(output_tokens - 1) * per_token / (live + _ONE)  # as many run once one more is there
    costs: Scores = price_per_s * (prefills + decode_token_s + decode_s)
    return costs

"""The scorers' formulas for the only instance that is offered, as a saturated fleet offers one at a time.

Plain numbers: a column of one entry takes numpy as long as one of a hundred.  A test holds both equal to the last bit.
"""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.prefill_rate import PREFILL_MEMORY_S
from scheduler_svc.domain.objectives.scorers import LEAST_LEFT


def first_step_s(account: Account, now: float) -> float:
    """Predict what ``scorers.first_step_s`` does."""
    return max(account.first_step_at - now, account.first_step_floor)


def overtaking_first_step_s(account: Account, now: float) -> float:
    """Predict what ``scorers.overtaking_first_step_s`` does."""
    start_s = max(account.ready_at - now, account.start_floor)
    return max(start_s - account.overtaken_s, 0.0) + account.decode_token_s


def prefill_s(account: Account, demand: Demand) -> float:
    """Predict what ``scorers.prefill_s`` does of a prompt of which the cache holds nothing."""
    per_token = account.computed_token_s if demand.cache_known else account.prefill_token_s
    return per_token * float(demand.prompt_tokens)


def cost(account: Account, demand: Demand, per_token_s: float, prefill_s: float) -> float:
    """Predict what ``scorers.cost`` does."""
    decode_s = float(demand.output_tokens - 1) * per_token_s / (account.live + 1.0)
    return account.price_per_s * (prefill_s + account.decode_token_s + decode_s)


def token_s(account: Account, demand: Demand) -> float:
    """Predict what ``scorers.token_s`` does."""
    context = demand.prompt_tokens + demand.output_tokens / 2
    return account.output_token_s + account.output_kv_token_s * context


def token_beside_prompt_s(account: Account, demand: Demand) -> float:
    """Predict what ``scorers.token_beside_prompt_s`` does."""
    if demand.decode_leg:
        return token_s(account, demand)
    left, taken = account.decode_share, prefill_s(account, demand) / PREFILL_MEMORY_S
    return token_s(account, demand) * (left / max(left - taken, LEAST_LEFT))

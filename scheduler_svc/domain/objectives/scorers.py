"""How good an instance would be for a request: seconds, cost or share; lower is better.

All are loops over plain numbers that the accounts keep ready: a pass scores every instance for every request.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand

Scores = list[float]


def start_s(accounts: Sequence[Account], now: float) -> Scores:
    """Predict seconds until prefill starts: after prompts that wait there and, without a free slot, the next end."""
    return [s if (s := a.ready_at - now) > a.start_floor else a.start_floor for a in accounts]


def first_token_s(accounts: Sequence[Account], demand: Demand, starts: Scores) -> Scores:
    """Predict seconds until the first token: the start, and the prompt's prefill."""
    p = demand.prompt_tokens
    return [s + a.decode_token_s + a.prefill_token_s * p for a, s in zip(accounts, starts, strict=True)]


def token_s(accounts: Sequence[Account], demand: Demand) -> Scores:
    """Predict seconds per output token after the first, prefill that shares the iterations included."""
    kv = demand.prompt_tokens + demand.output_tokens / 2
    return [a.output_token_s + a.output_kv_token_s * kv for a in accounts]


def finish_s(demand: Demand, first_tokens: Scores, per_token: Scores) -> Scores:
    """Predict seconds until the last token."""
    later_tokens = demand.output_tokens - 1
    return [f + later_tokens * t for f, t in zip(first_tokens, per_token, strict=True)]


def cost(accounts: Sequence[Account], demand: Demand, per_token: Scores) -> Scores:
    """Predict price x busy share: prefill has the engine to itself, a decode step is shared by all that run."""
    p, later_tokens = demand.prompt_tokens, demand.output_tokens - 1
    return [
        a.price_per_s * (a.prefill_token_s * p + a.decode_token_s + later_tokens * t / (a.live + 1))
        for a, t in zip(accounts, per_token, strict=True)
    ]


def emptiness(accounts: Sequence[Account]) -> Scores:
    """Return the share of slots or KV tokens that is free, whichever is scarcer: the fullest comes first."""
    return [1 - a.fullness for a in accounts]

"""How good an instance would be for a request: seconds, cost or share; lower is better.

All are loops over plain numbers that the accounts keep ready: a pass scores every instance for every request.  Token
counts become floats before a loop, not in it: that takes a fifth less time.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand

Scores = list[float]


def start_s(accounts: Sequence[Account], now: float) -> Scores:
    """Predict seconds until prefill starts: after prompts that wait there and, without a free slot, the next end."""
    return [s if (s := a.ready_at - now) > a.start_floor else a.start_floor for a in accounts]


def prefill_s(accounts: Sequence[Account], demand: Demand) -> Scores:
    """Predict seconds of prefill: of the prompt tokens that an instance's prefix cache does not hold."""
    p = float(demand.prompt_tokens)
    if not demand.cache_known:
        return [a.prefill_token_s * p for a in accounts]
    cached = demand.cached_tokens
    if not cached:
        return [a.computed_token_s * p for a in accounts]
    return [a.computed_token_s * (p - cached.get(a.instance_id, 0)) for a in accounts]


def first_token_s(accounts: Sequence[Account], demand: Demand, starts: Scores) -> Scores:
    """Predict seconds until the first token: the start, and the prompt's prefill."""
    if demand.cache_known:
        prefills = prefill_s(accounts, demand)
        return [s + a.decode_token_s + p for a, s, p in zip(accounts, starts, prefills, strict=True)]
    p = float(demand.prompt_tokens)
    return [s + a.decode_token_s + a.prefill_token_s * p for a, s in zip(accounts, starts, strict=True)]


def token_s(accounts: Sequence[Account], demand: Demand) -> Scores:
    """Predict seconds per output token after the first, prefill that shares the iterations included."""
    kv = demand.prompt_tokens + demand.output_tokens / 2
    return [a.output_token_s + a.output_kv_token_s * kv for a in accounts]


def finish_s(demand: Demand, first_tokens: Scores, per_token: Scores) -> Scores:
    """Predict seconds until the last token."""
    later_tokens = demand.output_tokens - 1
    return [f + later_tokens * t for f, t in zip(first_tokens, per_token, strict=True)]


def whole_run_s(accounts: Sequence[Account], demand: Demand, now: float) -> Scores:
    """Predict seconds until the last token, as ``finish_s`` does of the times before it, in one loop."""
    p, later_tokens = float(demand.prompt_tokens), float(demand.output_tokens - 1)
    later_kv = later_tokens * (p + demand.output_tokens / 2)
    if demand.cache_known:
        cached = demand.cached_tokens.get
        return [
            (s if (s := a.first_step_at - now) > a.first_step_floor else a.first_step_floor)
            + a.computed_token_s * (p - cached(a.instance_id, 0))
            + a.output_token_s * later_tokens
            + a.output_kv_token_s * later_kv
            for a in accounts
        ]
    return [
        (s if (s := a.first_step_at - now) > a.first_step_floor else a.first_step_floor)
        + a.prefill_token_s * p
        + a.output_token_s * later_tokens
        + a.output_kv_token_s * later_kv
        for a in accounts
    ]


def cost(accounts: Sequence[Account], demand: Demand, per_token: Scores) -> Scores:
    """Predict price x busy share: prefill has the engine to itself, a decode step is shared by all that run."""
    later_tokens = demand.output_tokens - 1
    return [
        a.price_per_s * (prefill + a.decode_token_s + later_tokens * t / (a.live + 1))
        for a, prefill, t in zip(accounts, prefill_s(accounts, demand), per_token, strict=True)
    ]


def emptiness(accounts: Sequence[Account]) -> Scores:
    """Return the share of slots or KV tokens that is free, whichever is scarcer: the fullest comes first."""
    return [1 - a.fullness for a in accounts]

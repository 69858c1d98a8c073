"""What an instance would be like for a request.  Lower is better; the unit is in the name.

All are loops over plain numbers that the accounts keep ready: a pass scores every instance for every request.
"""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand

Scores = list[float]


def start_s(accounts: Sequence[Account], now: float) -> Scores:
    """Seconds until prefill starts: behind what waits for prefill there and, without a free slot, the next to end."""
    return [s if (s := a.ready_at - now) > a.start_floor else a.start_floor for a in accounts]


def first_token_s(accounts: Sequence[Account], demand: Demand, starts: Scores) -> Scores:
    """Seconds until the first token: start, and the prompt's prefill."""
    p = demand.prompt_tokens
    return [s + a.decode_token_s + a.prefill_token_s * p for a, s in zip(accounts, starts, strict=True)]


def token_s(accounts: Sequence[Account], demand: Demand) -> Scores:
    """Seconds per output token after the first."""
    kv = demand.prompt_tokens + demand.output_tokens / 2
    return [a.decode_token_s + a.kv_token_s * kv for a in accounts]


def finish_s(demand: Demand, first_tokens: Scores, per_token: Scores) -> Scores:
    """Seconds until the last token."""
    rest = demand.output_tokens - 1
    return [f + rest * t for f, t in zip(first_tokens, per_token, strict=True)]


def cost(accounts: Sequence[Account], demand: Demand, per_token: Scores) -> Scores:
    """Price x busy share: prefill has the engine to itself, a decode step is shared by those who run."""
    p, rest = demand.prompt_tokens, demand.output_tokens - 1
    return [
        a.price_per_s * (a.prefill_token_s * p + a.decode_token_s + rest * t / (a.live + 1))
        for a, t in zip(accounts, per_token, strict=True)
    ]


def emptiness(accounts: Sequence[Account]) -> Scores:
    """Share of slots or KV room that is free, whichever is scarcer: the fullest comes first."""
    return [1 - a.fullness for a in accounts]

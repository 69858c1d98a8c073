"""Predicts the times and the cost of a request's run, before it is placed."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.decision import Prediction
from scheduler_svc.domain.placement.split_planner import HANDOFF_PRIOR_S, Split


def predict_run(account: Account, demand: Demand, now: float) -> Prediction:
    """Predict start, first token, finish and cost if the request were sent to this instance now.

    The formulas are those of ``objectives.scorers``, written for one instance: a decision predicts one run after it
    scored every candidate.  Only here a prompt alone starts as late as was learned.
    """
    prompt, later_tokens = demand.prompt_tokens, demand.output_tokens - 1
    start_s = max(account.ready_at - now, account.start_floor) + _alone_delay_s(account)
    if demand.overtakes:
        start_s = max(start_s - account.overtaken_s, 0.0)
    prefill_s = account.prefill_s(prompt, demand.cached_on(account.instance_id))
    first_token_s = start_s + account.decode_token_s + prefill_s
    token_s = account.output_token_s + account.output_kv_token_s * (prompt + demand.output_tokens / 2)
    busy_s = prefill_s + account.decode_token_s + later_tokens * token_s / (account.live + 1)
    return Prediction(
        start_s=start_s,
        first_token_s=first_token_s,
        finish_s=first_token_s + later_tokens * token_s,
        output_tokens=demand.output_tokens,
        cost=account.price_per_s * busy_s,
    )


def predict_split_run(split: Split, demand: Demand) -> Prediction:
    """Predict a split request's run: prefill on one instance, the handoff, decode on the other."""
    decode, prefill = split.decode, split.prefill
    prompt, later_tokens = demand.prompt_tokens, demand.output_tokens - 1
    handoff_s = split.pair.handoff_s if split.pair.handoff_s is not None else HANDOFF_PRIOR_S
    prefill_s = prefill.prefill_s(prompt, demand.cached_on(prefill.instance_id))
    start_s = split.prefill_start_s + _alone_delay_s(prefill)
    first_token_s = start_s + prefill.decode_token_s + prefill_s + handoff_s
    token_s = decode.output_token_s + decode.output_kv_token_s * (prompt + demand.output_tokens / 2)
    prefill_cost = prefill.price_per_s * prefill_s
    decode_cost = decode.price_per_s * later_tokens * token_s / (decode.live + 1)
    return Prediction(
        start_s=start_s,
        first_token_s=first_token_s,
        finish_s=first_token_s + later_tokens * token_s,
        output_tokens=demand.output_tokens,
        cost=prefill_cost + decode_cost,
    )


def _alone_delay_s(account: Account) -> float:
    return 0.0 if account.pending.prompts else account.alone_delay_s

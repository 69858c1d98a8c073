"""What a request's run is predicted to be like, before it is placed."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.decision import Prediction
from scheduler_svc.domain.objectives import scorers
from scheduler_svc.domain.placement.split_planner import HANDOFF_PRIOR_S, Split


def predict_run(account: Account, demand: Demand, now: float) -> Prediction:
    """Predict start, first token, finish and cost if the request were sent to this instance now."""
    one = (account,)
    starts = scorers.start_s(one, now)
    first_tokens = scorers.first_token_s(one, demand, starts)
    per_token = scorers.token_s(one, demand)
    return Prediction(
        start_s=starts[0],
        first_token_s=first_tokens[0],
        finish_s=scorers.finish_s(demand, first_tokens, per_token)[0],
        output_tokens=demand.output_tokens,
        cost=scorers.cost(one, demand, per_token)[0],
    )


def predict_split_run(split: Split, demand: Demand) -> Prediction:
    """Predict the same for a split request: prefill on one instance, the handoff, the rest on the other."""
    decode, prefill = split.decode, split.prefill
    one = (decode,)
    per_token = scorers.token_s(one, demand)
    handoff_s = split.pair.handoff_s if split.pair.handoff_s is not None else HANDOFF_PRIOR_S
    start_s = split.prefill_start_s
    first_s = start_s + prefill.decode_token_s + prefill.prefill_token_s * demand.prompt_tokens + handoff_s
    prefill_cost = prefill.price_per_s * prefill.prefill_token_s * demand.prompt_tokens
    decode_cost = decode.price_per_s * (demand.output_tokens - 1) * per_token[0] / (decode.live + 1)
    return Prediction(
        start_s=start_s,
        first_token_s=first_s,
        finish_s=scorers.finish_s(demand, [first_s], per_token)[0],
        output_tokens=demand.output_tokens,
        cost=prefill_cost + decode_cost,
    )

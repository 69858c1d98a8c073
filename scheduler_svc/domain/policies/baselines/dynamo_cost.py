"""The cost function of Dynamo's KV router."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.baselines.prompt_tokens import pending_tokens, uncached_tokens
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings

#: Weight of prefill against decode: Dynamo's default.
PREFILL_WEIGHT = 1.0


class DynamoCost:
    """Chooses the lowest prefill blocks x weight + decode blocks (ai-dynamo/dynamo, docs/design_docs/router_design.md).

    Prefill blocks are what the instance would have to compute: prompts that wait there and the request's uncached
    prompt.  Decode blocks are the KV blocks that would be active there with the request's prompt.
    """

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the lowest cost."""
        costs = [
            (PREFILL_WEIGHT * (pending_tokens(a) + uncached) + a.used_tokens() + demand.prompt_tokens) / a.block
            for a, uncached in zip(accounts, uncached_tokens(demand, accounts), strict=True)
        ]
        index = least(accounts, costs)
        return Choice(
            index=index,
            why=f"cost of {costs[index]:.0f} blocks to prefill and to keep, the lowest",
            rule="dynamo_cost",
            scores={"blocks": costs},
        )


def make_dynamo_cost(settings: SchedulerSettings) -> Policy:
    """Make the policy that adds prefill and decode blocks as Dynamo does."""
    return placement_only(
        "dynamo_cost",
        DynamoCost(),
        to="the lowest of Dynamo's costs, blocks to prefill and blocks in use",
        ignores="engines' speed, output lengths",
    )

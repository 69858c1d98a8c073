"""The default mix of scorers of llm-d's router."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.least_kv import kv_share
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings

#: Weights of the default configuration: llm-d/llm-d-router, pkg/epp/config/loader/defaults.go.
QUEUE_WEIGHT = 2.0
KV_WEIGHT = 2.0
PREFIX_WEIGHT = 3.0


class LlmdDefault:
    """Chooses the highest weighted sum of three scores in [0, 1].

    - Queue: requests that wait at the engine, scaled between the longest (0) and the shortest queue (1); 1 if equal.
    - KV: the share of the KV cache that is free.
    - Prefix: the share of the prompt that the prefix cache holds.

    llm-d scrapes queue and KV from engines; here they come from the ledger, which is fresher.  Of the requests without
    a first token, the engine prefills one and the others count as waiting.  The score shown is the sum's distance to
    the best one possible, because here lower is better.
    """

    reserved_slots = 0

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the highest sum."""
        queues = [max(0, len(a.pending) - 1) for a in accounts]
        shortest, spread = min(queues), max(1, max(queues) - min(queues))
        prompt, cached = max(1, demand.prompt_tokens), demand.cached_in(accounts).tolist()
        scores = [
            QUEUE_WEIGHT * (queue - shortest) / spread + KV_WEIGHT * kv_share(a) + PREFIX_WEIGHT * (1 - held / prompt)
            for a, queue, held in zip(accounts, queues, cached, strict=True)
        ]
        index = least(accounts, scores)
        best = QUEUE_WEIGHT + KV_WEIGHT + PREFIX_WEIGHT
        why = f"score {best - scores[index]:.2f} of {best:g}, the highest"
        return Choice(index=index, why=why, rule="llmd", scores={"missing_to_best": scores})


def make_llmd(settings: SchedulerSettings) -> Policy:
    """Make the policy that weighs queue, KV cache and prefix as llm-d does by default."""
    return placement_only(
        "llmd",
        LlmdDefault(),
        to="the highest of llm-d's default scores (queue 2, KV cache 2, prefix 3)",
        ignores="engines' speed, lengths",
    )

"""Consistent hash of the prompt's beginning, with bounded load."""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.least_requests import LeastRequests
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.baselines.rendezvous import ranks
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings

#: Prompt tokens whose hash decides, in whole blocks, at least one.
FIRST_TOKENS = 128
#: Most live requests of an instance, as a multiple of the mean.
LOAD_FACTOR = 1.25


class PrefixHash:
    """Sends prompts that begin alike to one instance, unless it has more than its share of requests.

    The home of a prompt is found by rendezvous hashing; an instance is passed over if it would have more than
    ``LOAD_FACTOR`` times the mean of live requests.  Mirrokni, Thorup and Zadimoghaddam, "Consistent hashing with
    bounded loads", SODA 2018.  A prompt without a whole block goes to the fewest requests.
    """

    reserved_slots = 0

    def __init__(self) -> None:
        self._without_prefix = LeastRequests()

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the first instance in the prompt's order that is within the bound."""
        key = _first_blocks(demand)
        if key is None:
            return self._without_prefix.choose(demand, accounts, now)
        order = ranks(key, accounts)
        most = ceil(LOAD_FACTOR * (sum(a.live for a in accounts) + 1) / len(accounts))
        within = [i for i, a in enumerate(accounts) if a.live < most]
        index = within[least([accounts[i] for i in within], [order[i] for i in within])]
        return Choice(
            index=index,
            why=f"where its first blocks go, with at most {most} live requests",
            rule="prefix_hash",
            scores={"prefix_rank": order},
            rejected={
                i: ("bounded_load", f"{a.live} live requests, more than its share")
                for i, a in enumerate(accounts)
                if a.live >= most
            },
        )


def _first_blocks(demand: Demand) -> int | None:
    """Return the hash of the prompt's first blocks; None without a whole block."""
    request = demand.request
    if not request.prefix_hashes or request.prefix_block_tokens < 1:
        return None
    blocks = max(1, FIRST_TOKENS // request.prefix_block_tokens)
    return request.prefix_hashes[min(blocks, len(request.prefix_hashes)) - 1]


def make_prefix_hash(settings: SchedulerSettings) -> Policy:
    """Make the policy that keeps prompts with the same beginning together."""
    return placement_only(
        "prefix_hash",
        PrefixHash(),
        to=f"the instance of its prompt's first blocks, up to {LOAD_FACTOR:g} times the mean of requests",
        ignores="engines' speed, lengths, what prefix caches really hold",
    )

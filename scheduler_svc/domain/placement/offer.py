"""The instances one request has to choose from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from scheduler_svc.domain.capacity.accounts import Accounts
from scheduler_svc.domain.capacity.claim import Claim
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.placement.candidates import CandidateTable
from scheduler_svc.domain.placement.filters import able, no_capacity_reason, with_capacity
from scheduler_svc.domain.placement.run_prediction import predict_run


@dataclass(slots=True, kw_only=True)
class Offer:
    """The instances one request has to choose from now."""

    demand: Demand
    able: Accounts  # can serve it once they are free
    unable: Sequence[tuple[str, str, str]]  # instance id, filter, reason
    with_capacity: Accounts  # those of ``able`` that have capacity for it now

    @classmethod
    def for_whole(cls, demand: Demand, pool: Pool) -> Offer:
        """Offer the READY instances that run whole requests."""
        accounts = pool.accounts
        unable: Sequence[tuple[str, str, str]] = pool.unavailable
        if demand.constrained or not pool.serves_alike(demand.request, demand.total_tokens):
            accounts, out = able(accounts, demand)
            unable = (*unable, *out)
        return cls(demand=demand, able=accounts, unable=unable, with_capacity=with_capacity(accounts, demand))

    @classmethod
    def for_decode(cls, demand: Demand, chosen_from: Accounts, pool: Pool) -> Offer:
        """List the decode instances of a split request for the explanation.

        ``chosen_from``: those that the objective has chosen from already.
        """
        ids = {a.instance_id for a in pool.decoders}
        others = [i for i in pool.instances() if i.instance_id not in ids]
        unable = tuple((i.instance_id, "decode_leg", f"is {i.state.value} in the role {i.role.value}") for i in others)
        return cls(demand=demand, able=pool.decoders, unable=unable, with_capacity=chosen_from)

    def respect(self, claim: Claim, now: float) -> None:
        """Take out the claimed instance if the request would delay the claimant there.

        A CRITICAL request may take the slot that is reserved for CRITICAL if the claimant could not take it.
        """
        account = claim.account
        if self.with_capacity.find(account.instance_id) is None:
            return
        reserved_for_it = claim.leaves_reserve and not self.demand.must_leave_reserve and account.only_reserve_left
        if reserved_for_it or claim.fits_beside(self.demand):  # told sooner than when it is over
            return
        if claim.allows(self.demand, predict_run(account, self.demand, now).finish_s, now):
            return
        self.with_capacity = self.with_capacity.less(self.with_capacity.only(account.instance_id))

    def candidates(self, choice: Choice) -> CandidateTable:
        """Keep the figures of all instances as they are now, for the explanation of the choice."""
        return CandidateTable.of(self.demand, choice, offered=self.with_capacity, able=self.able, unable=self.unable)

    def why_not(self, instance_id: str) -> str:
        """Say why an instance was not offered to the objective."""
        for unable_id, _, reason in self.unable:
            if unable_id == instance_id:
                return reason
        for a in self.able:
            if a.instance_id == instance_id:
                demand = self.demand
                figures = a.free_slots, a.free_tokens, a.full_prefill_s
                return no_capacity_reason(*figures, demand.tokens, demand.must_leave_reserve)[1]
        return "no such instance of this model"

"""Session affinity without a bound."""

from __future__ import annotations

from collections.abc import Sequence

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.objectives.objective import Choice
from scheduler_svc.domain.policies.baselines.least import least
from scheduler_svc.domain.policies.baselines.least_requests import LeastRequests
from scheduler_svc.domain.policies.baselines.placement_only import placement_only
from scheduler_svc.domain.policies.baselines.rendezvous import hash_of, ranks
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings


class SessionAffinity:
    """Sends all requests of a session to one instance while it has capacity; others to the fewest requests."""

    reserved_slots = 0

    def __init__(self) -> None:
        self._without_session = LeastRequests()

    def choose(self, demand: Demand, accounts: Sequence[Account], now: float) -> Choice:
        """Choose the session's home, or the next one in the session's order if the home is full."""
        request = demand.request
        if not request.session:
            return self._without_session.choose(demand, accounts, now)
        order = ranks(hash_of(f"{request.key.tenant}/{request.session}"), accounts)
        return Choice(
            index=least(accounts, order), why="where its session goes", rule="session", scores={"session_rank": order}
        )


def make_session_affinity(settings: SchedulerSettings) -> Policy:
    """Make the policy that keeps sessions together."""
    return placement_only(
        "session_affinity",
        SessionAffinity(),
        to="the instance of its session, else to the fewest requests",
        ignores="load where a session is stated, engines' speed, lengths, prefixes that sessions share",
    )

"""Accounts in any state, and demands of any request, drawn at random."""

from __future__ import annotations

from math import inf
from random import Random

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.capacity.demand import Demand
from scheduler_svc.domain.capacity.ledger import Ledger
from scheduler_svc.domain.capacity.reservation import Reservation
from scheduler_svc.domain.load_report import LoadReport
from scheduler_svc.domain.prediction.margin import Margins
from scheduler_svc.domain.prediction.pace import Pace
from scheduler_svc.domain.request import Priority, RequestKey
from tests.contract.policies.modelled_fleet import make_facts, make_request

NOW = 3.0


def make_accounts(rng: Random, ledger: Ledger) -> list[Account]:
    """Make open accounts ``i00``, ``i01`` ... with reservations in any stage."""
    return [_account(rng, f"i{n:02}", ledger) for n in range(rng.randint(1, 12))]


def _account(rng: Random, instance_id: str, ledger: Ledger) -> Account:
    account = Account(instance_id)
    facts = make_facts(
        max_running=rng.randint(1, 4),
        kv_capacity_tokens=rng.choice([512, 4_000, 65_536]),
        max_batched_tokens=rng.choice([64, 2_048]),
    )
    pace = Pace(
        base_s=rng.choice([1e-4, rng.uniform(0, 0.1)]),
        prefill_token_s=rng.choice([1e-7, 5e-5, rng.uniform(0, 0.01)]),
        running_s=rng.choice([0.0, 1e-3, rng.uniform(0, 0.01)]),
        kv_token_s=rng.choice([0.0, 1e-8, rng.uniform(0, 1e-4)]),
    )
    account.open(
        facts,
        pace,
        price_per_hour=rng.choice([0.0, 1.0, 2.5]),
        uncached_share=rng.choice([0.0, 0.3, 1.0]),
        margins=Margins(first_token=rng.uniform(1, 5), token=rng.uniform(1, 5)),
    )
    for _ in range(rng.randint(0, 6)):
        change(rng, account, ledger)
    return account


def change(rng: Random, account: Account, ledger: Ledger) -> None:
    """Have something happen to an account: a reservation enters, proceeds or leaves, or a heartbeat comes."""
    at = rng.uniform(0, NOW)
    what = rng.choice(["enter", "enter", "enter", "first_token", "leave", "report", "close"])
    live = list(account.reservations.values())
    if what == "enter":
        ledger.enter(account, _reservation(rng, account.instance_id, at), at)
    elif what == "first_token" and live:
        ledger.first_token(live[0], at)
    elif what == "leave" and live:
        ledger.release(live[0].attempt_number, at)
    elif what == "report":
        account.report(_heartbeat(rng.randint(0, 500)), at)
    elif what == "close":
        account.close(rng.random() < 0.3)


def _heartbeat(kv_used: int) -> LoadReport:
    return LoadReport(number=1, last_assign=0, running=0, waiting=0, unfinished=0, kv_used_tokens=kv_used, iterations=0)


def _reservation(rng: Random, instance_id: str, at: float) -> Reservation:
    return Reservation(
        key=RequestKey(tenant="t", request_id="r"),
        instance_id=instance_id,
        tokens=rng.randint(1, 400),
        prompt_tokens=rng.randint(1, 3_000),
        output_tokens=50,
        emitted_tokens=0,
        max_tokens=50,
        critical=rng.random() < 0.5,
        made_at=at,
        first_token_in_s=0.1,
        token_s=0.01,
        finish_in_s=rng.uniform(0.01, 10),
        tpot_target_s=rng.choice([0.02, 0.5, inf]),
    )


def make_demand(rng: Random) -> Demand:
    """Make what any request needs; some of the instances ``i00``, ``i01`` ... hold a part of its prompt."""
    prompt, output = rng.randint(1, 4_000), rng.randint(1, 1_000)
    times = [None, None, 1e-3, 0.02, 0.5, 5.0, 100.0]
    deadline_s = rng.choice(times)
    request = make_request(
        "next",
        prompt=prompt,
        output=output,
        priority=rng.choice(list(Priority)),
        arrived_at=rng.uniform(0, NOW),
        ttft_target_s=rng.choice(times),
        tpot_target_s=rng.choice(times),
        deadline_at=NOW + deadline_s if deadline_s is not None else None,
    )
    return Demand(
        request=request,
        prompt_tokens=prompt,
        output_tokens=output,
        tokens=prompt + output,
        total_tokens=prompt + output,
        started=rng.random() < 0.2,
        must_leave_reserve=rng.random() < 0.5,
        cached_tokens={f"i{rng.randint(0, 11):02}": rng.randint(1, prompt) for _ in range(rng.randint(0, 4))},
        cache_known=rng.random() < 0.7,
    )

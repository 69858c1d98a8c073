"""When the speed of an engine counts as known: sooner for the load it carries than for where requests go."""

from __future__ import annotations

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import MODEL, make_load, make_scheduler


def compute(scheduler: Scheduler, instance_id: str, iterations: int, *, elapsed_s: float) -> None:
    """Have an engine report as many iterations, each in a heartbeat of its own."""
    for number in range(iterations):
        sample = IterationSample(prefill_tokens=0, decode_tokens=4, running=4, kv_used_tokens=400, elapsed_s=elapsed_s)
        beat = make_load(number, (sample,), running=4, unfinished=4, kv_used_tokens=400)
        scheduler.report(instance_id, beat, 0.0)


def account_of(scheduler: Scheduler, instance_id: str) -> Account:
    [found] = [a for a in scheduler._registry.pool(MODEL).accounts if a.instance_id == instance_id]
    return found


def test_a_few_iterations_tell_how_much_load_an_engine_carries() -> None:
    scheduler = make_scheduler(instances=1)
    prior = account_of(scheduler, "i0").pace

    compute(scheduler, "i0", 3, elapsed_s=1.0)
    before = account_of(scheduler, "i0").is_tried
    compute(scheduler, "i0", 1, elapsed_s=1.0)

    account = account_of(scheduler, "i0")
    assert (before, account.is_tried) == (False, True)
    assert account.load_pace.base_s > 10 * prior.base_s
    assert account.pace == prior, "where requests go is decided by more iterations than that"


def test_what_few_iterations_tell_is_not_replaced_by_another_engine_s_pace() -> None:
    scheduler = make_scheduler(instances=3)
    compute(scheduler, "i0", 4, elapsed_s=1.0)
    rough = account_of(scheduler, "i0").load_pace

    compute(scheduler, "i1", 32, elapsed_s=0.01)

    tried, known, untried = (account_of(scheduler, f"i{n}") for n in range(3))
    assert tried.load_pace == rough
    assert tried.pace == known.pace == untried.pace == untried.load_pace
    assert [a.is_tried for a in (tried, known, untried)] == [True, True, False]

"""When the speed of an engine counts as known: sooner for the load it carries than for where requests go."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.capacity.account import Account
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.load_report import IterationSample
from scheduler_svc.domain.scheduler import Scheduler
from tests.contract.policies.modelled_fleet import MODEL, make_facts, make_load, make_scheduler


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


def measured(elapsed_s: float) -> EngineFacts:
    """Return the facts of an engine that was measured: a prompt of 2,048 tokens takes four times a step without."""
    kinds = ((2_048, 1), (0, 1), (512, 32), (0, 32))
    return make_facts(
        measured=tuple(
            IterationSample(
                prefill_tokens=prefill,
                decode_tokens=0 if prefill else running,
                running=running,
                kv_used_tokens=1_000,
                elapsed_s=elapsed_s * (1 + 3 * prefill / 2_048),
            )
            for prefill, running in kinds
        )
    )


def join(scheduler: Scheduler, instance_id: str, facts: EngineFacts, *, start: str = "1") -> Account:
    scheduler.register(InstanceSpec(instance_id=instance_id, model=MODEL, engine_start_id=start), 0.0)
    scheduler.engine_ready(instance_id, facts, 0.0)
    return account_of(scheduler, instance_id)


def test_an_engine_that_was_measured_is_known_before_its_first_request() -> None:
    scheduler = make_scheduler()

    slow, fast = join(scheduler, "slow", measured(0.1)), join(scheduler, "fast", measured(0.01))

    assert slow.is_tried
    assert fast.is_tried
    for account, elapsed_s in ((slow, 0.1), (fast, 0.01)):
        assert account.pace == account.load_pace
        assert account.pace.iteration_s(0, 1, 1_000) == pytest.approx(elapsed_s, rel=0.1)
        assert account.pace.iteration_s(2_048, 1, 1_000) == pytest.approx(4 * elapsed_s, rel=0.1)


@pytest.mark.parametrize("measured_first", [True, False])
def test_one_that_was_not_measured_borrows_the_pace_of_one_that_was(measured_first: bool) -> None:
    scheduler = make_scheduler()
    facts = {"known": measured(0.1), "unknown": make_facts()}
    for instance_id in sorted(facts, reverse=not measured_first):
        join(scheduler, instance_id, facts[instance_id])

    known, unknown = (account_of(scheduler, each) for each in ("known", "unknown"))
    assert unknown.pace == known.pace
    assert (known.is_tried, unknown.is_tried) == (True, False)


def test_an_engine_that_starts_again_is_known_by_its_new_measurement() -> None:
    scheduler = make_scheduler()
    join(scheduler, "i0", measured(0.1))

    account = join(scheduler, "i0", measured(0.01), start="2")

    assert account.pace.iteration_s(0, 1, 1_000) == pytest.approx(0.01, rel=0.1)


def test_an_engine_that_says_again_that_it_is_ready_keeps_what_was_learned_of_it() -> None:
    scheduler = make_scheduler()
    facts = measured(0.1)
    join(scheduler, "i0", facts)
    compute(scheduler, "i0", 200, elapsed_s=1.0)
    learned = account_of(scheduler, "i0").pace

    scheduler.engine_ready("i0", facts, 1.0)

    assert account_of(scheduler, "i0").pace == learned


def test_what_was_measured_counts_little_once_requests_ran() -> None:
    scheduler = make_scheduler()
    account = join(scheduler, "i0", measured(0.025))

    compute(scheduler, "i0", 200, elapsed_s=0.05)

    assert account.pace.iteration_s(0, 4, 400) == pytest.approx(0.05, rel=0.1)

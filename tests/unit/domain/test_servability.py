"""Whether a model's instances serve a request: the first that does settles it."""

from __future__ import annotations

from typing import Any, NoReturn
from unittest.mock import Mock

import pytest

from scheduler_svc.domain.fleet.pool import Pool
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.servability import why_refused
from tests.contract.policies.modelled_fleet import MODEL, add_instance, make_facts, make_request, make_scheduler


class NeverAsked:
    """An instance that nobody may ask for its facts."""

    instance_id = "b"
    live = True
    state = InstanceState.READY

    @property
    def facts(self) -> NoReturn:
        raise AssertionError("the instance before it serves the request")


@pytest.mark.interpreted
def test_no_instance_after_the_first_that_serves_the_request_is_looked_at() -> None:
    """A request costs the same however many instances there are."""
    scheduler = make_scheduler()
    add_instance(scheduler, "a", facts=make_facts(adapters=frozenset({"lora"})))
    last: Any = NeverAsked()
    pool = Pool(MODEL)
    pool.add(scheduler.instance("a"))
    pool.add(last)
    assert why_refused(make_request("r", adapter="lora"), pool) is None


@pytest.mark.interpreted
def test_no_instance_is_looked_at_for_what_all_ready_ones_serve() -> None:
    scheduler, pool = make_scheduler(), Pool(MODEL)
    add_instance(scheduler, "a")
    pool.add(scheduler.instance("a"))
    assert len(pool.accounts) == 1
    pool.instances = Mock(side_effect=AssertionError("looked at"))  # type: ignore[method-assign]

    assert why_refused(make_request("r"), pool) is None


def test_a_model_without_instances_says_so() -> None:
    assert why_refused(make_request("r"), None) == f"no instance of {MODEL!r} is ready (none registered)"

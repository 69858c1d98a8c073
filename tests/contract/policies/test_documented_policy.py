"""The plug-in of docs/write-a-policy.md passes the contract, loads as installed, and does as the page says."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from scheduler_svc.domain.policies.catalogue import PolicyCatalogue
from tests.contract.policies import documented_policy
from tests.contract.policies.modelled_fleet import ModelledFleet, add_instance, make_facts, make_request, make_scheduler

shortest_first: ModuleType = documented_policy.run("shortest_first.py")

#: The page's own test: PolicyContract with the page's policy.
TestShortestFirst = documented_policy.run("test_shortest_first.py").TestShortestFirst


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PolicyCatalogue:
    documented_policy.install(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, shortest_first.__name__)  # so that the installed file is loaded
    return PolicyCatalogue.with_plugins()


def test_an_installed_plugin_is_offered_by_name_with_its_summary(installed: PolicyCatalogue) -> None:
    scheduler = make_scheduler("shortest_first", policies=installed)

    assert scheduler.policy == "shortest_first"
    assert "shortest predicted service first" in scheduler.policy_summaries()["shortest_first"]


def test_a_short_request_overtakes_a_long_one_that_came_before(installed: PolicyCatalogue) -> None:
    scheduler = make_scheduler("shortest_first", policies=installed)
    add_instance(scheduler, "i0", facts=make_facts(max_running=1))
    fleet = ModelledFleet(scheduler)
    for n in range(2):
        fleet.arrive(make_request(f"busy-{n}", output=100, arrived_at=0.0))
    fleet.arrive(make_request("long", output=2_000, arrived_at=0.1))
    fleet.arrive(make_request("short", output=10, arrived_at=0.2))

    fleet.run()

    assert [d.key.request_id for d in fleet.decisions] == ["busy-0", "busy-1", "short", "long"]


def test_waiting_makes_up_for_length(installed: PolicyCatalogue) -> None:
    scheduler = make_scheduler("shortest_first", policies=installed)
    long, short = make_request("long", output=8_000, arrived_at=0.0), make_request("short", output=10, arrived_at=61.0)
    for request in (long, short):
        scheduler.enqueue(request, request.arrived_at)

    add_instance(scheduler, "i0", facts=make_facts(max_running=1, max_model_len=16_384), now=62.0)

    assert scheduler.schedule(62.0)[0].key == long.key


def test_the_decision_names_what_the_request_was_ordered_by(installed: PolicyCatalogue) -> None:
    scheduler = make_scheduler("shortest_first", policies=installed, instances=2)
    scheduler.enqueue(make_request("r"), 0.0)

    (decision,) = scheduler.schedule(0.0)

    assert "earliest predicted finish" in " ".join(decision.reasons)
    assert "predicted service" in " ".join(decision.reasons)

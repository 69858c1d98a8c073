from __future__ import annotations

from importlib.metadata import EntryPoint

import pytest

from scheduler_svc.domain.errors import UnknownPolicy
from scheduler_svc.domain.policies.baselines.table import BASELINES
from scheduler_svc.domain.policies.builtin import make_fifo
from scheduler_svc.domain.policies.catalogue import ENTRY_POINT_GROUP, PolicyCatalogue, PolicyLoadError
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.scheduler import Scheduler, SchedulerSettings

HERE = "tests.unit.domain.test_policy_catalogue"


def make_lifo(settings: SchedulerSettings) -> Policy:
    """A policy of another distribution."""
    fifo = make_fifo(settings)
    return Policy(name="lifo", summary="last come, first served", ordering=fifo.ordering, objective=fifo.objective)


def plugin(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, value=value, group=ENTRY_POINT_GROUP)


def test_the_five_policies_and_those_for_comparison_are_there_each_with_its_line() -> None:
    summaries = PolicyCatalogue().summaries(SchedulerSettings())

    assert sorted(summaries.keys() - BASELINES) == ["adaptive", "cost_optimized", "fifo", "priority", "slo_aware"]
    assert all(summaries.values())


def test_an_unknown_policy_is_refused_with_those_there_are() -> None:
    with pytest.raises(UnknownPolicy, match=r"'best'; there are: adaptive, .*slo_aware"):
        PolicyCatalogue().make("best", SchedulerSettings())
    with pytest.raises(UnknownPolicy):
        Scheduler(SchedulerSettings(policy="best"), PolicyCatalogue())


def test_a_policy_of_another_distribution_is_had_by_name() -> None:
    catalogue = PolicyCatalogue.with_plugins([plugin("lifo", f"{HERE}:make_lifo")])

    assert "lifo" in catalogue
    scheduler = Scheduler(SchedulerSettings(policy="lifo"), catalogue)
    assert scheduler.policy == "lifo"


def test_one_that_does_not_load_is_an_error_that_names_it() -> None:
    with pytest.raises(PolicyLoadError, match=r"'broken'.*does not load"):
        PolicyCatalogue.with_plugins([plugin("broken", f"{HERE}:nothing")])


def test_one_that_is_no_factory_is_an_error() -> None:
    with pytest.raises(PolicyLoadError, match=r"'odd'.*not a factory"):
        PolicyCatalogue.with_plugins([plugin("odd", f"{HERE}:HERE")])


def test_none_takes_another_s_name() -> None:
    with pytest.raises(PolicyLoadError, match=r"'fifo'.*name is taken"):
        PolicyCatalogue.with_plugins([plugin("fifo", f"{HERE}:make_lifo")])


def test_the_installed_plugins_are_looked_up_in_their_group() -> None:
    assert set(PolicyCatalogue.with_plugins().names()) >= set(PolicyCatalogue().names())


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue_limit_per_model": 0},
        {"ageing_s_per_class": -1.0},
        {"output_quantile": 1.0},
        {"stall_limit_s": float("nan")},
    ],
)
def test_a_setting_that_makes_no_sense_is_named(wrong: dict[str, float]) -> None:
    (name,) = wrong
    with pytest.raises(ValueError, match=name):
        SchedulerSettings(**wrong)  # type: ignore[arg-type]

"""The policies that come with the scheduler."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from scheduler_svc.domain.objectives.cheapest import CheapestInTime
from scheduler_svc.domain.objectives.earliest_finish import EarliestFinish
from scheduler_svc.domain.objectives.least_target_used import LeastTargetUsed
from scheduler_svc.domain.ordering.fifo import Fifo
from scheduler_svc.domain.ordering.priority import ByClass
from scheduler_svc.domain.ordering.slo import LeastSlack
from scheduler_svc.domain.policies.adaptive import Adaptive
from scheduler_svc.domain.policies.policy import Policy
from scheduler_svc.domain.settings import SchedulerSettings

#: Makes a policy from the settings; a plug-in offers one.
PolicyFactory = Callable[[SchedulerSettings], Policy]


def make_fifo(settings: SchedulerSettings) -> Policy:
    """Make the policy that serves in order of arrival, where the request finishes soonest."""
    return Policy(
        name="fifo",
        summary="first come, first served; to the instance predicted to finish it first",
        ordering=Fifo(),
        objective=EarliestFinish(),
        engine_classes=False,
        keeps_order=True,
    )


def make_priority(settings: SchedulerSettings) -> Policy:
    """Make the policy that goes by class, with ageing."""
    return Policy(
        name="priority",
        summary=f"by class, {settings.ageing_s_per_class:g} s of waiting making up for one; "
        "a slot per instance reserved for CRITICAL",
        ordering=ByClass(settings.ageing_s_per_class),
        objective=EarliestFinish(reserved_slots=1),
    )


def make_slo_aware(settings: SchedulerSettings) -> Policy:
    """Make the policy that meets targets."""
    return Policy(
        name="slo_aware",
        summary="least slack to its target first; to the instance predicted to use least of it",
        ordering=_least_slack(settings),
        objective=LeastTargetUsed(settings.default_targets),
        engine_classes=False,  # they would outrank the slack
    )


def _least_slack(settings: SchedulerSettings) -> LeastSlack:
    return LeastSlack(settings.default_targets, late_delay_s=settings.late_delay_s, max_slack_s=settings.max_slack_s)


def make_cost_optimized(settings: SchedulerSettings) -> Policy:
    """Make the policy that spends least."""
    return Policy(
        name="cost_optimized",
        summary="least slack to its target first; to the cheapest instances that carry the load within targets",
        ordering=_least_slack(settings),
        objective=CheapestInTime(settings.default_targets),
        engine_classes=False,  # they would outrank the slack
    )


def make_adaptive(settings: SchedulerSettings) -> Policy:
    """Make the policy that follows whichever of the others suits the load."""
    first = make_fifo(settings)
    return Policy(
        name="adaptive",
        summary="follows fifo, priority, slo_aware or cost_optimized, whichever suits the load; does not flap",
        ordering=first.ordering,
        objective=first.objective,
        engine_classes=first.engine_classes,
        keeps_order=first.keeps_order,
        governor=Adaptive(confirm_s=settings.adaptive_confirm_s, dwell_s=settings.adaptive_dwell_s),
    )


BUILTIN: Mapping[str, PolicyFactory] = {
    "fifo": make_fifo,
    "priority": make_priority,
    "slo_aware": make_slo_aware,
    "cost_optimized": make_cost_optimized,
    "adaptive": make_adaptive,
}

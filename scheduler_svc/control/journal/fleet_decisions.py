"""Decisions about the fleet: how each is written down, and put in force again at a start.

A decision counts until the setting that it overrides is changed in the configuration.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from scheduler_svc.control.journal.decisions import POLICY, SHADOW, SPLITTING, Plain
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.domain.errors import PolicyFailed, UnknownPolicy
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


def policy(scheduler: Scheduler, name: str, reason: str) -> Mapping[str, Plain]:
    """Return the decision for a policy; nothing for the configured one."""
    configured = scheduler.settings.policy
    return {} if name == configured else {"policy": name, "reason": reason, "configured": configured}


def shadow(name: str) -> Mapping[str, Plain]:
    """Return the decision for a shadow policy; an empty name is none."""
    return {"policy": name} if name else {}


def splitting(scheduler: Scheduler, settings: PdSettings) -> Mapping[str, Plain]:
    """Return the decision for when requests are split; nothing for what is configured."""
    configured = scheduler.settings.pd
    return {} if settings == configured else {**_plain(settings), "configured": repr(_plain(configured))}


def restore(decisions: OperatorDecisions, scheduler: Scheduler, now: float) -> None:
    """Put the decisions about the fleet in force; those that no longer count are dropped, with a line in the log."""
    for name, put in ((SPLITTING, _restore_splitting), (POLICY, _restore_policy), (SHADOW, _restore_shadow)):
        value = decisions.fleet(name)
        if not value:
            continue
        try:
            why_not = put(value, scheduler, now)
        except (UnknownPolicy, PolicyFailed, KeyError, TypeError, ValueError) as error:
            why_not = str(error)
        if why_not:
            log.warning("an operator's decision is dropped: %s %s: %s", name, dict(value), why_not)
            decisions.decide(name, {})
        else:
            log.info("an operator's decision is in force again: %s %s", name, dict(value))


def _restore_policy(value: Mapping[str, Plain], scheduler: Scheduler, now: float) -> str:
    if value["configured"] != scheduler.settings.policy:
        return f"the configured policy was changed to {scheduler.settings.policy}"
    scheduler.set_policy(str(value["policy"]), now, f"{value['reason']} (before the scheduler's start)")
    return ""


def _restore_shadow(value: Mapping[str, Plain], scheduler: Scheduler, now: float) -> str:
    scheduler.set_shadow(str(value["policy"]), now)
    return ""


def _restore_splitting(value: Mapping[str, Plain], scheduler: Scheduler, now: float) -> str:
    if value["configured"] != repr(_plain(scheduler.settings.pd)):
        return "the configured pd_separation was changed"
    scheduler.set_pd(
        replace(
            scheduler.settings.pd,
            mode=SplitMode(value["mode"]),
            threshold_input_tokens=int(value["threshold_input_tokens"]),
            threshold_ratio=float(value["threshold_ratio"]),
        )
    )
    return ""


def _plain(settings: PdSettings) -> dict[str, Plain]:
    return {
        "mode": settings.mode.value,
        "threshold_input_tokens": settings.threshold_input_tokens,
        "threshold_ratio": settings.threshold_ratio,
    }

"""The objects of ``control/attempts``, connected to each other."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.control.attempts.attempt_table import AttemptTable
from scheduler_svc.control.attempts.executor_links import ExecutorLinks
from scheduler_svc.control.attempts.handoffs import Handoffs
from scheduler_svc.control.attempts.instance_events import InstanceEvents
from scheduler_svc.control.attempts.kv_releases import KvReleases
from scheduler_svc.control.attempts.request_runner import RequestRunner
from scheduler_svc.control.attempts.warm_ups import WarmUps
from scheduler_svc.wiring.control_base import ControlBase
from scheduler_svc.wiring.requests import Requests


@dataclass(frozen=True, kw_only=True, slots=True)
class Attempts:
    """What has to do with the attempts of requests at executors."""

    links: ExecutorLinks
    events: InstanceEvents
    table: AttemptTable
    runner: RequestRunner
    kv_releases: KvReleases
    handoffs: Handoffs
    warm_ups: WarmUps


def build_attempts(base: ControlBase, requests: Requests) -> Attempts:
    """Build them."""
    scheduler, clock, epoch = base.scheduler, base.clock, base.epoch
    links, events = ExecutorLinks(), InstanceEvents()
    table = AttemptTable(links, clock, events)
    runner = RequestRunner(
        scheduler,
        clock,
        requests.table,
        table,
        events,
        base.wakeup,
        epoch=epoch,
        max_attempts=base.config.queue.max_attempts,
    )
    kv_releases = KvReleases(scheduler, clock, links, runner.release)
    return Attempts(
        links=links,
        events=events,
        table=table,
        runner=runner,
        kv_releases=kv_releases,
        handoffs=Handoffs(runner, kv_releases),
        warm_ups=WarmUps(scheduler, clock, table, epoch=epoch),
    )

"""The objects of ``control/requests``, connected to each other."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.control.detached.codec import Codec
from scheduler_svc.control.detached.detached_work import DetachedWork
from scheduler_svc.control.journal.detached import DetachedStore
from scheduler_svc.control.requests.intake import Intake
from scheduler_svc.control.requests.kept_ends import KeptEnds
from scheduler_svc.control.requests.model_directory import ModelDirectory
from scheduler_svc.control.requests.receipts import Receipts
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.request_table import RequestTable
from scheduler_svc.transport.detached_records import DetachedRecords
from scheduler_svc.wiring.control_base import ControlBase
from scheduler_svc.wiring.room_settings import detached_settings, intake_settings, record_limits


@dataclass(frozen=True, kw_only=True, slots=True)
class Requests:
    """What has to do with requests, whether or not they run."""

    table: RequestTable
    models: ModelDirectory
    recovery: Recovery
    ends: KeptEnds
    codec: Codec
    detached: DetachedWork | None
    intake: Intake


def build_requests(base: ControlBase, detached_store: DetachedStore | None) -> Requests:
    """Build them.  ``detached_store``: where detached work is kept; None: nowhere."""
    config, scheduler, clock, epoch = base.config, base.scheduler, base.clock, base.epoch
    table = RequestTable(scheduler, clock, record_limits(config))
    models = ModelDirectory(scheduler, clock, base.tokenizers, base.models, waiting_limit=config.queue.limit_per_model)
    recovery = Recovery(clock, base.earlier.instances, config.recovery.limit_s, epoch=epoch)
    ends = KeptEnds(scheduler, clock, on=base.survives)
    codec, detached = DetachedRecords(), None
    if detached_store is not None:
        detached = DetachedWork(detached_store, codec, clock, base.wall_clock, detached_settings(config), epoch=epoch)
        detached.on_end(ends.recorded)
        detached.on_removal(table.forget_kept)
        ends.unrecorded = lambda live: live.journaled and not live.end_is_published
    intake = Intake(
        scheduler,
        clock,
        table,
        base.tokenizers,
        models,
        base.loop_lag,
        base.wakeup,
        intake_settings(config),
        recovery,
        ends,
        Receipts(base.earlier.receipts, clock, recovery, epoch=epoch, wall=base.earlier.wall),
        base.observer,
        detached,
    )
    return Requests(
        table=table, models=models, recovery=recovery, ends=ends, codec=codec, detached=detached, intake=intake
    )

"""The gRPC services of one scheduler, over the objects of ``control``."""

from __future__ import annotations

from collections.abc import Callable

from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.leadership.standing import Standing
from scheduler_svc.recording.usage.usage_recorder import UsageRecorder
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.maintenance import Maintenance
from scheduler_svc.storage.journal.usage_store import JournalUsageStore
from scheduler_svc.tokenization.store import TokenizerStore
from scheduler_svc.transport.admin_servicer import AdminServicer
from scheduler_svc.transport.batches.batch_servicer import BatchServicer
from scheduler_svc.transport.batches.file_servicer import FileServicer
from scheduler_svc.transport.client_sessions.session_servicer import SessionServicer
from scheduler_svc.transport.detached_servicer import DetachedServicer
from scheduler_svc.transport.executor_servicer import ExecutorServicer
from scheduler_svc.transport.inference_servicer import InferenceServicer
from scheduler_svc.transport.journal_answers import JournalAnswers
from scheduler_svc.transport.model_files import ModelFiles
from scheduler_svc.transport.tokenizer_upload import TokenizerUpload
from scheduler_svc.transport.usage_answers import UsageAnswers
from scheduler_svc.wiring.control_plane import ControlPlane
from scheduler_svc.wiring.room_settings import usage_retention


def inference_servicer(
    control: ControlPlane, sessions: SessionServicer, tokenizers: TokenizerStore
) -> InferenceServicer:
    """Return the service of applications; ``sessions`` serves their sessions."""
    return InferenceServicer(
        control.intake,
        control.scheduler,
        sessions,
        DetachedServicer(control.intake, control.loop_lag, control.detached, control.wall_s),
        BatchServicer(control.batches, control.wall_clock),
        FileServicer(control.batches, control.clock),
        ModelFiles(control.scheduler, control.models, tokenizers, control.clock),
        epoch=control.epoch,
    )


def executor_servicer(
    config: SchedulerConfig, control: ControlPlane, tokenizers: TokenizerStore, proofs: AdoptionKey | None
) -> ExecutorServicer:
    """Return the service of executors; ``proofs``: of what they hold; None: they hold nothing."""
    return ExecutorServicer(
        control.instances.registrar,
        control.instances.sessions,
        control.instances.reports,
        control.attempts,
        control.kv_releases,
        control.intake.ends,
        lambda: TokenizerUpload(tokenizers, control.models.changed),
        epoch=control.epoch,
        proofs=proofs,
        leader_lease_s=config.leader_lease_s,
    )


def admin_servicer(
    config: SchedulerConfig,
    control: ControlPlane,
    journal: Journal | None,
    maintenance: Maintenance | None,
    usage: UsageRecorder | None,
    standing: Callable[[], Standing],
) -> AdminServicer:
    """Return the service of operators.  ``standing``: what the scheduler does now."""
    usage_store = JournalUsageStore(journal) if journal is not None else None
    counts = usage.counts if usage is not None else dict
    return AdminServicer(
        control.scheduler,
        control.clock,
        control.instances.orders,
        control.explainer,
        control.fleet_watch,
        control.scaling,
        control.wakeup,
        control.decisions,
        control.adapters,
        UsageAnswers(usage_store),
        JournalAnswers(maintenance, usage_store, usage_retention(config), counts),
        epoch=control.epoch,
        standing=standing,
    )

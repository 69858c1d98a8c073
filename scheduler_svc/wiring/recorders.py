"""What writes down requests that ended, and the database that it writes to."""

from __future__ import annotations

import time

from sage_common.clock import Clock
from sage_telemetry.resource import Identity
from scheduler_svc.config import SchedulerConfig
from scheduler_svc.recording.recording import Recording, RecordingSettings
from scheduler_svc.recording.usage.usage_file import UsageFile
from scheduler_svc.recording.usage.usage_recorder import UsageRecorder, UsageTargets
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.usage_store import JournalUsageStore
from scheduler_svc.telemetry.outcomes import reason_of
from scheduler_svc.telemetry.usage_log import usage_log
from scheduler_svc.wiring.room_settings import journal_settings, usage_file, usage_retention


def traffic_recording(config: SchedulerConfig, clock: Clock) -> Recording | None:
    """Return what writes the traffic's recording; None: the configuration names no file for it."""
    recording = config.recording
    if recording.file is None:
        return None
    settings = RecordingSettings(
        file=recording.file, max_bytes=recording.max_bytes, files=recording.files, tenants=recording.tenants
    )
    return Recording(settings, clock)


def usage_recorder(
    config: SchedulerConfig, journal: Journal | None, clock: Clock, identity: Identity
) -> UsageRecorder | None:
    """Return what gathers usage records; None where neither a journal nor a file nor a receiver of logs takes them.

    ``identity``: of this process, for the receiver.
    """
    file, otlp = usage_file(config), config.usage.otlp
    targets = UsageTargets(
        store=JournalUsageStore(journal) if journal is not None else None,
        file=UsageFile(file) if file is not None else None,
        log=usage_log(otlp, identity) if otlp is not None else None,
        retention=usage_retention(config),
    )
    if targets.store is None and targets.file is None and targets.log is None:
        return None
    return UsageRecorder(clock, targets, reason_of, wall=time.time)


def own_journal(config: SchedulerConfig) -> Journal | None:
    """Return the journal of a scheduler that shares it with none; None: the configuration names none.

    Raises UnusableJournal.
    """
    settings = journal_settings(config)
    return Journal(settings) if settings is not None else None

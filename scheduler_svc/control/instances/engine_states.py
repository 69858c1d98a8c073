"""The states of engines from their start to READY, or to their end."""

from __future__ import annotations

import logging

from sage_common.clock import Clock
from scheduler_svc.control.adapters.adapters import Adapters
from scheduler_svc.control.adoption.adoption import Adoption
from scheduler_svc.control.instances.engine_losses import EngineLosses
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session import Session
from scheduler_svc.control.instances.tokenizer_sources import TokenizerSources
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.instance_state import GONE, STARTING, InstanceState
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)


class EngineStates:
    """Moves instances as the states of their engines say."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        readiness: Readiness,
        losses: EngineLosses,
        adoption: Adoption,
        adapters: Adapters,
        tokenizers: TokenizerSources,
    ) -> None:
        self._scheduler = scheduler
        self._clock = clock
        self._readiness = readiness
        self._losses = losses
        self._adoption = adoption
        self._adapters = adapters
        self._tokenizers = tokenizers

    def take(
        self,
        session: Session,
        state: InstanceState,
        progress: float | None,
        message: str,
        facts: EngineFacts | None,
    ) -> None:
        """Take the state of the engine of an instance's current session; see ``EngineReports.engine_status``."""
        instance = session.instance
        if state is InstanceState.READY and facts is not None:
            self._ready(session, facts)
        elif state is InstanceState.FAILED:
            self._losses.engine_failed(instance, message)
            instance.progress = progress
            self._adoption.engine_starts(session.instance_id)
        elif instance.state in STARTING or instance.state in GONE:
            self._readiness.move(instance, state, message)
            instance.progress = progress
            self._adoption.engine_starts(session.instance_id)

    def _ready(self, session: Session, facts: EngineFacts) -> None:
        instance = session.instance
        self._scheduler.engine_ready(session.instance_id, facts, self._clock.now())
        self._adapters.engine_ready(session.instance_id)
        drain_reason = self._readiness.drains.reason(session)
        if instance.state is InstanceState.READY and drain_reason is not None:
            self._readiness.move(instance, InstanceState.DRAINING, drain_reason)
            self._readiness.finish_drain(session.instance_id)
        self._readiness.hold_back(session)
        self._tokenizers.engine_ready(session, facts)
        self._adoption.engine_ready(session.instance_id, session.link)
        log.info("instance %s is ready", session.instance_id)

"""What the outcomes of attempts say about the instances that they ran on."""

from __future__ import annotations

from scheduler_svc.control.instances.engine_losses import EngineLosses
from scheduler_svc.control.instances.readiness import Readiness
from scheduler_svc.control.instances.session_table import SessionTable
from scheduler_svc.domain.instance_state import GONE, InstanceState
from scheduler_svc.domain.request import RequestKey


class AttemptOutcomes:
    """Lets instances cool down, drain or fail as their attempts show.  Implements InstanceListener."""

    def __init__(self, table: SessionTable, readiness: Readiness, losses: EngineLosses) -> None:
        self._table = table
        self._readiness = readiness
        self._losses = losses

    def attempt_failed(self, instance_id: str, message: str, key: RequestKey) -> None:
        """Let the instance cool down if attempts at enough different requests failed there in a row."""
        self._failed(instance_id, message, key)

    def attempt_rejected(self, instance_id: str, reason: str) -> None:
        """Let the instance cool down if it rejected enough attempts in a row, of whichever requests."""
        self._failed(instance_id, f"rejected: {reason}", None)

    def engine_died(self, instance_id: str, message: str) -> None:
        """Take the instance out at once: the executor's report that its engine died is still on its way."""
        session = self._table.find(instance_id)
        if session is not None and session.instance.state not in GONE:
            self._losses.engine_failed(session.instance, message)

    def drains(self, instance_id: str) -> None:
        """Drain an instance whose executor rejects attempts because it drains, as if it had asked for it already."""
        session = self._table.find(instance_id)
        if session is not None and not session.leaving:
            why = "rejects attempts: it drains"
            self._readiness.drains.start(session.instance, session, why, by_operator=False)

    def attempt_succeeded(self, instance_id: str) -> None:
        """Forget earlier failures on the instance."""
        self._readiness.cool_downs.succeeded(instance_id)

    def idle(self, instance_id: str) -> None:
        """Finish the instance's drain, if there is one."""
        self._readiness.finish_drain(instance_id)

    def _failed(self, instance_id: str, message: str, key: RequestKey | None) -> None:
        session = self._table.find(instance_id)
        ready = session is not None and session.instance.state is InstanceState.READY
        reason = self._readiness.cool_downs.failed(instance_id, message, may_start=ready, key=key)
        if session is not None and reason is not None:
            self._readiness.move(session.instance, InstanceState.SUSPECT, reason)

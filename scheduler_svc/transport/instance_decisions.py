"""Operators' decisions about instances as AdminService shows them."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2, common_pb2
from scheduler_svc.control.journal.decisions import InstanceDecision
from scheduler_svc.control.journal.operator_decisions import OperatorDecisions
from scheduler_svc.transport.enums import ROLE_TO_WIRE


def decision_about(decisions: OperatorDecisions, instance_id: str) -> admin_pb2.InstanceDecision | None:
    """Return what is decided about an instance; None if nothing is, and that is in the journal."""
    if not decisions.concerns(instance_id):
        return None
    decision, not_kept = decisions.instance(instance_id), decisions.instance_not_kept(instance_id)
    return None if decision.is_empty and not not_kept else _message(decision, not_kept)


def of_unknown_instances(decisions: OperatorDecisions, known: set[str]) -> list[admin_pb2.InstanceDecision]:
    """Return the decisions about instances that are not among ``known``."""
    return [_message(each, decisions.instance_not_kept(each.instance_id)) for each in decisions.of_others(known)]


def unknown_instance(decisions: OperatorDecisions, instance_id: str) -> admin_pb2.Instance:
    """Return the view of an instance that only the journal knew."""
    return admin_pb2.Instance(
        instance_id=instance_id,
        state=common_pb2.INSTANCE_STATE_LOST,
        state_reason="not registered with this scheduler",
        decision=decision_about(decisions, instance_id),
    )


def _message(decision: InstanceDecision, not_kept: str) -> admin_pb2.InstanceDecision:
    return admin_pb2.InstanceDecision(
        instance_id=decision.instance_id,
        drained=decision.drained,
        drain_reason=decision.drain_reason,
        role=ROLE_TO_WIRE[decision.role] if decision.role is not None else common_pb2.INSTANCE_ROLE_UNSPECIFIED,
        not_kept=not_kept,
    )

"""The shadow policy as AdminService shows it."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.domain.placement.shadow_policy import PredictedSums, ShadowReport


def shadow_policy(report: ShadowReport, in_force: str, now: float) -> admin_pb2.ShadowPolicy:
    """Convert the comparison; ``in_force``: name of the policy it is compared with."""
    message = admin_pb2.ShadowPolicy(
        policy=report.policy,
        delegate=report.delegate,
        in_force=in_force,
        age=durations.to_wire(now - report.since),
        compared=report.compared,
        same=report.same,
        not_compared=report.not_compared,
        failure=report.failure,
    )
    if report.compared:
        message.chosen.CopyFrom(_means(report.in_force, report.compared))
        message.shadow.CopyFrom(_means(report.shadow, report.compared))
    return message


def _means(sums: PredictedSums, count: int) -> admin_pb2.PredictedMeans:
    return admin_pb2.PredictedMeans(
        first_token=durations.to_wire(sums.first_token_s / count),
        finish=durations.to_wire(sums.finish_s / count),
        cost=sums.cost / count,
    )

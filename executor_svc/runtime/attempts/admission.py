"""Decides whether this executor may start an attempt now."""

from __future__ import annotations

from collections.abc import Callable

from executor_svc.runtime.engine_port import EngineFacts
from executor_svc.runtime.messages.commands import Assign, Phase
from executor_svc.runtime.messages.outputs import RejectReason

KV_LEASE_MARGIN_S = 1.0  # a decode leg with less than this left of its KV lease could read blocks that are gone

Refusal = tuple[RejectReason, str]
"""Why an attempt is not started: the reason, and a sentence for the log and the scheduler."""


def refusal(
    assign: Assign,
    *,
    generates: bool,
    facts: EngineFacts | None,
    draining: bool,
    holds_adapter: Callable[[str], bool],
    awake: bool = True,
) -> Refusal | None:
    """Return why ``assign`` cannot be started, or None if it can.

    ``generates``: False for an executor that was started with the role embedding.  ``facts``: the engine's; None until
    the engine is up.  ``holds_adapter``: whether it serves an adapter that was added while it runs.
    ``awake``: False while the engine sleeps.  The attempt table checks epoch and capacity.
    """
    if generates and assign.embedding is not None:
        return RejectReason.NOT_READY, "this instance generates: only one of the role embedding embeds"
    if not generates and assign.embedding is None:
        return RejectReason.NOT_READY, "this instance was started with the role embedding: it does not generate"
    if facts is None:
        return RejectReason.NOT_READY, "the engine is not up yet"
    if not awake:
        return RejectReason.NOT_READY, "the engine sleeps"
    split = assign.phase is Phase.PREFILLING or assign.kv_transfer_params is not None
    if split and facts.kv_connector is None:
        return RejectReason.NOT_READY, "the engine of this instance has no KV connector"
    if assign.adapter is not None and assign.adapter not in facts.adapters and not holds_adapter(assign.adapter):
        # It may have made room for another since the attempt was placed here, before a decode leg came.
        return RejectReason.NOT_READY, "the engine does not hold the adapter that it names"
    if draining and assign.kv_transfer_params is None:
        # A decode leg is accepted while draining: its capacity was reserved here when its prefill began elsewhere.
        return RejectReason.DRAINING, "this instance is draining"
    if assign.kv_lease_s is not None and assign.kv_lease_s < KV_LEASE_MARGIN_S:
        return RejectReason.KV_LEASE_EXPIRED, f"only {max(0.0, assign.kv_lease_s):.1f} s are left of the KV lease"
    return None

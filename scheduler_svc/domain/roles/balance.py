"""The rule by which one side gets an instance of the other."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.role_change import Cause
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.roles.side import Side


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """That an instance leaves one role for another."""

    leaves: InstanceRole
    role: InstanceRole
    cause: Cause
    reason: str  # in words


def wished(prefill: Side, decode: Side, settings: RoleSettings) -> Wish | None:
    """Say which side is to get an instance of the other; None where neither is.

    Under the same load the opposite is never wished after a change: the higher pressure would have to fall both times.
    """
    if prefill.with_more(0) > decode.with_more(0):
        return _wish(prefill, decode, InstanceRole.PREFILLING, settings.least_decode, settings)
    return _wish(decode, prefill, InstanceRole.DECODING, settings.least_prefill, settings)


def _wish(short: Side, rich: Side, role: InstanceRole, least: int, settings: RoleSettings) -> Wish | None:
    if rich.ready <= least:
        return None
    leaves = InstanceRole.DECODING if role is InstanceRole.PREFILLING else InstanceRole.PREFILLING
    to_prefill = role is InstanceRole.PREFILLING
    if short.empty:
        cause = Cause.PREFILL_EMPTY if to_prefill else Cause.DECODE_EMPTY
        reason = f"no {short.name} instance is ready, and {rich.ready} {rich.name} instances are"
        return Wish(leaves=leaves, role=role, cause=cause, reason=reason)
    now, then, left = short.with_more(0), short.with_more(1), rich.without_one
    if now < settings.pressed or left > settings.room or max(then, left) > (1 - settings.gain) * now:
        return None
    cause = Cause.PREFILL_PRESSED if to_prefill else Cause.DECODE_PRESSED
    reason = (
        f"{short.name} is pressed, {now:.2f} ({short.why}), and {rich.name} is not, {rich.pressure:.2f}; "
        f"expected after the change: {then:.2f} and {left:.2f}"
    )
    return Wish(leaves=leaves, role=role, cause=cause, reason=reason)

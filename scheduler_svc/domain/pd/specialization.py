"""How well an instance suits each phase."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.instance_spec import InstanceRole


@dataclass(frozen=True, kw_only=True, slots=True)
class Specialization:
    """How well an instance suits each leg, both in [0, 1]; 0 means that it is not eligible for that leg."""

    prefill: float
    decode: float


_BY_ROLE: dict[InstanceRole, Specialization] = {
    InstanceRole.GENERAL: Specialization(prefill=0.0, decode=0.0),
    InstanceRole.PREFILLING: Specialization(prefill=1.0, decode=0.0),
    InstanceRole.DECODING: Specialization(prefill=0.0, decode=1.0),
    InstanceRole.HYBRID: Specialization(prefill=0.5, decode=0.5),
    InstanceRole.EMBEDDING: Specialization(prefill=0.0, decode=0.0),
}

PREFILL_ROLES = frozenset(role for role, how in _BY_ROLE.items() if how.prefill > 0)
DECODE_ROLES = frozenset(role for role, how in _BY_ROLE.items() if how.decode > 0)


def specialization(role: InstanceRole, *, kv_connector: str) -> Specialization:
    """Return how well an instance in ``role`` suits each leg; without a KV connector it can take none."""
    return _BY_ROLE[role] if kv_connector else _BY_ROLE[InstanceRole.GENERAL]

"""LoRA adapters that are added and removed while engines run, and their messages."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from sage.controlplane.v1 import admin_pb2
from sage_client._plain import Plain


class AdapterState(Enum):
    """State of an adapter on an instance."""

    UNKNOWN = "unknown"  # a state of a later version
    ABSENT = "absent"  # not loaded: other adapters have the slots, or the instance is not ready
    LOADING = "loading"
    LOADED = "loaded"  # requests run with it
    FAILED = "failed"
    UNLOADING = "unloading"  # requests still use it
    UNSUPPORTED = "unsupported"  # the executor or its engine takes no adapters while it runs


@dataclass(frozen=True, kw_only=True, slots=True)
class InstanceAdapter(Plain):
    """One adapter on one instance: its state, and why."""

    instance_id: str
    state: AdapterState
    reason: str  # in words
    weights: str  # with LOADED: fingerprint of the weights
    rank: int  # with LOADED; 0: unknown


@dataclass(frozen=True, kw_only=True, slots=True)
class Adapter(Plain):
    """A LoRA adapter of the registry."""

    name: str  # what requests name
    model: str
    source: str  # directory on the executors' machines, or id on the model hub
    revision: str  # of the hub; empty: its default branch, or a directory
    max_rank: int  # a larger rank is refused; 0: each engine's own bound only
    removing: bool  # it is taken out: new requests are refused
    requests: int  # accepted ones that name it and have not ended
    instances: tuple[InstanceAdapter, ...]  # those of its model, sorted by id
    not_kept: str  # why this is not in the journal yet, in words; empty if it is, or without a journal


_STATES = {
    admin_pb2.InstanceAdapter.STATE_ABSENT: AdapterState.ABSENT,
    admin_pb2.InstanceAdapter.STATE_LOADING: AdapterState.LOADING,
    admin_pb2.InstanceAdapter.STATE_LOADED: AdapterState.LOADED,
    admin_pb2.InstanceAdapter.STATE_FAILED: AdapterState.FAILED,
    admin_pb2.InstanceAdapter.STATE_UNLOADING: AdapterState.UNLOADING,
    admin_pb2.InstanceAdapter.STATE_UNSUPPORTED: AdapterState.UNSUPPORTED,
}


def decode_adapter(m: admin_pb2.Adapter) -> Adapter:
    """Decode an adapter."""
    return Adapter(
        name=m.name,
        model=m.model,
        source=m.source,
        revision=m.revision,
        max_rank=m.max_rank,
        removing=m.removing,
        requests=m.requests,
        instances=tuple(
            InstanceAdapter(
                instance_id=each.instance_id,
                state=_STATES.get(each.state, AdapterState.UNKNOWN),
                reason=each.reason,
                weights=each.weights,
                rank=each.rank,
            )
            for each in m.instances
        ),
        not_kept=m.not_kept,
    )

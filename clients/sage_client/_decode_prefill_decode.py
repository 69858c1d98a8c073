"""Encodes and decodes the messages about prefill/decode separation."""

from __future__ import annotations

from sage.controlplane.v1 import admin_pb2
from sage_client import _prefill_decode as v
from sage_client._decode import role, seconds, word

_MODES: dict[admin_pb2.SplitMode.ValueType, v.SplitMode] = {
    admin_pb2.SPLIT_MODE_NEVER: v.SplitMode.NEVER,
    admin_pb2.SPLIT_MODE_ALWAYS: v.SplitMode.ALWAYS,
    admin_pb2.SPLIT_MODE_THRESHOLD: v.SplitMode.THRESHOLD,
    admin_pb2.SPLIT_MODE_ADAPTIVE: v.SplitMode.ADAPTIVE,
}
_MODES_TO_WIRE = {mode: wire for wire, mode in _MODES.items()}


def status(message: admin_pb2.GetPrefillDecodeResponse) -> v.PrefillDecodeStatus:
    """Decode the settings, pairs and conditions."""
    return v.PrefillDecodeStatus(
        config=config(message.config),
        pairs=tuple(_pair(each) for each in message.pairs),
        pairs_by_state={_state(each.state).value: each.pairs for each in message.pair_counts},
        conditions=tuple(message.conditions),
        splits=message.splits,
        fallbacks=message.fallbacks,
        automatic_roles=message.automatic_roles,
        sides=tuple(_side(each) for each in message.sides),
        role_changes=tuple(role_change(each) for each in message.role_changes),
    )


def role_change(message: admin_pb2.RoleChange) -> v.RoleChange:
    """Decode a change of a role."""
    return v.RoleChange(
        instance_id=message.instance_id,
        model=message.model,
        previous=role(message.previous),
        role=role(message.role),
        cause=message.cause,
        reason=message.reason,
        age_s=seconds(message.age),
    )


def _side(message: admin_pb2.PrefillDecodeSide) -> v.PrefillDecodeSide:
    return v.PrefillDecodeSide(
        model=message.model,
        role=role(message.role),
        ready=message.ready,
        starting=message.starting,
        pressure=message.pressure,
        reason=message.reason,
    )


def config(message: admin_pb2.PrefillDecodeConfig, not_kept: str = "") -> v.PrefillDecodeConfig:
    """Decode the settings; ``not_kept``: why a change of them is not in the journal yet."""
    return v.PrefillDecodeConfig(
        mode=_MODES.get(message.mode, v.SplitMode.UNKNOWN),
        threshold_input_tokens=message.prefilling_threshold_input_tokens,
        threshold_ratio=message.prefilling_threshold_ratio,
        not_kept=not_kept,
    )


def change(
    mode: v.SplitMode | str | None, threshold_input_tokens: int | None, threshold_ratio: float | None
) -> admin_pb2.SetPrefillDecodeRequest:
    """Encode a change of the settings; None leaves a setting unchanged.

    Raises:
        ValueError: the mode does not exist; the message lists those that do.
    """
    wire = admin_pb2.PrefillDecodeConfig(
        prefilling_threshold_input_tokens=threshold_input_tokens, prefilling_threshold_ratio=threshold_ratio
    )
    if mode is not None:
        wire.mode = _mode(mode)
    return admin_pb2.SetPrefillDecodeRequest(config=wire)


def _mode(mode: v.SplitMode | str) -> admin_pb2.SplitMode.ValueType:
    try:
        return _MODES_TO_WIRE[v.SplitMode(mode)]
    except (ValueError, KeyError):
        known_names = ", ".join(each.value for each in _MODES_TO_WIRE)
        raise ValueError(f"unknown split mode {mode!r}; known modes: {known_names}") from None


def _pair(message: admin_pb2.PrefillDecodePair) -> v.PrefillDecodePair:
    return v.PrefillDecodePair(
        prefill_instance_id=message.prefill_instance_id,
        decode_instance_id=message.decode_instance_id,
        model=message.model,
        state=_state(message.state),
        reason=message.reason,
        handoff_s=seconds(message.handoff) if message.HasField("handoff") else None,
    )


def _state(number: admin_pb2.PrefillDecodePair.State.ValueType) -> v.PairState:
    return word(v.PairState, admin_pb2.PrefillDecodePair.State.DESCRIPTOR, "STATE_", number)

"""Prefill/decode separation as AdminService shows and sets it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import chain, islice

from sage.controlplane.v1 import admin_pb2
from sage_wire import durations
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.domain.pd.pairs import Pair, PairState
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.scheduler import Scheduler
from scheduler_svc.transport import automatic_roles

MODE_FROM_WIRE: dict[admin_pb2.SplitMode.ValueType, SplitMode] = {
    admin_pb2.SPLIT_MODE_NEVER: SplitMode.NEVER,
    admin_pb2.SPLIT_MODE_ALWAYS: SplitMode.ALWAYS,
    admin_pb2.SPLIT_MODE_THRESHOLD: SplitMode.THRESHOLD,
    admin_pb2.SPLIT_MODE_ADAPTIVE: SplitMode.ADAPTIVE,
}
MODE_TO_WIRE: dict[SplitMode, admin_pb2.SplitMode.ValueType] = {m: w for w, m in MODE_FROM_WIRE.items()}

STATE_TO_WIRE: dict[PairState, admin_pb2.PrefillDecodePair.State.ValueType] = {
    PairState.UNTRIED: admin_pb2.PrefillDecodePair.STATE_UNTRIED,
    PairState.WARMING: admin_pb2.PrefillDecodePair.STATE_WARMING,
    PairState.USABLE: admin_pb2.PrefillDecodePair.STATE_USABLE,
    PairState.FAILED: admin_pb2.PrefillDecodePair.STATE_FAILED,
}

PAIRS_SHOWN = 1_024  # most pairs in an answer of GetPrefillDecode
PAIRS_IN_SNAPSHOT = 64  # most pairs in a snapshot of WatchFleet
_TROUBLE_FIRST = (PairState.FAILED, PairState.WARMING, PairState.UNTRIED, PairState.USABLE)


def config(settings: PdSettings) -> admin_pb2.PrefillDecodeConfig:
    """Convert the settings that decide when requests are split."""
    return admin_pb2.PrefillDecodeConfig(
        mode=MODE_TO_WIRE[settings.mode],
        prefilling_threshold_input_tokens=settings.threshold_input_tokens,
        prefilling_threshold_ratio=settings.threshold_ratio,
    )


def in_words(settings: PdSettings) -> str:
    """Return the settings as a log line shows them."""
    tokens, ratio = settings.threshold_input_tokens, settings.threshold_ratio
    return f"{settings.mode.value} (from {tokens} prompt tokens, or {ratio:g} times the output)"


def changed(settings: PdSettings, wire: admin_pb2.PrefillDecodeConfig) -> PdSettings:
    """Return the settings with what the message sets; absent fields stay as they are.

    Raises InvalidRequest for an unknown mode or a threshold out of range.
    """
    if wire.mode not in MODE_FROM_WIRE and wire.mode != admin_pb2.SPLIT_MODE_UNSPECIFIED:
        raise InvalidRequest([FieldViolation(field="config.mode", description=f"{wire.mode} is not one of its values")])
    tokens = wire.HasField("prefilling_threshold_input_tokens")
    ratio = wire.HasField("prefilling_threshold_ratio")
    try:
        return replace(
            settings,
            mode=MODE_FROM_WIRE.get(wire.mode, settings.mode),
            threshold_input_tokens=(
                wire.prefilling_threshold_input_tokens if tokens else settings.threshold_input_tokens
            ),
            threshold_ratio=wire.prefilling_threshold_ratio if ratio else settings.threshold_ratio,
        )
    except ValueError as error:
        key, _, description = str(error).partition(": ")
        raise InvalidRequest([FieldViolation(field=f"config.prefilling_{key}", description=description)]) from error


def state(scheduler: Scheduler, now: float, most_pairs: int = PAIRS_SHOWN) -> admin_pb2.GetPrefillDecodeResponse:
    """Describe splitting: settings, pairs, what keeps it from working, counts, automatic roles.

    It lists at most ``most_pairs`` pairs, failed ones first: there may be as many as prefill times decode instances.
    """
    settings, counts = scheduler.pd_settings, scheduler.split_counts()
    # While splitting is disabled pairs are not updated: they may be out of date, so none is shown.
    pairs = _by_state(scheduler.pairs()) if settings.enabled else {}
    return admin_pb2.GetPrefillDecodeResponse(
        config=config(settings),
        pairs=[_pair(pair) for pair in islice(chain.from_iterable(pairs.values()), most_pairs)],
        pair_counts=[
            admin_pb2.PrefillDecodePairCount(state=STATE_TO_WIRE[state], pairs=len(members))
            for state, members in pairs.items()
            if members
        ],
        conditions=scheduler.pd_conditions(),
        splits=counts.splits,
        fallbacks=counts.fallbacks,
        automatic_roles=scheduler.settings.roles.automatic,
        sides=automatic_roles.sides(scheduler),
        role_changes=[automatic_roles.role_change(each, now) for each in scheduler.role_changes],
    )


def _by_state(pairs: Iterable[Pair]) -> dict[PairState, list[Pair]]:
    """Group pairs by state, those in trouble first."""
    listed = list(pairs)
    return {state: [pair for pair in listed if pair.state is state] for state in _TROUBLE_FIRST}


def _pair(pair: Pair) -> admin_pb2.PrefillDecodePair:
    return admin_pb2.PrefillDecodePair(
        prefill_instance_id=pair.prefill.instance_id,
        decode_instance_id=pair.decode.instance_id,
        state=STATE_TO_WIRE[pair.state],
        reason=pair.reason,
        handoff=durations.to_wire(pair.handoff_s) if pair.handoff_s is not None else None,
        model=pair.decode.model,
    )

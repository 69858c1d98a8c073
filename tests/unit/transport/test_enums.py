"""Both sides of every enum, complete: a member that is added on either side and not mapped fails here."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import Any

import pytest

from sage.controlplane.v1 import admin_pb2, common_pb2, executor_pb2, inference_pb2
from scheduler_svc.control.requests.timeline import TimeUse
from scheduler_svc.domain.attempt_end import EndCause
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.instance_state import InstanceState
from scheduler_svc.domain.pd.pairs import PairState
from scheduler_svc.domain.pd.settings import SplitMode
from scheduler_svc.domain.request import Priority, RequestState, ResumeMode
from scheduler_svc.transport import enums, prefill_decode, stories

UNSPECIFIED = 0

TO_WIRE: list[tuple[Mapping[Any, Any], type[Enum], Any]] = [
    (enums.PRIORITY_TO_WIRE, Priority, common_pb2.Priority),
    (enums.ROLE_TO_WIRE, InstanceRole, common_pb2.InstanceRole),
    (enums.STATE_TO_WIRE, InstanceState, common_pb2.InstanceState),
    (enums.PHASE_TO_WIRE, Phase, common_pb2.Phase),
    (enums.REQUEST_STATE_TO_WIRE, RequestState, inference_pb2.RequestState),
    (prefill_decode.MODE_TO_WIRE, SplitMode, admin_pb2.SplitMode),
    (prefill_decode.STATE_TO_WIRE, PairState, admin_pb2.PrefillDecodePair.State),
    (stories.TIME_USE_TO_WIRE, TimeUse, admin_pb2.TimeUse),
]

FROM_WIRE: list[tuple[Mapping[Any, Any], type[Enum], Any]] = [
    (enums.PRIORITY_FROM_WIRE, Priority, common_pb2.Priority),
    (enums.ROLE_FROM_WIRE, InstanceRole, common_pb2.InstanceRole),
    (enums.RESUME_MODE_FROM_WIRE, ResumeMode, inference_pb2.ResumeMode),
    (enums.CAUSE_FROM_WIRE, EndCause, executor_pb2.AssignmentEnded.Cause),
    (prefill_decode.MODE_FROM_WIRE, SplitMode, admin_pb2.SplitMode),
]


def wire_values(wire: Any) -> set[int]:
    return set(wire.values())


@pytest.mark.parametrize(("table", "ours", "wire"), TO_WIRE, ids=lambda x: getattr(x, "__name__", ""))
def test_each_of_ours_has_its_own_value_on_the_wire(table: Mapping[Any, int], ours: type[Enum], wire: Any) -> None:
    assert set(table) == set(ours)
    assert set(table.values()) == wire_values(wire) - {UNSPECIFIED}
    assert len(set(table.values())) == len(table)


@pytest.mark.parametrize(("table", "ours", "wire"), TO_WIRE, ids=lambda x: getattr(x, "__name__", ""))
def test_the_names_agree(table: Mapping[Any, int], ours: type[Enum], wire: Any) -> None:
    for member, value in table.items():
        assert wire.Name(value).endswith(f"_{member.name}")


@pytest.mark.parametrize(("table", "ours", "wire"), FROM_WIRE, ids=lambda x: getattr(x, "__name__", ""))
def test_each_value_on_the_wire_means_one_of_ours(table: Mapping[int, Any], ours: type[Enum], wire: Any) -> None:
    assert set(table) | {UNSPECIFIED} == wire_values(wire)
    assert set(table.values()) == set(ours)
    for value, member in table.items():
        assert value == UNSPECIFIED or wire.Name(value).endswith(f"_{member.name}")


def test_there_and_back() -> None:
    assert {enums.PRIORITY_FROM_WIRE[w] for w in enums.PRIORITY_TO_WIRE.values()} == set(Priority)
    assert all(enums.ROLE_FROM_WIRE[w] is r for r, w in enums.ROLE_TO_WIRE.items())
    assert all(enums.FINISH_REASON_FROM_WIRE[w] == r for r, w in enums.FINISH_REASON_TO_WIRE.items())


def test_finish_reasons_are_complete() -> None:
    assert set(enums.FINISH_REASON_TO_WIRE.values()) == wire_values(common_pb2.FinishReason) - {UNSPECIFIED}


def test_what_to_do_without_an_instance_is_complete() -> None:
    assert set(enums.WAIT_FROM_WIRE) == wire_values(inference_pb2.NoInstance)


def test_what_is_not_said_takes_the_contracts_default() -> None:
    assert enums.PRIORITY_FROM_WIRE[common_pb2.PRIORITY_UNSPECIFIED] is Priority.NORMAL
    assert enums.ROLE_FROM_WIRE[common_pb2.INSTANCE_ROLE_UNSPECIFIED] is InstanceRole.GENERAL
    assert enums.RESUME_MODE_FROM_WIRE[inference_pb2.RESUME_MODE_UNSPECIFIED] is ResumeMode.STRICT
    assert enums.WAIT_FROM_WIRE[inference_pb2.NO_INSTANCE_UNSPECIFIED] is False


def test_an_executor_reports_what_an_engine_does_and_nothing_else() -> None:
    """SUSPECT, LOST and the like are the scheduler's own findings."""
    states = {InstanceState.DOWNLOADING, InstanceState.LOADING, InstanceState.WARMING}
    assert set(enums.ENGINE_STATE_FROM_WIRE.values()) == states | {InstanceState.READY, InstanceState.FAILED}
    assert all(enums.STATE_TO_WIRE[state] == wire for wire, state in enums.ENGINE_STATE_FROM_WIRE.items())

"""Adapters on the wire: what executors are told, what they say, and what of it is refused."""

from __future__ import annotations

import pytest

from sage.controlplane.v1 import executor_pb2
from scheduler_svc.control.adapters.instance_adapters import AdapterReport, AdapterState
from scheduler_svc.domain.adapters.registered_adapter import AdapterSource
from scheduler_svc.transport.adapters import STATES_LIMIT, adapter_reports
from scheduler_svc.transport.errors import WireError
from scheduler_svc.transport.executor_link import StreamLink

SOURCE = AdapterSource(name="legal", source="org/legal", revision="v2", max_rank=8)
WIRE = executor_pb2.AdapterSource(name="legal", source="org/legal", revision="v2", max_rank=8)


def report(state: int = executor_pb2.AdapterState.STATE_LOADED, **more: str) -> executor_pb2.AdapterStates:
    one = executor_pb2.AdapterState(source=WIRE, reason="why", weights="w", rank=4)
    one.MergeFromString(executor_pb2.AdapterState(state=state, **more).SerializeToString())  # type: ignore[arg-type]
    return executor_pb2.AdapterStates(adapters=[one])


async def test_an_executor_is_told_what_to_hold() -> None:
    link = StreamLink("a", epoch=1, owner="")
    link.want_adapters(3, [SOURCE])
    message = await link.control.get()
    assert message.adapters_wanted == executor_pb2.AdaptersWanted(number=3, adapters=[WIRE])


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        (executor_pb2.AdapterState.STATE_WAITING, AdapterState.LOADING),
        (executor_pb2.AdapterState.STATE_LOADING, AdapterState.LOADING),
        (executor_pb2.AdapterState.STATE_LOADED, AdapterState.LOADED),
        (executor_pb2.AdapterState.STATE_FAILED, AdapterState.FAILED),
        (executor_pb2.AdapterState.STATE_UNLOADING, AdapterState.UNLOADING),
        (77, AdapterState.LOADING),
    ],
)
def test_what_an_executor_says_of_an_adapter(state: int, expected: AdapterState) -> None:
    assert adapter_reports(report(state)) == [
        AdapterReport(source=SOURCE, state=expected, reason="why", weights="w", rank=4)
    ]


def test_a_reason_is_shortened_and_not_refused() -> None:
    [found] = adapter_reports(report(reason="x" * 100_000))
    assert len(found.reason) < 5_000


def test_nonsense_is_refused() -> None:
    with pytest.raises(WireError, match="adapter_states: adapters: has 8193 entries"):
        adapter_reports(executor_pb2.AdapterStates(adapters=[executor_pb2.AdapterState()] * (STATES_LIMIT + 1)))
    with pytest.raises(WireError, match="is longer than 256 bytes"):
        adapter_reports(report(weights="w" * 300))

"""A pass need not look at what asks for as much as something that it held back."""

from __future__ import annotations

import pytest

from scheduler_svc.domain.held_alike import HeldAlike
from scheduler_svc.domain.objectives.held_back import MOST_LATE_S, PATIENCE
from scheduler_svc.domain.prediction.pace import GPU_PRIOR
from scheduler_svc.domain.targets import DEFAULT_TARGETS
from scheduler_svc.domain.waiting_request import WaitingRequest
from tests.contract.policies.modelled_fleet import make_request

NOW = 1_000.0
TTFT_S = 10.0


def waiting(
    *, prompt: int = 100, output: int = 100, tpot_s: float = 0.05, waited_s: float = 1.0, emitted: int = 0
) -> WaitingRequest:
    request = make_request("r", prompt=prompt, arrived_at=NOW - waited_s, ttft_target_s=TTFT_S, tpot_target_s=tpot_s)
    return WaitingRequest(
        request,
        enqueued_at=NOW - waited_s,
        emitted_tokens=emitted,
        excluded=frozenset(),
        resumed=emitted > 0,
        output_tokens=output,
        pace=GPU_PRIOR,
    )


def covers(held: WaitingRequest, other: WaitingRequest) -> bool:
    alike = HeldAlike(DEFAULT_TARGETS, NOW)
    alike.add(held)
    return alike.covers(other)


def test_nothing_is_covered_before_something_is_held() -> None:
    assert not HeldAlike(DEFAULT_TARGETS, NOW).covers(waiting())


@pytest.mark.parametrize(
    "other",
    [
        {},
        {"prompt": 101},
        {"output": 200},
        {"output": 95},  # both are predictions
    ],
)
def test_what_asks_for_as_much_is_covered(other: dict[str, int]) -> None:
    assert covers(waiting(), waiting(**other))


@pytest.mark.parametrize(
    "other",
    [
        {"prompt": 99},
        {"output": 80},
        {"tpot_s": 0.06},
        {"tpot_s": 0.04},
        {"waited_s": PATIENCE * TTFT_S},  # its patience is over: it may go where the held one would not
        {"waited_s": MOST_LATE_S},
        {"prompt": 201},  # it may have to go before the wait makes it late
        {"emitted": 3},
    ],
)
def test_what_may_go_is_looked_at(other: dict[str, float]) -> None:
    assert not covers(waiting(), waiting(**other))  # type: ignore[arg-type]


def test_one_that_waits_beyond_its_patience_covers_those_that_are_patient() -> None:
    over = waiting(waited_s=PATIENCE * TTFT_S)

    assert covers(over, waiting(waited_s=PATIENCE * TTFT_S + 1))
    assert covers(over, waiting())
    assert not covers(over, waiting(waited_s=MOST_LATE_S))

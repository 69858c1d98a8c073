"""What executors answer about attempts of earlier schedulers: whatever they say, nothing breaks, and no lie counts."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import replace

import pytest

from sage.controlplane.v1 import common_pb2, executor_pb2
from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.attempts.request_runner import PREFILL_SAMPLING
from scheduler_svc.domain.decision import Phase
from scheduler_svc.domain.request import Embedding
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.transport.assign import assign_message
from scheduler_svc.transport.request_records import held_request, proved_content
from tests.unit.control.world import World

KEY = AdoptionKey(b"k" * 32)
NOW = 100.0
CHANGES = 300


async def order() -> AssignOrder:
    async with World() as world:
        world.add("a")
        await world.submit("r", max_tokens=50)
        await world.advance(0.2)
        (running,) = world.executors["a"].held.values()
        return running.order


def answer(of: AssignOrder) -> executor_pb2.HeldAssign:
    return executor_pb2.HeldAssign(
        attempt=common_pb2.Attempt(epoch=of.epoch, number=of.attempt_number),
        assign=assign_message(of, "a", KEY),
        tokens=3,
    )


async def test_it_comes_back_as_it_was_sent() -> None:
    sent = await order()
    found = held_request(answer(sent), "a", KEY, NOW)
    assert found is not None
    assert found.request.sampling == sent.request.sampling
    assert list(found.request.prompt_token_ids) == list(sent.request.prompt_token_ids)


async def test_of_a_prefill_leg_the_requests_own_sampling_comes_back() -> None:
    sent = replace(await order(), phase=Phase.PREFILLING, sampling=PREFILL_SAMPLING)
    found = held_request(answer(sent), "a", KEY, NOW)
    assert found is not None
    assert found.request.sampling == sent.request.sampling


async def test_an_input_that_is_embedded_comes_back_as_one() -> None:
    plain = await order()
    embedding = Embedding(dimensions=7, normalize=True)
    found = held_request(answer(replace(plain, request=replace(plain.request, embedding=embedding))), "a", KEY, NOW)
    assert found is not None
    assert found.request.embedding == embedding


async def test_no_change_of_a_byte_passes() -> None:
    dice, wire = random.Random(1), answer(await order())
    sent = wire.assign.SerializeToString(deterministic=True)
    for _ in range(CHANGES):
        changed = bytearray(sent)
        changed[dice.randrange(len(changed))] ^= 1 << dice.randrange(8)
        try:
            wire.assign.ParseFromString(bytes(changed))
        except Exception:
            continue
        if wire.assign.SerializeToString(deterministic=True) != sent:
            assert held_request(wire, "a", KEY, NOW) is None


@pytest.mark.parametrize(
    "lie",
    [
        lambda wire: setattr(wire, "tokens", 2**32 - 1),
        lambda wire: setattr(wire.held_for, "seconds", 2**62),
        lambda wire: setattr(wire.held_for, "seconds", -(2**62)),
    ],
    ids=["tokens", "long ago", "in the future"],
)
async def test_figures_that_make_no_sense_do_no_harm(lie: Callable[[executor_pb2.HeldAssign], None]) -> None:
    wire = answer(await order())
    lie(wire)
    found = held_request(wire, "a", KEY, NOW)
    assert found is None or (found.attempt.tokens <= 50 and found.request.arrived_at <= NOW)


@pytest.mark.parametrize(
    "make",
    [
        lambda assign: setattr(assign, "record", b"\xff\xff"),
        lambda assign: setattr(assign, "phase", 77),
        lambda assign: assign.ClearField("prompt_token_ids"),
        lambda assign: assign.ClearField("record"),
    ],
    ids=["record", "phase", "prompt", "no record"],
)
async def test_what_another_version_proved_and_this_one_cannot_read_is_refused(
    make: Callable[[executor_pb2.Assign], None],
) -> None:
    wire = answer(await order())
    wire.assign.ClearField("adoption_proof")
    make(wire.assign)
    attempt = wire.attempt
    wire.assign.adoption_proof = KEY.proof("a", attempt.epoch, attempt.number, proved_content(wire.assign))
    assert held_request(wire, "a", KEY, NOW) is None

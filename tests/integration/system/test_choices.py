"""Requests with several choices: one prompt, one id, one end; each choice with tokens of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import grpc
import pytest
from click.testing import CliRunner

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from sage_client import (
    Accepted,
    AsyncClient,
    ChoiceFinished,
    Completion,
    DeadlineExceededError,
    Event,
    Finished,
    FinishReason,
    InvalidRequestError,
    QueueFullError,
    RequestCancelledError,
    RequestState,
    Scheduled,
    TenantLimitError,
    Tokens,
)
from sagectl.cli import sagectl
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

PROMPT = "Once upon a time there was a fleet of engines that told " + "many " * 24 + "stories"
SEEDED: dict[str, Any] = {"n": 3, "temperature": 1.0, "seed": 7, "max_tokens": 40}


@pytest.fixture(params=[True, False], ids=["session", "generate"])
async def client(request: pytest.FixtureRequest, fleet: LocalFleet) -> AsyncClient:
    """A client over either transport."""
    return fleet.new_client(use_sessions=request.param)


async def assert_seeded(done: Completion, prompt: str = PROMPT, *, length: int = 40) -> None:
    """Hold each choice against what an engine answers to the seed plus its index."""
    assert [each.index for each in done.choices] == [0, 1, 2]
    for each in done.choices:
        wanted = await answer(prompt, Sampling(temperature=1.0, seed=7 + each.index, max_tokens=length))
        assert_tokens(each.token_ids, wanted.token_ids, f"choice {each.index}")
        assert each.text == wanted.text


async def test_each_choice_is_what_its_own_seed_gives(
    fleet: LocalFleet, one: LocalExecutor, client: AsyncClient
) -> None:
    done = await client.generate(PROMPT, **SEEDED).result()
    await assert_seeded(done)
    assert len({each.text for each in done.choices}) == 3
    assert (done.text, done.token_ids) == (done.choices[0].text, done.choices[0].token_ids)
    assert done.usage.completion_tokens == 120
    assert done.attempts == 3
    assert done.finish_reason is FinishReason.LENGTH


async def test_every_event_names_its_choice_and_the_request_ends_once(
    fleet: LocalFleet, one: LocalExecutor, client: AsyncClient
) -> None:
    events = [event async for event in client.generate(PROMPT, **SEEDED)]
    assert isinstance(events[0], Accepted)
    assert isinstance(events[-1], Finished)
    assert sorted(e.choice for e in events if isinstance(e, Scheduled)) == [0, 1, 2]
    assert sorted(e.choice for e in events if isinstance(e, ChoiceFinished)) == [0, 1, 2]
    for choice in range(3):
        of_it = [e for e in events if getattr(e, "choice", None) == choice]
        assert [type(e) for e in (of_it[0], of_it[-1])] == [Scheduled, ChoiceFinished]
        assert_positions([e for e in of_it if isinstance(e, Tokens)])
        placed = next(e for e in of_it if isinstance(e, Scheduled))
        assert {e.attempt for e in of_it if isinstance(e, Tokens)} == {placed.decision.attempt}


def assert_positions(pieces: Sequence[Tokens]) -> None:
    """Each position once, in order."""
    position = offset = 0
    for each in pieces:
        assert (each.first_index, each.text_offset) == (position, offset)
        position, offset = position + len(each.token_ids), offset + len(each.text)


async def test_choices_prefer_the_instance_that_has_their_prompt(fleet: LocalFleet) -> None:
    for name in ("a", "b"):
        await fleet.add(name)
    for turn in range(4):
        done = await fleet.client.generate(f"{turn} {PROMPT}", **SEEDED).result()
        assert len({each.instance_id for each in done.decisions}) == 1
        later = [each.cached_tokens for each in done.decisions[1:]]
        assert min(later) >= 16, "the second and third compute only the end of the prompt"


@pytest.mark.parametrize("sampling", [{"seed": 7, "temperature": 1.0}, {"temperature": 0}], ids=["seeded", "greedy"])
async def test_each_choice_goes_on_at_its_own_position_when_the_executor_dies(
    fleet: LocalFleet, client: AsyncClient, sampling: dict[str, Any]
) -> None:
    first = await fleet.add("a", step_base_s=0.003)
    await fleet.add("b")
    stream = client.generate(PROMPT, n=3, max_tokens=40, preferred_instance="a", **sampling)
    events = await until(stream, lambda seen: len(positions(seen)) == 3 and min(positions(seen).values()) > 4)
    first.engine.inject(Fault(kind=FaultKind.DIE))
    events += [event async for event in stream]
    done = await stream.result()
    for each in done.choices:
        wanted = Sampling(max_tokens=40, temperature=0)
        if "seed" in sampling:
            wanted = Sampling(max_tokens=40, temperature=1.0, seed=7 + each.index)
        assert_tokens(each.token_ids, (await answer(PROMPT, wanted)).token_ids, f"choice {each.index}")
        assert_positions([e for e in events if isinstance(e, Tokens) and e.choice == each.index])
    resumed = {e.choice: e.resumed_from_token for e in events if isinstance(e, Scheduled) and e.resumed_from_token}
    assert sorted(resumed) == [0, 1, 2]
    assert done.attempts == 6


async def until(stream: Any, enough: Any) -> list[Event]:
    """Read a stream until ``enough`` was seen."""
    seen: list[Event] = []
    while not enough(seen):
        seen.append(await anext(stream))
    return seen


def positions(events: Sequence[Event]) -> dict[int, int]:
    """Return the output tokens of each choice."""
    found: dict[int, int] = {}
    for each in events:
        if isinstance(each, Tokens):
            found[each.choice] = found.get(each.choice, 0) + len(each.token_ids)
    return found


async def test_cancelling_ends_all_choices_and_frees_their_capacity(
    fleet: LocalFleet, one: LocalExecutor, client: AsyncClient
) -> None:
    stream = client.generate(PROMPT, n=3, max_tokens=4000, temperature=0)
    await until(stream, lambda seen: len(positions(seen)) == 3)
    assert (await stream.cancel("enough")).cancelled
    with pytest.raises(RequestCancelledError, match="enough"):
        await stream.result()
    await eventually(lambda: one.engine.load().unfinished == 0)
    assert not fleet.scheduler.control.requests
    told = await fleet.client.explain(stream.request_id)
    assert {each.state for each in told.choices} == {RequestState.CANCELLED}


async def test_a_client_that_goes_away_ends_all_choices(
    fleet: LocalFleet, one: LocalExecutor, client: AsyncClient
) -> None:
    stream = client.generate(PROMPT, n=3, max_tokens=4000, temperature=0)
    await until(stream, lambda seen: len(positions(seen)) == 3)
    await stream.aclose()
    await eventually(lambda: one.engine.load().unfinished == 0)
    assert not fleet.scheduler.control.requests


async def test_a_deadline_ends_all_choices(fleet: LocalFleet, client: AsyncClient) -> None:
    executor = await fleet.add("a", step_base_s=0.02)
    with pytest.raises(DeadlineExceededError):
        await client.generate(PROMPT, n=3, max_tokens=4000, temperature=0, deadline=0.5).result()
    await eventually(lambda: executor.engine.load().unfinished == 0)


async def test_a_request_is_found_by_its_id_and_read_again_with_all_choices(
    fleet: LocalFleet, one: LocalExecutor, client: AsyncClient
) -> None:
    done = await client.generate(PROMPT, request_id="again", **SEEDED).result()
    again = await client.generate(PROMPT, request_id="again", **SEEDED).result()
    attached = await client.attach("again").result()
    assert again.choices == attached.choices == done.choices
    assert again.usage == attached.usage == done.usage


async def test_a_broken_connection_is_gone_on_from_at_each_choices_position(fleet: LocalFleet) -> None:
    await fleet.add("a", step_base_s=0.003)
    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    request = inference_pb2.GenerateRequest(request_id="broken", detached=True, takes_choices=True)
    request.spec.text = PROMPT
    request.spec.sampling.n, request.spec.sampling.seed, request.spec.sampling.max_tokens = 3, 7, 40
    first = await read(stub.Generate(request), 20)
    request.after_token = len(first[0])
    for choice in (1, 2):
        request.after.add(choice=choice, after_token=len(first[choice]))
    rest = await read(stub.Generate(request), None)
    for choice in range(3):
        wanted = await answer(PROMPT, Sampling(temperature=1.0, seed=7 + choice, max_tokens=40))
        assert_tokens([*first[choice], *rest[choice]], wanted.token_ids, f"choice {choice}")


async def read(call: Any, most: int | None) -> dict[int, list[int]]:
    """Read the tokens of each choice, at least ``most`` of them; then let go."""
    found: dict[int, list[int]] = {0: [], 1: [], 2: []}
    async for response in call:
        if response.WhichOneof("event") == "tokens":
            found[response.tokens.choice] += response.tokens.token_ids
        if most is not None and sum(map(len, found.values())) >= most:
            call.cancel()
            break
    return found


async def test_explain_tells_of_each_choice(fleet: LocalFleet, one: LocalExecutor) -> None:
    done = await fleet.client.generate(PROMPT, **SEEDED).result()
    told = await fleet.client.explain(done.request_id)
    assert [each.completion_tokens for each in told.choices] == [40, 40, 40]
    assert [len(each.decisions) for each in told.choices] == [1, 1, 1]
    assert told.decisions[0].candidates
    assert {each.state for each in told.choices} == {RequestState.FINISHED}


# --- refused --------------------------------------------------------------------------------------


async def test_more_choices_than_the_limit_are_refused_by_name() -> None:
    async with LocalFleet(queue={"choices_limit": 4}) as fleet:
        await fleet.add("a")
        with pytest.raises(InvalidRequestError) as caught:
            await fleet.client.generate(PROMPT, n=5, max_tokens=4).result()
        [violation] = caught.value.violations
        assert (violation.field, violation.description) == ("spec.sampling.n", "is 5; it must be from 1 to 4")
        assert len((await fleet.client.generate(PROMPT, n=4, max_tokens=4).result()).choices) == 4


async def test_a_client_that_does_not_tell_choices_apart_is_refused(fleet: LocalFleet, one: LocalExecutor) -> None:
    """As every client of an earlier version is."""
    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    request = inference_pb2.GenerateRequest()
    request.spec.text = PROMPT
    request.spec.sampling.n = 3
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await read(stub.Generate(request), None)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "spec.sampling.n" in str(caught.value.details())
    assert "takes_choices" in str(caught.value.details())


async def test_a_queue_without_room_for_all_choices_takes_none() -> None:
    async with LocalFleet(queue={"limit_per_model": 2}) as fleet:
        await fleet.add("a", max_running=1, step_base_s=0.01)
        with pytest.raises(QueueFullError):
            await fleet.client.generate(PROMPT, n=3, max_tokens=4).result()
        assert not fleet.scheduler.control.requests
        assert all(queue.waiting == 0 for queue in (await fleet.client.list_instances()).queues)


async def test_each_choice_counts_against_its_tenants_limits() -> None:
    limits = {"small": {"running_limit": 2, "at_running_limit": "refuse"}}
    async with LocalFleet(tenants=limits) as fleet:
        await fleet.add("a")
        with pytest.raises(TenantLimitError):
            await fleet.client.generate(PROMPT, n=3, max_tokens=4, tenant="small").result()
        done = await fleet.client.generate(PROMPT, n=2, max_tokens=4, tenant="small").result()
        assert len(done.choices) == 2


async def test_many_requests_with_choices_share_the_slots(fleet: LocalFleet) -> None:
    for name in ("a", "b"):
        await fleet.add(name, max_running=4)
    streams = [fleet.client.generate(f"{turn} {PROMPT}", **SEEDED) for turn in range(8)]
    for turn, done in enumerate(await asyncio.gather(*(each.result() for each in streams))):
        await assert_seeded(done, f"{turn} {PROMPT}")


# --- the command line -----------------------------------------------------------------------------


async def test_sagectl_prints_the_first_choice_and_then_the_others(fleet: LocalFleet, one: LocalExecutor) -> None:
    command = ["--address", fleet.address, "generate", PROMPT, "-n", "3", "--seed", "7", "--max-tokens", "8"]
    printed = await asyncio.to_thread(CliRunner().invoke, sagectl, command)
    texts = [(await answer(PROMPT, Sampling(temperature=1.0, seed=7 + index, max_tokens=8))).text for index in range(3)]
    assert printed.exit_code == 0, printed.output
    assert printed.stdout == f"{texts[0]}\n\n[choice 1]\n{texts[1]}\n\n[choice 2]\n{texts[2]}\n"


async def test_sagectl_explains_each_choice(fleet: LocalFleet, one: LocalExecutor) -> None:
    done = await fleet.client.generate(PROMPT, **SEEDED).result()
    command = ["--address", fleet.address, "explain", done.request_id]
    printed = await asyncio.to_thread(CliRunner().invoke, sagectl, command)
    assert printed.exit_code == 0, printed.output
    for index in (1, 2):
        assert f"choice {index}" in printed.stdout

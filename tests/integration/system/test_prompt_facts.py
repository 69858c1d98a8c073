"""What an engine tells of a prompt reaches the client once, before the first tokens."""

from __future__ import annotations

from typing import Any

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import EngineRequest, Sampling
from sage_client import AsyncClient, ChoiceFinished, InvalidRequestError, PromptRead, Scheduled, Tokens
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.instant_clock import InstantClock
from tests.support.simulated_answer import ENDLESS, encode

PROMPT = "Once upon a time there was a fleet of engines that told " + "many " * 24 + "stories"
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 8}


@pytest.fixture(params=[True, False], ids=["session", "generate"])
async def client(request: pytest.FixtureRequest, fleet: LocalFleet) -> AsyncClient:
    """A client over either transport."""
    return fleet.new_client(use_sessions=request.param)


async def engine_says(prompt: str, top: int) -> list[list[tuple[int, float]]]:
    """Return the candidates of each prompt token, as an engine gives them."""
    engine = await SimulatedEngineFactory(ModelSettings(model="sim"), ENDLESS, InstantClock()).start(lambda *_: None)
    request = EngineRequest(
        engine_request_id="direct/1",
        prompt_token_ids=encode(prompt),
        sampling=Sampling(temperature=0, max_tokens=1, prompt_logprobs=top),
    )
    try:
        [output] = [output async for output in engine.generate(request)]
    finally:
        await engine.shutdown()
    assert output.prompt_logprobs is not None
    return [[(each.token_id, each.logprob) for each in row or ()] for row in output.prompt_logprobs]


async def test_cached_tokens_are_known_with_the_first_token(
    fleet: LocalFleet, one: LocalExecutor, client: AsyncClient
) -> None:
    first = [event async for event in client.generate(PROMPT, **GREEDY)]
    assert not [event for event in first if isinstance(event, PromptRead)], "there is nothing to tell"
    stream = client.generate(PROMPT, **GREEDY)
    events = [event async for event in stream]
    [told] = [event for event in events if isinstance(event, PromptRead)]
    assert isinstance(events[events.index(told) + 1], Tokens)
    assert told.cached_tokens == (await stream.result()).usage.cached_prompt_tokens > 16


async def test_each_choice_tells_what_it_found(fleet: LocalFleet, one: LocalExecutor, client: AsyncClient) -> None:
    await client.generate(PROMPT, **GREEDY).result()
    events = [event async for event in client.generate(PROMPT, n=3, **GREEDY)]
    told = {event.choice: event.cached_tokens for event in events if isinstance(event, PromptRead)}
    assert sorted(told) == [0, 1, 2]
    ends = {event.choice: event.finished for event in events if isinstance(event, ChoiceFinished)}
    assert {choice: ends[choice].usage.cached_prompt_tokens for choice in told} == told


async def test_log_probabilities_of_the_prompt(fleet: LocalFleet, one: LocalExecutor, client: AsyncClient) -> None:
    stream = client.generate(PROMPT, prompt_logprobs=2, **GREEDY)
    events = [event async for event in stream]
    [told] = [event for event in events if isinstance(event, PromptRead)]
    wanted = await engine_says(PROMPT, 2)
    assert [[each.token_id for each in row] for row in told.logprobs] == [[t for t, _ in row] for row in wanted]
    for got, expected in zip(told.logprobs, wanted, strict=True):
        assert [each.logprob for each in got] == pytest.approx([value for _, value in expected], abs=1e-5)
    assert told.logprobs[0] == ()
    assert (await stream.result()).prompt_logprobs == told.logprobs
    assert not (await stream.result()).logprobs


async def test_both_kinds_of_log_probabilities(fleet: LocalFleet, one: LocalExecutor, client: AsyncClient) -> None:
    done = await client.generate(PROMPT, prompt_logprobs=0, logprobs=1, n=2, **GREEDY).result()
    assert len(done.prompt_logprobs) == len(encode(PROMPT))
    assert [len(choice.logprobs) for choice in done.choices] == [8, 8]


async def test_a_late_reader_gets_them_from_the_start_only(
    fleet: LocalFleet, one: LocalExecutor, client: AsyncClient
) -> None:
    done = await client.generate(PROMPT, request_id="late", prompt_logprobs=1, **GREEDY).result()
    assert (await client.attach("late").result()).prompt_logprobs == done.prompt_logprobs
    assert (await client.attach("late", after_token=3).result()).prompt_logprobs == ()


async def test_they_come_once_when_the_executor_dies(fleet: LocalFleet, client: AsyncClient) -> None:
    first = await fleet.add("a", step_base_s=0.005)
    await fleet.add("b")
    stream = client.generate(PROMPT, prompt_logprobs=1, temperature=0, max_tokens=40, preferred_instance="a")
    events: list[object] = []
    async for event in stream:
        events.append(event)
        if isinstance(event, Tokens) and event.first_index <= 4 < stream.next_token:
            first.engine.inject(Fault(kind=FaultKind.DIE))
    assert len([event for event in events if isinstance(event, Scheduled)]) == 2
    assert len([event for event in events if isinstance(event, PromptRead)]) == 1


async def test_more_than_a_message_takes_is_refused_by_name(fleet: LocalFleet) -> None:
    await fleet.add("a", max_model_len=200_000, kv_capacity_tokens=400_000)
    with pytest.raises(InvalidRequestError) as caught:
        await fleet.client.generate(token_ids=[5] * 120_000, prompt_logprobs=1, **GREEDY).result()
    assert [each.field for each in caught.value.violations] == ["spec.sampling.prompt_logprobs"]

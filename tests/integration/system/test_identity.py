"""One id, one request: attaching, continuing where a stream broke off, and conflicts."""

from __future__ import annotations

import pytest

from executor_svc.runtime.engine_port import Sampling
from sage_client import Accepted, AsyncClient, RequestConflictError, Tokens
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

PROMPT = "Once upon a time"


async def test_the_same_id_with_the_same_content_attaches(client: AsyncClient, one: LocalExecutor) -> None:
    first = client.generate(PROMPT, temperature=0, max_tokens=60, request_id="r")
    while not isinstance(await anext(first), Tokens):
        pass
    second = client.generate(PROMPT, temperature=0, max_tokens=60, request_id="r")
    accepted = await anext(second)
    assert isinstance(accepted, Accepted)
    assert accepted.attached
    wanted = (await answer(PROMPT, Sampling(temperature=0, max_tokens=60))).token_ids
    assert_tokens((await second.result()).token_ids, wanted, "the second stream")
    assert_tokens((await first.result()).token_ids, wanted, "the first stream")
    assert one.engine.load().generation_tokens_total == 60, "it ran once"


async def test_a_request_that_ended_can_be_read_again(client: AsyncClient, one: LocalExecutor) -> None:
    done = await client.generate(PROMPT, temperature=0, max_tokens=20, request_id="r").result()
    again = await client.generate(PROMPT, temperature=0, max_tokens=20, request_id="r").result()
    assert again.token_ids == done.token_ids
    assert again.text == done.text
    assert again.finish_reason is done.finish_reason
    assert one.engine.load().generation_tokens_total == 20, "it ran once"


async def test_the_same_id_with_other_content_is_refused(client: AsyncClient) -> None:
    await client.generate(PROMPT, max_tokens=4, request_id="r").result()
    with pytest.raises(RequestConflictError) as caught:
        await client.generate(PROMPT, max_tokens=5, request_id="r").result()
    assert caught.value.status == "ALREADY_EXISTS"
    assert "'r'" in caught.value.message


async def test_ids_belong_to_their_tenant(client: AsyncClient) -> None:
    mine = await client.generate(PROMPT, max_tokens=4, request_id="r", tenant="a").result()
    theirs = await client.generate("Something else", max_tokens=9, request_id="r", tenant="b").result()
    assert len(mine.token_ids) == 4
    assert len(theirs.token_ids) == 9


async def test_after_token_streams_the_rest_and_only_that(client: AsyncClient) -> None:
    whole = await client.generate(PROMPT, temperature=0, max_tokens=40, request_id="r").result()
    stream = client.generate(PROMPT, temperature=0, max_tokens=40, request_id="r", after_token=15)
    tokens = [event async for event in stream if isinstance(event, Tokens)]
    assert tokens[0].first_index == 15
    assert_tokens([t for event in tokens for t in event.token_ids], whole.token_ids[15:])
    assert whole.text[tokens[0].text_offset :] == "".join(event.text for event in tokens)


async def test_after_token_beyond_the_end_gives_the_end_alone(client: AsyncClient) -> None:
    await client.generate(PROMPT, temperature=0, max_tokens=8, request_id="r").result()
    rest = await client.generate(PROMPT, temperature=0, max_tokens=8, request_id="r", after_token=8).result()
    assert rest.token_ids == ()
    assert rest.usage.completion_tokens == 8


async def test_a_detached_request_goes_on_when_its_client_goes_away(fleet: LocalFleet, one: LocalExecutor) -> None:
    client = fleet.new_client()
    stream = client.generate(PROMPT, temperature=0, max_tokens=80, request_id="r", detached=True)
    while not isinstance(await anext(stream), Tokens):
        pass
    position = stream.next_token
    await client.close()
    rest = fleet.client.generate(
        PROMPT, temperature=0, max_tokens=80, request_id="r", detached=True, after_token=position
    )
    done = await rest.result()
    wanted = (await answer(PROMPT, Sampling(temperature=0, max_tokens=80))).token_ids
    assert_tokens(done.token_ids, wanted[position:])
    assert one.engine.load().generation_tokens_total == 80

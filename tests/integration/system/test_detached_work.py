"""Detached work through the whole control plane: submit, attach, get, list, cancel, and the scheduler's restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import inference_pb2, inference_pb2_grpc
from sage_client import (
    AsyncClient,
    Client,
    InvalidRequestError,
    JournalUnavailableError,
    NoJournalError,
    RequestCancelledError,
    RequestConflictError,
    RequestNotFoundError,
    RequestState,
    RequestStatus,
    TenantLimitError,
    Tokens,
)
from scheduler_svc.transport import detached_servicer
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.system.raw_session import RawSession
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

PROMPT = "Once upon a time"


@pytest.fixture
async def fleet(tmp_path: Path) -> AsyncIterator[LocalFleet]:
    """A scheduler with a journal, no executor yet."""
    async with LocalFleet(state_dir=tmp_path / "state") as made:
        yield made


async def until_ended(client: AsyncClient, request_id: str) -> RequestStatus:
    async def ended() -> RequestStatus | None:
        found = await client.get(request_id)
        return found if found.request.ended_at is not None else None

    return await eventually(ended, what=f"{request_id} to end")


async def test_it_runs_without_a_client_and_its_result_is_kept(fleet: LocalFleet, one: LocalExecutor) -> None:
    submitting = fleet.new_client()
    accepted = await submitting.submit(
        PROMPT, temperature=0, max_tokens=60, logprobs=2, request_id="r", tags={"of": "test"}, keep_result="1m"
    )
    assert (accepted.request_id, accepted.accepted.attached) == ("r", False)
    await submitting.close()
    found = await until_ended(fleet.client, "r")
    wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=60, logprobs=2))
    assert found.result is not None
    assert_tokens(found.result.token_ids, wanted.token_ids)
    assert found.result.text == wanted.text
    assert len(found.result.logprobs) == 60
    assert found.result.finished is not None
    request = found.request
    assert (request.state, request.detached, request.usage.completion_tokens) == (RequestState.FINISHED, True, 60)
    assert request.tags == {"of": "test"}
    assert request.ended_at is not None
    assert request.keep_until is not None
    assert (request.keep_until - request.ended_at).total_seconds() == pytest.approx(60, abs=0.01)
    assert one.engine.load().generation_tokens_total == 60


async def test_a_stream_by_the_id_alone_has_everything_from_a_position_on(client: AsyncClient) -> None:
    accepted = await client.submit(PROMPT, temperature=0, max_tokens=200, request_id="r")
    stream = client.attach("r", after_token=20)
    tokens = [event async for event in stream if isinstance(event, Tokens)]
    assert tokens[0].first_index == 20
    whole = await accepted.result()
    assert_tokens([t for event in tokens for t in event.token_ids], whole.token_ids[20:])
    assert whole.text[tokens[0].text_offset :] == "".join(event.text for event in tokens)


async def test_the_same_again_attaches_and_other_content_is_refused(client: AsyncClient, one: LocalExecutor) -> None:
    await client.submit(PROMPT, temperature=0, max_tokens=20, request_id="r")
    assert (await client.submit(PROMPT, temperature=0, max_tokens=20, request_id="r")).accepted.attached
    await until_ended(client, "r")
    assert (await client.submit(PROMPT, temperature=0, max_tokens=20, request_id="r")).accepted.attached
    with pytest.raises(RequestConflictError):
        await client.submit(PROMPT, temperature=0, max_tokens=21, request_id="r")
    assert one.engine.load().generation_tokens_total == 20, "it ran once"


async def test_pages_list_the_latest_first(client: AsyncClient) -> None:
    for number in range(5):
        await client.submit(PROMPT, max_tokens=3, request_id=f"r-{number}")
    await client.submit(PROMPT, max_tokens=3, request_id="theirs", tenant="other")
    await client.generate(PROMPT, max_tokens=3, request_id="not detached").result()
    for number in range(5):
        await until_ended(client, f"r-{number}")
    listed = [each.request_id async for each in client.list(page_size=2)]
    assert listed == [f"r-{number}" for number in (4, 3, 2, 1, 0)]
    assert [each async for each in client.list(states=["failed"])] == []

    async def theirs() -> bool:
        return len([each async for each in client.list(states=[RequestState.FINISHED], tenant="other")]) == 1

    await eventually(theirs, what="the other tenant's to end")


async def test_a_page_ends_before_its_message_is_too_large(
    fleet: LocalFleet, client: AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(detached_servicer, "PAGE_BYTES", 1_000)
    for number in range(12):
        await client.submit(PROMPT, max_tokens=1, request_id=f"r-{number}", tags={"of": "x" * 250})
    listed = [each.request_id async for each in client.list(page_size=8)]
    assert listed == [f"r-{number}" for number in reversed(range(12))]
    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    page = await stub.List(inference_pb2.ListRequest(page_size=8))
    assert 1 <= len(page.requests) < 8
    assert page.next_page_token


async def test_it_can_be_cancelled_by_its_id_alone(client: AsyncClient) -> None:
    accepted = await client.submit(PROMPT, max_tokens=4_000, ignore_eos=True, request_id="r")
    assert (await accepted.cancel("no longer wanted")).cancelled
    with pytest.raises(RequestCancelledError, match="no longer wanted"):
        await accepted.result()
    found = await until_ended(client, "r")
    assert (found.request.state, "no longer wanted" in found.request.error) == (RequestState.CANCELLED, True)
    assert not (await accepted.cancel()).cancelled
    (listed,) = [each async for each in client.list(states=["cancelled"])]
    assert "no longer wanted" in listed.error


async def test_the_end_of_an_ordinary_request_has_its_time(client: AsyncClient) -> None:
    await client.generate(PROMPT, max_tokens=3, request_id="r").result()
    found = (await client.get("r")).request
    assert found.ended_at is not None
    assert found.accepted_at <= found.ended_at
    async with client.generate(PROMPT, max_tokens=1_000, ignore_eos=True, request_id="runs") as stream:
        await anext(stream)
        assert (await client.get("runs")).request.ended_at is None


async def test_what_is_wrong_is_named(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.submit(PROMPT, top_p=2.0, keep_result=-1.0)
    assert {violation.field for violation in caught.value.violations} == {"spec.sampling.top_p", "keep_result"}
    for wrong in (1e9, "soon"):
        with pytest.raises(InvalidRequestError, match="keep_result"):
            await client.submit(PROMPT, keep_result=wrong)
    for bad in (lambda: client.attach("r", timeout="soon"), lambda: client.submit(PROMPT, timeout="soon")):
        with pytest.raises(InvalidRequestError, match="timeout"):
            await bad()  # type: ignore[misc]
    with pytest.raises(RequestNotFoundError):
        await client.get("unknown")
    with pytest.raises(RequestNotFoundError):
        await client.attach("unknown").result()
    for wrong_name in ("a\0", "a" * 2_000):
        with pytest.raises(InvalidRequestError, match="tenant"):
            _ = [each async for each in client.list(tenant=wrong_name)]
        with pytest.raises(InvalidRequestError, match="model"):
            _ = [each async for each in client.list(model=wrong_name)]
    with pytest.raises(InvalidRequestError, match="page_size"):
        _ = [each async for each in client.list(page_size=1_001)]


@pytest.mark.parametrize("token", ["x", "!!!!", "AAAA", "AAAAAAAAAAAA", "é" * 3, "A" * 5_000])
async def test_a_page_token_that_no_page_gave_is_refused(fleet: LocalFleet, token: str) -> None:
    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.List(inference_pb2.ListRequest(page_token=token))
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "page_token" in str(caught.value.details())


async def test_a_generate_call_that_is_detached_is_kept_too(client: AsyncClient) -> None:
    done = await client.generate(PROMPT, temperature=0, max_tokens=30, request_id="r", detached=True).result()
    found = await until_ended(client, "r")
    assert found.result is not None
    assert found.result.token_ids == done.token_ids


async def test_without_a_journal_it_is_refused_with_words() -> None:
    async with LocalFleet() as fleet:
        await fleet.add("one")
        with pytest.raises(NoJournalError, match="state_dir"):
            await fleet.client.submit(PROMPT)
        with pytest.raises(NoJournalError):
            _ = [each async for each in fleet.client.list()]
        done = await fleet.client.generate(PROMPT, max_tokens=3, detached=True, request_id="r").result()
        assert len(done.token_ids) == 3
        assert (await fleet.client.get("r")).request.state is RequestState.FINISHED


async def test_a_quota_names_itself(tmp_path: Path) -> None:
    async with LocalFleet(state_dir=tmp_path, detached={"tenant_requests": 1}) as fleet:
        await fleet.add("one")
        await fleet.client.submit(PROMPT, max_tokens=3)
        with pytest.raises(TenantLimitError) as caught:
            await fleet.client.submit(PROMPT, max_tokens=3)
        assert caught.value.metadata["limit_name"] == "detached.tenant_requests"


async def until_full(client: AsyncClient) -> AsyncIterator[str]:
    """Submit requests with long prompts, one after the other, until the journal takes no more; yield their ids."""
    for number in range(500):
        try:
            await client.submit(token_ids=[2_000] * 15_000, max_tokens=2, request_id=f"r-{number}", keep_result=8)
        except JournalUnavailableError:
            return
        await until_ended(client, f"r-{number}")
        yield f"r-{number}"


async def test_a_full_journal_refuses_it_until_results_are_deleted(tmp_path: Path) -> None:
    async with LocalFleet(state_dir=tmp_path, journal={"max_bytes": 2**20}) as fleet:
        await fleet.add("one", max_model_len=20_000)
        ended = [each async for each in until_full(fleet.client)]
        assert len(ended) > 1
        done = await fleet.client.generate(PROMPT, max_tokens=5, ignore_eos=True).result()
        assert len(done.token_ids) == 5, "interactive requests go on"

        async def accepts() -> bool:
            try:
                await fleet.client.submit(PROMPT, max_tokens=2, request_id="late")
            except JournalUnavailableError:
                return False
            return True

        await eventually(accepts, within_s=40, every_s=0.5)
        await until_ended(fleet.client, "late")


async def test_a_result_is_there_after_a_restart_for_every_kind_of_reader(tmp_path: Path) -> None:
    async with LocalFleet(state_dir=tmp_path) as fleet:
        await fleet.add("one")
        for request_id in ("get", "attach", "session", "generate"):
            await fleet.client.submit(PROMPT, temperature=0, max_tokens=40, request_id=request_id)
            await until_ended(fleet.client, request_id)
    wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=40))
    async with LocalFleet(state_dir=tmp_path, recovery={"limit_s": 0.1}) as fleet:
        assert not (await fleet.client.cancel("get")).cancelled
        kept = (await fleet.client.get("get")).result
        assert kept is not None
        assert (kept.token_ids, kept.text) == (wanted.token_ids, wanted.text)
        assert (await fleet.client.attach("attach").result()).token_ids == wanted.token_ids
        again = fleet.client.generate(PROMPT, temperature=0, max_tokens=40, request_id="generate", detached=True)
        assert (await again.result()).text == wanted.text
        async with RawSession(fleet.channel()) as session:
            handle = await session.attach("session", after_token=10)
            await session.over(handle)
            assert_tokens(session.of(handle).token_ids, wanted.token_ids[10:])
            unknown = await session.attach("unknown")
            await session.over(unknown)


async def test_it_goes_on_after_a_restart(tmp_path: Path) -> None:
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 300, "ignore_eos": True}
    async with LocalFleet(state_dir=tmp_path, detached={"checkpoint_tokens": 10}) as fleet:
        await fleet.add("one", step_base_s=0.01)
        await fleet.client.submit(PROMPT, request_id="r", **options)
        stream = fleet.client.attach("r")
        while stream.next_token < 30:
            await anext(stream)
    async with LocalFleet(state_dir=tmp_path, recovery={"limit_s": 0.1}) as fleet:
        await fleet.add("one")
        done = await fleet.client.attach("r").result()
        wanted = await answer(PROMPT, Sampling(temperature=0, max_tokens=300, ignore_eos=True))
        assert_tokens(done.token_ids, wanted.token_ids)
        assert done.text == wanted.text
        assert (await until_ended(fleet.client, "r")).request.state is RequestState.FINISHED


async def test_every_choice_goes_on_after_a_restart_and_is_in_the_result(tmp_path: Path) -> None:
    options: dict[str, Any] = {"n": 3, "temperature": 1.0, "seed": 7, "max_tokens": 150, "ignore_eos": True}
    async with LocalFleet(state_dir=tmp_path, detached={"checkpoint_tokens": 10}) as fleet:
        await fleet.add("one", step_base_s=0.01)
        accepted = await fleet.client.submit(PROMPT, request_id="r", **options)
        assert accepted.request_id == "r"
        stream = fleet.client.attach("r")
        while stream.next_token < 30:
            await anext(stream)
    async with LocalFleet(state_dir=tmp_path, recovery={"limit_s": 0.1}) as fleet:
        await fleet.add("one")
        done = await fleet.client.attach("r").result()
        sampled = [Sampling(temperature=1.0, seed=7 + i, max_tokens=150, ignore_eos=True) for i in range(3)]
        wanted = [await answer(PROMPT, each) for each in sampled]
        assert [each.text for each in done.choices] == [each.text for each in wanted]
        found = await until_ended(fleet.client, "r")
        assert (found.request.state, found.request.usage.completion_tokens) == (RequestState.FINISHED, 450)
    async with LocalFleet(state_dir=tmp_path, recovery={"limit_s": 0.1}) as fleet:
        kept = (await fleet.client.get("r")).result
        assert kept is not None
        for index, each in enumerate((kept, *kept.choices)):
            assert_tokens(each.token_ids, wanted[index].token_ids, f"choice {index}")
        [listed] = [each async for each in fleet.client.list()]
        assert listed.usage.completion_tokens == 450


async def test_a_stub_that_does_not_tell_choices_apart_gets_the_result_and_no_stream(
    fleet: LocalFleet, one: LocalExecutor
) -> None:
    await fleet.client.submit(PROMPT, n=2, temperature=1.0, seed=7, max_tokens=10, request_id="r")
    await until_ended(fleet.client, "r")
    stub = inference_pb2_grpc.InferenceServiceStub(fleet.channel())
    got = await stub.Get(inference_pb2.GetRequest(request_id="r"))
    assert [len(each.token_ids) for each in (got.result, *got.result.choices)] == [10, 10]
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        async for _ in stub.Attach(inference_pb2.AttachRequest(request_id="r")):
            pass
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert "takes_choices" in (caught.value.details() or "")


async def test_the_blocking_client_does_the_same(fleet: LocalFleet, one: LocalExecutor) -> None:
    def use() -> None:
        with Client(fleet.address) as client:
            accepted = client.submit(PROMPT, temperature=0, max_tokens=20, request_id="r")
            done = accepted.result()
            assert len(done.token_ids) == 20
            assert [each.request_id for each in client.list()] == ["r"]
            assert accepted.get().request.state is RequestState.FINISHED
            assert not accepted.cancel().cancelled

    await asyncio.to_thread(use)

"""Every decision can be explained: who was looked at, who was left out and why, what happened since."""

from __future__ import annotations

import pytest

from sage_client import (
    AsyncStream,
    InvalidRequestError,
    Priority,
    RequestNotFoundError,
    RequestState,
    TimeUse,
    Tokens,
)
from tests.integration.system.local_fleet import LocalFleet
from tests.support.eventually import eventually


async def running(stream: AsyncStream) -> None:
    while not isinstance(await anext(stream), Tokens):
        pass


async def test_explain_shows_every_candidate_its_scores_and_what_left_others_out(fleet: LocalFleet) -> None:
    await fleet.add("adapted", adapters=("dialect",))
    await fleet.add("adapted-too", adapters=("dialect",))
    await fleet.add("drained", adapters=("dialect",))
    await fleet.add("embedder", adapters=("dialect",), settings={"role": "embedding"})
    await fleet.add("plain")
    await fleet.add("full", adapters=("dialect",), max_running=1)
    await fleet.client.drain_instance("drained", reason="maintenance")
    holding = [
        fleet.client.generate("Hold", adapter="dialect", max_tokens=4000, preferred_instance="full") for _ in range(2)
    ]
    for stream in holding:
        await running_or_placed(stream)
    done = await fleet.client.generate("Once", adapter="dialect", max_tokens=3, priority="high").result()
    story = await fleet.client.explain(done.request_id)
    [decision] = story.decisions
    rows = {row.instance_id: row for row in decision.candidates}
    assert rows.keys() == {"adapted", "adapted-too", "drained", "embedder", "plain", "full"}
    chosen = [name for name, row in rows.items() if row.chosen]
    assert chosen == [decision.instance_id]
    assert decision.instance_id in ("adapted", "adapted-too")
    for name in ("adapted", "adapted-too"):
        assert not rows[name].filtered_by
        assert rows[name].scores, "those that were compared have scores"
        assert all(score == score for score in rows[name].scores.values())
    for name in ("drained", "embedder", "plain", "full"):
        assert rows[name].filtered_by, name
        assert rows[name].filter_reason, name
    assert "adapter" in rows["plain"].filter_reason
    assert len({rows[name].filtered_by for name in ("drained", "embedder", "plain", "full")}) >= 3
    assert decision.candidates_considered == 6
    for stream in holding:
        await stream.cancel()


async def running_or_placed(stream: AsyncStream) -> None:
    """Until it is placed: the second one only waits inside the engine."""
    for _ in range(2):
        await anext(stream)


async def test_explain_tells_what_happened_in_order(fleet: LocalFleet) -> None:
    await fleet.add("one")
    done = await fleet.client.generate("Once", max_tokens=3, priority="high").result()
    story = await fleet.client.explain(done.request_id)
    assert [entry.event for entry in story.history] == ["accepted", "placed", "first_token", "finished"]
    times = [entry.at_s for entry in story.history]
    assert times == sorted(times)
    assert (story.state, story.priority, story.error) == (RequestState.FINISHED, Priority.HIGH, "")
    [decision] = story.decisions
    assert decision.parallelism.tensor_parallel_size == 1
    assert decision.prediction.finish_s >= decision.prediction.first_token_s > 0
    assert decision.reserved_tokens >= done.usage.prompt_tokens + 3


async def test_explain_says_why_a_request_waits_and_how_far_it_is(fleet: LocalFleet) -> None:
    executor = await fleet.add("one", max_running=1)
    held = [fleet.client.generate("Hold", max_tokens=5_000) for _ in range(2)]
    for stream in held:
        await anext(stream)
    await eventually(lambda: executor.engine.load().unfinished == 2)
    waiting = [fleet.client.generate("Wait", max_tokens=3) for _ in range(3)]
    for stream in waiting:
        await anext(stream)
    stories = [await fleet.client.explain(stream.request_id) for stream in waiting]
    assert [story.queue_position for story in stories] == [1, 2, 3]
    assert all(story.state is RequestState.QUEUED for story in stories)
    assert all("full" in story.waiting_because for story in stories[:1])
    assert all(story.waiting_because and story.ordering_key for story in stories)
    for stream in held:
        await stream.cancel()
    for stream in waiting:
        assert (await stream.result()).usage.completion_tokens == 3
        story = await fleet.client.explain(stream.request_id)
        assert any(reason.startswith("ordered by arrival, ") for reason in story.decisions[0].reasons)


async def test_what_failed_is_explained_too(fleet: LocalFleet) -> None:
    await fleet.add("one")
    stream = fleet.client.generate("Once", max_tokens=4000)
    await running(stream)
    await stream.cancel("enough")
    story = await fleet.client.explain(stream.request_id)
    assert (story.state, story.error_reason) == (RequestState.CANCELLED, "CANCELLED")
    assert "enough" in story.error
    assert story.history[-1].event == "cancelled"


async def test_the_record_is_bounded_and_says_so() -> None:
    async with LocalFleet(record={"requests": 5}) as fleet:
        await fleet.add("one")
        ids = [(await fleet.client.generate("Once", max_tokens=1).result()).request_id for _ in range(8)]
        for request_id in ids[-5:]:
            assert (await fleet.client.explain(request_id)).request_id == request_id
        for request_id in ids[:3]:
            with pytest.raises(RequestNotFoundError, match="left the record"):
                await fleet.client.explain(request_id)


async def test_a_refused_request_leaves_no_record_and_that_is_said(fleet: LocalFleet) -> None:
    await fleet.add("one")
    with pytest.raises(InvalidRequestError):
        await fleet.client.generate("Once", max_tokens=1, temperature=-1, request_id="r").result()
    with pytest.raises(RequestNotFoundError, match="was refused"):
        await fleet.client.explain("r")


async def test_explain_tells_where_the_time_of_a_failed_over_request_went(fleet: LocalFleet) -> None:
    dying = await fleet.add("dying")
    stream = fleet.client.generate("Once", max_tokens=300, request_id="r", ttft_target=5.0)
    await running(stream)
    await fleet.add("other")
    dying.terminate()
    dying.terminate()
    result = await stream.result()
    story = await fleet.client.explain("r")
    uses = [(each.use, each.instance_id) for each in story.time_slices]
    assert (TimeUse.DECODE, "dying") in uses
    assert uses[-1] == (TimeUse.DECODE, "other")
    assert sum(each.length_s for each in story.time_slices) == pytest.approx(result.timings.total_s, abs=0.05)
    assert (story.prompt_tokens, story.completion_tokens) == (result.usage.prompt_tokens, 300)
    assert [(each.target, each.met) for each in story.slo] == [("ttft", True)]

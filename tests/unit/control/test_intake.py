"""The door: who waits at it, for how long, and what is said to whom at the same time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from sage_common.virtual_clock import VirtualClock
from scheduler_svc.control.requests.submission import ChatPrompt, TextPrompt
from scheduler_svc.control.requests.tokenizers import NO_LIMITS, ChatTurn, Conversation, PromptError, TokenizingLimits
from scheduler_svc.control.timing.time_limit import TimeLimit
from scheduler_svc.domain.errors import (
    DeadlineExceeded,
    FieldViolation,
    InvalidRequest,
    NoInstance,
    QueueFull,
    RequestConflict,
    ShuttingDown,
)
from tests.unit.control.world import NoTokenizers, World, expected


def chat(*texts: str) -> ChatPrompt:
    return ChatPrompt(conversation=Conversation(turns=[ChatTurn(role="user", text=text) for text in texts]))


class SlowTokenizers(NoTokenizers):
    """Takes until told to."""

    def __init__(self) -> None:
        self.go = asyncio.Event()

    async def encode(
        self, tokenizer_hash: str, text: str, limits: TokenizingLimits = NO_LIMITS, *, special_tokens: bool
    ) -> Sequence[int]:
        await self.go.wait()
        return await super().encode(tokenizer_hash, text, special_tokens=special_tokens)

    async def encode_chat(
        self, tokenizer_hash: str, conversation: Conversation, limits: TokenizingLimits = NO_LIMITS
    ) -> Sequence[int]:
        await self.go.wait()
        return await super().encode_chat(tokenizer_hash, conversation)


class RefusingTokenizers(NoTokenizers):
    async def encode_chat(
        self, tokenizer_hash: str, conversation: Conversation, limits: TokenizingLimits = NO_LIMITS
    ) -> Sequence[int]:
        raise PromptError("the template wants a system message")


# --- the same id twice at once --------------------------------------------------------------------


async def test_twins_at_the_door_become_one_request() -> None:
    async with World() as world:
        world.plane.intake._maker._prompts._tokenizers = slow = SlowTokenizers()
        executor = world.add("a")
        submission = replace(world.submission("r1"), prompt=TextPrompt(text="hello"))
        both = [asyncio.ensure_future(world.plane.intake.submit(submission)) for _ in range(2)]
        await world.advance(0.1)
        assert not any(arriving.done() for arriving in both)
        slow.go.set()
        first, second = await asyncio.gather(*both)
        await world.advance(1)
        assert first.live is second.live
        assert second.attached
        assert not first.attached
        assert executor.log == ["assign r1"]


async def test_a_twin_of_other_content_is_refused_without_waiting() -> None:
    async with World(models={"m": {}}) as world:
        first = asyncio.ensure_future(world.submit("r1", wait_for_instance=True))
        await world.clock.settle()
        with pytest.raises(RequestConflict, match="r1"):
            await world.submit("r1", max_tokens=7, wait_for_instance=True)
        world.add("a")
        await world.advance(1)
        assert (await first).token_ids == expected(20)


async def test_a_twin_takes_over_when_the_first_goes_away_at_the_door() -> None:
    async with World(models={"m": {}}) as world:
        first = asyncio.ensure_future(world.submit("r1", wait_for_instance=True))
        second = asyncio.ensure_future(world.submit("r1", wait_for_instance=True))
        await world.clock.settle()
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        world.add("a")
        await world.advance(1)
        reader = await second
        assert reader.token_ids == expected(20)
        assert not reader.subscription.attached


# --- bounds ---------------------------------------------------------------------------------------


async def test_at_most_so_many_are_at_the_door() -> None:
    async with World(queue={"arriving_limit": 2}) as world:
        world.plane.intake._maker._prompts._tokenizers = slow = SlowTokenizers()
        world.add("a")
        submissions = [replace(world.submission(f"r{i}"), prompt=TextPrompt(text="hello")) for i in range(3)]
        arriving = [asyncio.ensure_future(world.plane.intake.submit(each)) for each in submissions[:2]]
        await world.clock.settle()
        with pytest.raises(QueueFull, match="of all models that are being checked"):
            await world.plane.intake.submit(submissions[2])
        slow.go.set()
        await asyncio.gather(*arriving)


async def test_those_that_wait_for_a_model_leave_the_door_open_for_others() -> None:
    async with World(models={"loading": {}}, queue={"arriving_limit": 2, "limit_per_model": 3}) as world:
        world.add("a")
        waiting = [
            asyncio.ensure_future(world.submit(f"r{i}", model="loading", wait_for_instance=True)) for i in range(3)
        ]
        await world.clock.settle()
        with pytest.raises(QueueFull, match="wait for 'loading' is full"):
            await world.submit("one-too-many", model="loading", wait_for_instance=True)
        reader = await world.submit("r")
        await world.advance(1)
        assert reader.token_ids == expected(20)
        for arriving in waiting:
            arriving.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        assert not world.plane.models.waiting


async def test_those_that_wait_for_a_model_make_room_when_they_leave() -> None:
    async with World(models={"m": {}}, queue={"limit_per_model": 2}) as world:
        waiting = [asyncio.ensure_future(world.submit(f"r{i}", wait_for_instance=True)) for i in range(2)]
        await world.clock.settle()
        with pytest.raises(QueueFull):
            await world.submit("one-too-many", wait_for_instance=True)
        for arriving in waiting:
            arriving.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        world.add("a")
        reader = await world.submit("now there is room")
        await world.advance(1)
        assert reader.token_ids == expected(20)


@pytest.mark.parametrize("prompt", [TextPrompt(text="hello"), chat("hello")], ids=["text", "chat"])
async def test_a_prompt_that_takes_for_ever_ends_at_the_deadline(prompt: TextPrompt | ChatPrompt) -> None:
    async with World() as world:
        world.plane.intake._maker._prompts._tokenizers = SlowTokenizers()
        world.add("a")
        submission = replace(world.submission("r1", deadline_s=2.0), prompt=prompt)
        arriving = asyncio.ensure_future(world.plane.intake.submit(submission))
        await world.advance(1.9)
        assert not arriving.done()
        await world.advance(0.2)
        with pytest.raises(DeadlineExceeded, match="tokenized"):
            await arriving


async def test_a_client_that_leaves_at_the_door_leaves_nothing_behind() -> None:
    async with World() as world:
        world.plane.intake._maker._prompts._tokenizers = SlowTokenizers()
        world.add("a")
        submission = replace(world.submission("r1"), prompt=chat("hello"))
        arriving = asyncio.ensure_future(world.plane.intake.submit(submission))
        await world.clock.settle()
        arriving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await arriving
        assert not len(world.plane.requests)
        assert not world.plane.intake._arriving


# --- refusals -------------------------------------------------------------------------------------


async def test_once_closed_only_those_inside_may_be_joined() -> None:
    async with World() as world:
        world.add("a")
        await world.submit("r1", max_tokens=50)
        world.plane.intake.close()
        with pytest.raises(ShuttingDown):
            await world.submit("r2")
        again = await world.submit("r1", max_tokens=50)
        await world.advance(1)
        assert again.token_ids == expected(50)


async def test_what_was_found_on_the_way_is_reported_with_what_is_found_here() -> None:
    async with World() as world:
        world.add("a")
        submission = replace(
            world.submission("r1", sampling={"top_p": 7.0}),
            violations=(FieldViolation(field="spec.tags", description="has 99 entries"),),
        )
        with pytest.raises(InvalidRequest) as refused:
            await world.plane.intake.submit(submission)
        assert {v.field for v in refused.value.violations} == {"spec.tags", "spec.sampling.top_p"}


async def test_a_prompt_at_fault_is_complained_of_once() -> None:
    async with World() as world:
        world.add("a")
        submission = replace(
            world.submission("r1"),
            prompt=None,
            violations=(FieldViolation(field="spec.chat.messages[0].content[0]", description="image input"),),
        )
        with pytest.raises(InvalidRequest) as refused:
            await world.plane.intake.submit(submission)
        assert [v.field for v in refused.value.violations] == ["spec.chat.messages[0].content[0]"]


async def test_a_conversation_the_template_refuses_is_the_callers_fault() -> None:
    async with World() as world:
        world.plane.intake._maker._prompts._tokenizers = RefusingTokenizers()
        world.add("a")
        with pytest.raises(InvalidRequest, match="wants a system message") as refused:
            await world.plane.intake.submit(replace(world.submission("r1"), prompt=chat("hello")))
        assert [v.field for v in refused.value.violations] == ["spec.chat"]


async def test_a_request_that_asks_to_wait_outlives_the_loss_of_the_whole_fleet() -> None:
    async with World() as world:
        a = world.add("a")
        a.crash()
        await world.advance(1)
        with pytest.raises(NoInstance):
            await world.submit("impatient")
        reader = await world.submit("patient", wait_for_instance=True)
        await world.advance(90)
        assert not reader.task.done()
        a.restart()
        await world.advance(1)
        assert reader.token_ids == expected(20)


async def test_a_default_deadline_is_no_target() -> None:
    async with World() as world:
        world.add("a")
        plain = await world.submit("plain")
        stated = await world.submit("stated", deadline_s=30.0)
        await world.advance(1)
        assert [slo.target for slo in plain.finished.slo] == []
        assert [slo.target for slo in stated.finished.slo] == ["deadline"]


# --- the time limit -------------------------------------------------------------------------------


async def test_a_time_limit_leaves_what_is_quick_alone() -> None:
    clock = VirtualClock()
    async with TimeLimit(clock, 1.0, "there"):
        pass
    await clock.advance(5)


async def test_a_cancellation_within_a_time_limit_stays_one() -> None:
    clock = VirtualClock()

    async def work() -> None:
        async with TimeLimit(clock, 1.0, "there"):
            await asyncio.get_running_loop().create_future()

    task = asyncio.ensure_future(work())
    await clock.settle()
    task.cancel()
    await clock.advance(5)
    assert task.cancelled()


async def test_defaults_of_the_operator_are_never_the_callers_fault() -> None:
    defaults = {"m": {"sampling": {"max_tokens": 4000, "min_tokens": 10}}}
    async with World(models=defaults) as world:
        world.add("a")
        long = replace(world.submission("long", prompt=500), sampling={})
        short = replace(world.submission("short"), sampling={"max_tokens": 5})
        sampling = [(await world.plane.intake.submit(each)).live.request.sampling for each in (long, short)]
        assert [each.max_tokens for each in sampling] == [4096 - 500, 5]
        assert [each.min_tokens for each in sampling] == [10, 5]


async def test_default_ids_outside_the_vocabulary_are_left_out_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    sampling = {"stop_token_ids": [5, 10**9], "allowed_token_ids": [7, 10**9]}
    async with World(models={"m": {"sampling": sampling}}) as world:
        world.add("a")
        for name in ("one", "two"):
            request = (await world.plane.intake.submit(world.submission(name))).live.request
            assert request.sampling.stop_token_ids == (5,)
            assert request.sampling.allowed_token_ids == (7,)
    said = [message for message in caplog.messages if "outside the model's vocabulary" in message]
    assert len(said) == 2, "one line for each field"
    assert "models.m.sampling.stop_token_ids" in "".join(said)


async def test_default_allowed_ids_that_are_all_outside_the_vocabulary_are_the_operators_fault() -> None:
    async with World(models={"m": {"sampling": {"allowed_token_ids": [10**9]}}}) as world:
        world.add("a")
        with pytest.raises(NoInstance, match="the operator's default of allowed_token_ids"):
            await world.plane.intake.submit(world.submission("one"))
        own = replace(world.submission("two"), sampling={"max_tokens": 5, "allowed_token_ids": (1, 2)})
        assert (await world.plane.intake.submit(own)).live.request.sampling.allowed_token_ids == (1, 2)

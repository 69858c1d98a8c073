"""Requests with several choices: one place at the door, one end, and a life of its own for each choice."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.control.attempts.executor_link import AssignOrder
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.choices import split, sum_of
from scheduler_svc.control.requests.outcome import Finished, SloOutcome
from scheduler_svc.control.requests.output_log import TokenSlice
from scheduler_svc.control.requests.read_from import ReadFrom
from scheduler_svc.control.requests.subscription import ChoiceEnd, Subscription
from scheduler_svc.domain.errors import InvalidRequest, OutputLost, Overloaded, QueueFull, Recovering
from scheduler_svc.domain.request import Priority, RequestKey, RequestState, Sampling
from scheduler_svc.recording.usage.ended_request import usage_of
from tests.contract.policies.modelled_fleet import make_request
from tests.unit.control.test_adoption import Next, held, orders
from tests.unit.control.world import EPOCH, MODEL, Reader, World

THREE = {"choices": 3, "takes_choices": True}


def tokens_by_choice(reader: Reader) -> dict[int, int]:
    """Return how many tokens each choice has in its log."""
    return {each.key.choice: len(each.output) for each in reader.live.members}


async def test_each_choice_is_sent_by_itself_and_the_request_ends_with_the_last() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=6, sampling={"seed": 40, "temperature": 1.0}, **THREE)
        await world.advance(0.05)
        seeds = [running.order.sampling.seed for running in world.executors["a"].held.values()]
        assert seeds == [40, 41, 42]
        await world.advance(2)
        ends = [each for each in reader.events if isinstance(each, ChoiceEnd)]
        assert [each.finished.completion_tokens for each in ends] == [6, 6, 6]
        assert reader.finished.completion_tokens == 18
        assert reader.finished.attempts == 3
        assert len(world.plane.requests) == 0
        world.assert_all_room_is_free()


async def test_one_choice_takes_one_place_in_the_record_and_is_found_by_the_id() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=6, **THREE)
        await world.advance(2)
        assert reader.finished.completion_tokens == 18
        [recorded] = world.plane.requests.recent()
        assert recorded.key == RequestKey(tenant="t", request_id="r1")
        assert recorded.whole_state is RequestState.FINISHED


async def test_a_choice_that_fails_ends_the_others_with_its_error() -> None:
    async with World() as world:
        executor = world.add("a")
        reader = await world.submit("r1", max_tokens=500, **THREE)
        await world.advance(0.3)
        world.plane.requests.end(reader.live.members[1], OutputLost("gone"))
        await world.advance(0.3)
        assert isinstance(reader.error, OutputLost)
        assert {each.state for each in reader.live.members} == {RequestState.FAILED}
        assert not executor.held
        world.assert_all_room_is_free()


async def test_a_choice_that_had_finished_stays_so_when_the_request_is_cancelled() -> None:
    async with World() as world:
        world.add("a", max_running=1)
        reader = await world.submit("r1", max_tokens=20, **THREE)
        while not any(isinstance(each, ChoiceEnd) for each in reader.events):
            await world.advance(0.1)
        cancelled, live = world.plane.intake.cancel(reader.live.key, "enough")
        assert cancelled
        assert live.whole_state is RequestState.CANCELLED
        assert sorted(each.state.name for each in live.members) == ["CANCELLED", "CANCELLED", "FINISHED"]
        await world.advance(0.3)
        assert reader.error is not None


async def test_a_reader_that_is_gone_ends_a_request_whose_first_choice_has_ended() -> None:
    async with World() as world:
        world.add("a", max_running=1)
        reader = await world.submit("r1", max_tokens=20, **THREE)
        while not reader.live.state.ended:
            await world.advance(0.1)
        await reader.go_away()
        assert reader.live.all_ended
        assert len(world.plane.requests) == 0


async def fill(world: World, waiting: int, **options: Any) -> list[Reader]:
    """Submit long requests until as many wait."""
    readers: list[Reader] = []
    while world.plane.scheduler.queues().get(MODEL) is None or waits(world) < waiting:
        readers.append(await world.submit(f"long {len(readers)}", max_tokens=500, **options))
        await world.advance(0.1)
    return readers


def waits(world: World) -> int:
    return world.plane.scheduler.queues()[MODEL].waiting


async def test_all_choices_wait_or_none_does() -> None:
    async with World(queue={"limit_per_model": 4}) as world:
        world.add("a", max_running=1)
        await fill(world, 2)
        with pytest.raises(QueueFull):
            await world.submit("r1", max_tokens=5, **THREE)
        assert waits(world) == 2
        await world.submit("r2", max_tokens=5, choices=2, takes_choices=True)
        assert waits(world) == 4


async def test_nothing_is_displaced_for_a_request_that_finds_no_room_all_the_same() -> None:
    async with World(queue={"limit_per_model": 3}) as world:
        world.add("a", max_running=1)
        await fill(world, 1, priority=Priority.HIGH)
        low = await world.submit("low", max_tokens=5, priority=Priority.LOW)
        await world.submit("high", max_tokens=5, priority=Priority.HIGH)
        with pytest.raises(QueueFull):
            await world.submit("r1", max_tokens=5, priority=Priority.HIGH, **THREE)
        await world.advance(0.1)
        assert not low.task.done()
        assert waits(world) == 3
        high = await world.submit("r2", max_tokens=5, priority=Priority.HIGH)
        await world.advance(0.1)
        assert isinstance(low.error, Overloaded)
        assert high.error is None


async def test_positions_of_choices_that_there_are_not() -> None:
    async with World() as world:
        world.add("a")
        after = (ReadFrom(choice=3, after_token=0),)
        with pytest.raises(InvalidRequest) as caught:
            await world.submit("r1", max_tokens=5, after=after, **THREE)
        assert [each.field for each in caught.value.violations] == ["after.choice"]


async def test_a_second_reader_goes_on_at_each_choices_position() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=8, **THREE)
        await world.advance(2)
        subscription = Subscription(world.plane.loop_lag)
        after = (ReadFrom(choice=2, after_token=6),)
        world.plane.intake.readers.attach(reader.live.key, subscription, 3, after=after, takes_choices=True)
        again = Reader(world, subscription)
        await world.advance(0.1)
        assert again.finished == reader.finished
        assert sum(len(each.token_ids) for each in again.events if isinstance(each, TokenSlice)) == 5 + 8 + 2


async def test_one_usage_record_has_the_sum() -> None:
    async with World() as world:
        world.add("a")
        reader = await world.submit("r1", max_tokens=6, **THREE)
        await world.advance(2)
        record = usage_of(reader.live, 0.0, lambda outcome: "finished")
        assert (record.prompt_tokens, record.output_tokens, record.attempts) == (10, 18, 3)
        assert record.end == "finished"


def finished(**fields: object) -> Finished:
    plain: dict[str, object] = {
        "finish_reason": "stop",
        "stop_string": "",
        "stop_token_id": None,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        "cached_prompt_tokens": 0,
        "attempts": 1,
        "queue_s": 0.5,
        "ttft_s": 1.0,
        "prefill_s": 0.5,
        "transfer_s": None,
        "decode_s": 2.0,
        "total_s": 3.0,
        "cost": 0.25,
        "slo": (),
    }
    return Finished(**{**plain, **fields})  # type: ignore[arg-type]


def test_the_sum_of_choices() -> None:
    met = SloOutcome(target="ttft", wanted_s=2.0, measured_s=1.0, met=True)
    missed = SloOutcome(target="ttft", wanted_s=2.0, measured_s=2.5, met=False)
    first = finished(cached_prompt_tokens=4, slo=(met,))
    second = finished(finish_reason="length", ttft_s=2.5, decode_s=4.0, total_s=7.0, attempts=2, slo=(missed,))
    whole = sum_of([first, second])
    assert (whole.finish_reason, whole.prompt_tokens, whole.completion_tokens) == ("stop", 10, 10)
    assert (whole.cached_prompt_tokens, whole.attempts, whole.cost) == (4, 3, 0.5)
    assert (whole.ttft_s, whole.decode_s, whole.total_s) == (1.0, 5.5, 7.0)
    assert whole.slo == (missed,)


# --- the next scheduler ---------------------------------------------------------------------------


async def three_orders() -> list[AssignOrder]:
    """What an earlier scheduler sent to "a" for one request of three choices."""
    return await orders("r1", sampling={"seed": 40, "temperature": 1.0}, **THREE)


def lead(following: Next) -> RequestKey:
    return RequestKey(tenant="t", request_id="r1")


async def test_all_choices_are_adopted_as_one_request() -> None:
    sent = await three_orders()
    following = Next("a")
    following.register("a", *(held(each, "a") for each in sent))
    for order, tokens in zip(sent, (5, 7, 9), strict=True):
        following.answer("a", order, tokens=tokens)
    live = following.plane.requests.get(lead(following))
    assert live.choices is not None
    assert live.choices.missing == 0
    assert [each.request.sampling.seed for each in live.members] == [40, 41, 42]
    assert [each.adopted is not None and each.adopted.tokens for each in live.members] == [5, 7, 9]
    subscription = Subscription(following.plane.loop_lag)
    following.plane.intake.readers.attach(live.key, subscription, 0, takes_choices=True)
    assert len(subscription.others) == 2


async def test_a_choice_that_nobody_holds_is_generated_anew_once_recovery_is_over() -> None:
    sent = await three_orders()
    following = Next("a", "b")
    following.register("a", *(held(each, "a") for each in (sent[0], sent[2])))
    following.answer("a", sent[0])
    following.answer("a", sent[2])
    live = following.plane.requests.get(lead(following))
    assert live.choices is not None
    assert live.choices.missing == 1
    with pytest.raises(Recovering):
        following.plane.intake.readers.attach(live.key, Subscription(following.plane.loop_lag), 0, takes_choices=True)
    following.register("b")
    assert live.choices.missing == 0
    assert live.members[1].adopted is None
    assert live.members[1].request.sampling.seed == 41
    assert following.plane.scheduler.position(live.members[1].key, following.clock.now()) is not None
    subscription = Subscription(following.plane.loop_lag)
    lost = (ReadFrom(choice=1, after_token=4, after_attempt=(EPOCH, 2)),)
    with pytest.raises(OutputLost):
        following.plane.intake.readers.attach(live.key, subscription, 0, after=lost, takes_choices=True)
    following.plane.intake.readers.attach(live.key, subscription, 0, takes_choices=True)


async def test_choice_0_gives_the_prompts_log_probabilities_where_another_one_alone_is_held() -> None:
    sent = await orders("r1", sampling={"prompt_logprobs": 2}, **THREE)
    following = Next("a", "b")
    following.register("a", held(sent[1], "a"))
    following.answer("a", sent[1])
    live = following.plane.requests.get(lead(following))
    assert [each.request.sampling.prompt_logprobs for each in live.members] == [2, None, None]


def test_the_choices_are_the_same_whichever_of_them_they_are_made_from() -> None:
    sampling = Sampling(seed=40, prompt_logprobs=0)
    choices = split(replace(make_request(1, sampling=sampling), choices=3))
    assert [each.sampling.prompt_logprobs for each in choices] == [0, None, None]
    assert all(split(each) == choices for each in choices)


async def test_choices_of_an_executor_that_dies_before_it_told_all_are_generated_anew_after_recovery() -> None:
    sent = await orders("r1", detached=True, **THREE)
    following = Next()  # recovery is over: the executor comes late
    following.register("a", *(held(each, "a") for each in sent))
    following.answer("a", sent[0])
    live = following.plane.requests.get(lead(following))
    assert live.choices is not None
    assert live.choices.missing == 2
    await following.clock.advance(60)
    following.plane.watchdog.check()
    assert live.choices.missing == 0
    assert [each.state for each in live.members] == [RequestState.QUEUED] * 3


async def test_a_reader_without_a_name_for_a_choices_tokens_waits_for_where_they_may_be_from() -> None:
    sent = await three_orders()
    gone = EarlierInstance(model=MODEL, holds=frozenset({RequestKey(tenant="t", request_id="r1")}))
    following = Next(left={"a": EarlierInstance(model=MODEL), "gone": gone})
    following.register("a", *(held(each, "a") for each in sent))
    for order in sent:
        following.answer("a", order)
    live = following.plane.requests.get(lead(following))
    following.tokens("a", live.members[1], 5)
    unnamed = (ReadFrom(choice=1, after_token=3),)
    subscription = Subscription(following.plane.loop_lag)
    with pytest.raises(Recovering):
        following.plane.intake.readers.attach(live.key, subscription, 0, after=unnamed, takes_choices=True)


async def test_a_choice_that_comes_back_after_its_request_ended_is_not_adopted() -> None:
    sent = await three_orders()
    following = Next("a", "b")
    following.register("a", held(sent[0], "a"))
    following.answer("a", sent[0])
    following.plane.intake.cancel(lead(following), "changed their mind")
    following.register("b", held(sent[1], "b"))
    following.answer("b", sent[1])
    assert following.plane.scheduler.instance("b").account.live == 0, "it takes no capacity"
    assert any("cancel" in each for each in following.links["b"].log)
    live = following.plane.requests.get(lead(following))
    assert live.all_ended
    assert len(following.plane.requests) == 0

"""Requests that not every instance can serve: they delay nobody, are judged by those that can, and end on their own."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from scheduler_svc.control.instances.registration import Registration
from scheduler_svc.control.requests.submission import TextPrompt
from scheduler_svc.control.requests.tokenizers import NO_LIMITS, TokenizingLimits
from scheduler_svc.domain.errors import InvalidRequest, LimitReached, ModelChanged, NoInstance
from scheduler_svc.domain.instance_spec import InstanceSpec
from scheduler_svc.domain.instance_state import InstanceState
from tests.unit.control.world import ModelledExecutor, NoTokenizers, World, expected

LEGAL = frozenset({"legal"})


def register(world: World, name: str, start: str) -> ModelledExecutor:
    """An executor whose engine only starts."""
    executor = ModelledExecutor(world=world, instance_id=name, start_id=start)
    spec = InstanceSpec(instance_id=name, model="m", engine_start_id=start)
    welcome = world.plane.instances.registrar.register(Registration(spec=spec), executor)
    executor.session = world.plane.instances.sessions.by_id(welcome.session_id)
    world.plane.instances.reports.engine_status(executor.session, InstanceState.LOADING, None, "", None)
    executor.connected = True
    world.executors[name] = executor  # its heartbeats go on
    return executor


def fail_to_start(executor: ModelledExecutor) -> None:
    instances, session = executor.world.plane.instances, executor.session
    assert session is not None
    instances.reports.engine_status(session, InstanceState.FAILED, None, "out of memory", None)
    instances.sessions.goodbye(session, "failed")
    executor.connected = False


# --- standing aside ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [5, 17, 300])
async def test_requests_that_only_a_dead_instance_could_serve_delay_nobody(count: int) -> None:
    async with World(queue={"orphan_timeout_s": 60.0}) as world:
        a = world.add("a", adapters=LEGAL, max_running=512)
        world.add("b")
        legal = [await world.submit(f"l{i}", adapter="legal", max_tokens=1000) for i in range(count)]
        await world.advance(0.1)
        a.crash()
        await world.advance(1)
        plain = await world.submit("plain", max_tokens=5)
        await world.advance(0.2)
        assert plain.token_ids == expected(5)
        assert plain.instances == ["b"]
        assert all(not reader.live.state.ended for reader in legal)
        await world.advance(60)
        assert all(isinstance(reader.error, NoInstance) for reader in legal)
        assert world.state("b") is InstanceState.READY


async def test_requests_that_no_instance_is_long_enough_for_delay_nobody() -> None:
    async with World() as world:
        world.add("small", max_model_len=500)
        big = world.add("big", max_running=64)
        long = [await world.submit(f"l{i}", max_tokens=2000) for i in range(20)]
        await world.advance(0.1)
        big.crash()
        await world.advance(1)
        plain = await world.submit("plain", max_tokens=5)
        await world.advance(0.2)
        assert plain.instances == ["small"]
        big.restart()
        await world.advance(60)
        for reader in long:
            assert reader.token_ids == expected(2000)


async def test_behind_a_head_that_waits_for_room_they_take_no_place_either() -> None:
    async with World() as world:
        a = world.add("a", adapters=LEGAL, max_running=64)
        world.add("b", max_running=2)
        legal = [await world.submit(f"l{i}", adapter="legal", max_tokens=1000) for i in range(40)]
        await world.advance(0.1)
        busy = [await world.submit(f"busy{i}", max_tokens=300, preferred_instance="b") for i in range(2)]
        await world.advance(0.1)
        a.crash()
        await world.advance(0.5)
        later = [await world.submit(f"later{i}", max_tokens=5) for i in range(4)]
        await world.advance(5)
        assert all(reader.token_ids == expected(300) for reader in busy)
        assert all(reader.token_ids == expected(5) for reader in later)
        assert sum(not reader.live.state.ended for reader in legal) == 40


async def test_what_waits_aside_is_told_of_truthfully() -> None:
    async with World() as world:
        a = world.add("a", adapters=LEGAL)
        world.add("b")
        reader = await world.submit("legal", adapter="legal", max_tokens=500)
        await world.advance(0.1)
        a.crash()
        await world.advance(1)
        story = world.plane.explainer.explain(reader.live.key)
        assert "does not have the adapter 'legal'" in story.waiting_because
        a.restart()
        await world.advance(6)
        assert reader.token_ids == expected(500)


# --- the orphan time-out -----------------------------------------------------------------------------------


async def test_an_executor_that_fails_to_start_again_and_again_does_not_stop_the_clock() -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r", max_tokens=500)
        await world.advance(1)
        a.crash()
        started = world.clock.now()
        for n in range(10):
            if reader.error is not None:
                break
            loading = register(world, "a", f"s{n}")
            await world.advance(4.5)
            fail_to_start(loading)
            await world.advance(15.5)
        assert isinstance(reader.error, NoInstance)
        assert world.clock.now() - started < 90


async def test_an_engine_that_loads_for_the_first_time_is_waited_for() -> None:
    async with World() as world:
        a = world.add("a")
        reader = await world.submit("r", max_tokens=500)
        await world.advance(1)
        a.crash()
        await world.advance(1)
        register(world, "a", "second")
        await world.advance(300)
        assert reader.error is None


async def test_the_clock_runs_for_each_request() -> None:
    async with World(queue={"orphan_timeout_s": 10.0}) as world:
        a = world.add("a", adapters=LEGAL)
        b = world.add("b", adapters=frozenset({"other"}))
        world.add("c")
        first = await world.submit("first", adapter="legal", max_tokens=4000)
        second = await world.submit("second", adapter="other", max_tokens=4000)
        await world.advance(0.1)
        a.crash()
        await world.advance(6)
        b.crash()
        await world.advance(5)
        assert isinstance(first.error, NoInstance)
        assert second.error is None
        await world.advance(6)
        assert isinstance(second.error, NoInstance)


# --- valid: some live instance serves it --------------------------------------------------------------------


@pytest.mark.parametrize("last", ["big", "small"])
async def test_a_request_is_judged_by_the_instances_that_can_serve_it(last: str) -> None:
    async with World() as world:
        options: dict[str, dict[str, Any]] = {"big": {"adapters": LEGAL}, "small": {"max_model_len": 512}}
        for name in sorted(options, key=lambda n: n == last):
            world.add(name, **options[name])
        long = await world.submit("long", max_tokens=1000)
        legal = await world.submit("legal", adapter="legal", max_tokens=4)
        await world.advance(15)
        assert long.instances == legal.instances == ["big"]
        with pytest.raises(InvalidRequest, match="4096"):
            await world.submit("too long", max_tokens=9000)


async def test_a_rogue_that_is_gone_is_not_asked() -> None:
    async with World() as world:
        world.add("a")
        rogue = world.add("rogue", max_model_len=512)
        rogue.crash()
        await world.advance(1)
        reader = await world.submit("r", prompt=1000, max_tokens=4)
        await world.advance(1)
        assert reader.token_ids == expected(4)


async def test_max_tokens_is_by_default_what_the_longest_instance_allows() -> None:
    async with World() as world:
        world.add("big")
        world.add("small", max_model_len=512)
        submission = world.submission("r", prompt=10)
        reader = await world.plane.intake.submit(replace(submission, sampling={}))
        assert reader.live.request.sampling.max_tokens == 4096 - 10


class SomeTokenizers(NoTokenizers):
    """Has the tokenizers it was given."""

    def __init__(self, *known: str) -> None:
        self.known = set(known)

    def has(self, tokenizer_hash: str) -> bool:
        return tokenizer_hash in self.known

    async def encode(
        self, tokenizer_hash: str, text: str, limits: TokenizingLimits = NO_LIMITS, *, special_tokens: bool
    ) -> Sequence[int]:
        if tokenizer_hash not in self.known:
            raise KeyError(tokenizer_hash)
        return await super().encode(tokenizer_hash, text, limits, special_tokens=special_tokens)


class AskedExecutor(ModelledExecutor):
    """Sends its tokenizer when it is asked."""

    def want_tokenizer(self, tokenizer_hash: str) -> None:
        self.log.append(f"want {tokenizer_hash}")
        self.world.clock.call_at(self.world.clock.now() + 0.01, lambda: self.send_tokenizer(tokenizer_hash))

    def send_tokenizer(self, tokenizer_hash: str) -> None:
        tokenizers = self.world.plane.intake._maker._prompts._tokenizers
        assert isinstance(tokenizers, SomeTokenizers)
        if tokenizer_hash != "rogue":
            tokenizers.known.add(tokenizer_hash)
            self.world.plane.models.changed()


def with_tokenizers(world: World, *known: str) -> SomeTokenizers:
    tokenizers = SomeTokenizers(*known)
    world.plane.intake._maker._prompts._tokenizers = world.plane.models._tokenizers = tokenizers
    return tokenizers


def add_asked(world: World, name: str, tokenizer_hash: str) -> AskedExecutor:
    executor = AskedExecutor(world=world, instance_id=name, tokenizer_hash=tokenizer_hash)
    world.executors[name] = executor
    executor.connect()
    return executor


async def test_a_rogues_tokenizer_makes_no_text_unavailable_and_the_prompt_goes_where_it_was_made() -> None:
    async with World() as world:
        with_tokenizers(world, "t")
        add_asked(world, "a", "t")
        add_asked(world, "rogue", "rogue")
        for n in range(6):
            submission = replace(world.submission(f"r{n}"), prompt=TextPrompt(text="hello"))
            subscription = await world.plane.intake.submit(submission)
            assert subscription.live.request.tokenizer_hash == "t"
        await world.advance(2)
        assert not world.executors["rogue"].log[1:], "nothing but the question for its tokenizer"


async def test_a_tokenizer_that_was_dropped_is_asked_for_again() -> None:
    async with World() as world:
        tokenizers = with_tokenizers(world, "t")
        executor = add_asked(world, "a", "t")
        tokenizers.known.clear()
        submission = replace(world.submission("r"), prompt=TextPrompt(text="hello"))
        keys = [submission.key._replace(request_id=str(n)) for n in range(3)]
        arriving = [asyncio.ensure_future(world.plane.intake.submit(replace(submission, key=key))) for key in keys]
        await world.advance(1)
        assert [each.result().live.state.ended for each in arriving] == [True] * 3
        assert executor.log.count("want t") == 1


# --- a continuation stays with its model -----------------------------------------------------------------


async def test_a_stream_goes_on_only_where_the_same_model_runs() -> None:
    async with World() as world:
        a = world.add("a")
        world.add("b", weights="others")
        reader = await world.submit("r", max_tokens=300, preferred_instance="a")
        await world.advance(1)
        a.crash()
        await world.advance(3)
        assert reader.instances == ["a"]
        a.restart()
        await world.advance(6)
        assert reader.token_ids == expected(300)
        assert reader.instances == ["a", "a"]


@pytest.mark.parametrize("other", [{"weights": "others"}, {"tokenizer_hash": "t2"}])
async def test_a_stream_whose_model_is_gone_says_so(other: dict[str, str]) -> None:
    async with World(queue={"orphan_timeout_s": 5.0}) as world:
        a = world.add("a")
        world.add("b", **other)
        reader = await world.submit("r", max_tokens=300, preferred_instance="a")
        await world.advance(1)
        a.crash()
        await world.advance(7)
        assert isinstance(reader.error, ModelChanged)
        assert "weights w" in str(reader.error)


async def test_an_adapters_weights_are_part_of_the_model_for_those_who_ask_for_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with World(queue={"orphan_timeout_s": 5.0}) as world:
        dialect = frozenset({"dialect"})
        a = world.add("a", adapters=dialect, adapter_weights={"dialect": "old"})
        world.add("b", adapters=dialect, adapter_weights={"dialect": "new"})
        with caplog.at_level(logging.INFO):
            await world.advance(1)
        assert "instances of adapter 'dialect' of 'm' run different models" in caplog.text
        asks = await world.submit("r", max_tokens=300, preferred_instance="a", adapter="dialect")
        plain = await world.submit("plain", max_tokens=300, preferred_instance="a")
        await world.advance(1)
        a.crash()
        await world.advance(9)
        assert plain.instances == ["a", "b"]
        assert isinstance(asks.error, ModelChanged)
        assert "adapter old" in str(asks.error)


async def test_a_request_without_a_token_may_run_under_any_model_of_the_name() -> None:
    async with World() as world:
        a = world.add("a", hung=True)
        reader = await world.submit("r", max_tokens=20)
        await world.advance(0.1)
        world.add("b", weights="others")
        a.crash()
        await world.advance(2)
        assert reader.token_ids == expected(20)


async def test_instances_that_disagree_under_one_name_are_told_of(caplog: pytest.LogCaptureFixture) -> None:
    async with World() as world:
        world.add("a")
        b = world.add("b", weights="others")
        with caplog.at_level(logging.INFO):
            await world.advance(1)
            [said] = [r.getMessage() for r in caplog.records if "run different models" in r.getMessage()]
            assert "a (weights w" in said
            assert "b (weights others" in said
            assert world.plane.scheduler.model_conditions()
            b.crash()
            await world.advance(1)
        assert "run the same one again" in caplog.text


# --- a connection that blinks, registrations that vanish ------------------------------------------------------


async def test_a_connection_that_blinks_refuses_nobody() -> None:
    async with World() as world:
        a = world.add("a")
        await world.advance(0.1)
        a.disconnect()
        readers = [await world.submit(f"r{n}") for n in range(5)]
        await world.advance(0.2)
        a.connect()
        await world.advance(2)
        assert all(reader.token_ids == expected(20) for reader in readers)


async def test_registrations_that_vanished_make_room_for_new_models() -> None:
    async with World() as world:
        for n in range(256):
            executor = ModelledExecutor(world=world, instance_id=f"i{n}", model=f"model-{n}")
            executor.connect()
            assert executor.session is not None
            if n:
                world.plane.instances.sessions.goodbye(executor.session, "gone")
        newcomer = ModelledExecutor(world=world, instance_id="new", model="new")
        newcomer.connect()
        assert world.state("new") is InstanceState.READY
        assert world.state("i0") is InstanceState.READY
        for n in range(254):
            ModelledExecutor(world=world, instance_id=f"more{n}", model=f"more-{n}").connect()
        one_too_many = ModelledExecutor(world=world, instance_id="last", model="last")
        with pytest.raises(LimitReached):
            one_too_many.connect()

"""Executors die, stall, fail and are cut off while they stream.  The client's stream goes on: no token lost, none
doubled, and the whole equal to the uninterrupted answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.runtime.engine_port import Sampling, StructuredKind, StructuredOutput
from sage_client import (
    AsyncStream,
    Completion,
    GenerationFailedError,
    InstanceState,
    NoInstanceError,
    RequestState,
    Scheduled,
    Tokens,
)
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.eventually import eventually
from tests.support.network_proxy import NetworkProxy
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

LENGTH = 40
PROMPTS = [f"Story {n}" for n in range(4)]
HANG_IS_NOTICED = {"stall_limit_s": 0.4}


class Story:
    """A request that is running, and what became of its stream."""

    def __init__(self, fleet: LocalFleet, prompt: str, **options: Any) -> None:
        self.prompt = prompt
        self.stream: AsyncStream = fleet.client.generate(
            prompt, **{"temperature": 0, "max_tokens": LENGTH, "preferred_instance": "a", **options}
        )
        self.resumed_from: list[int] = []
        self.indexes: list[int] = []
        self.text_at: list[tuple[int, str]] = []

    async def until_token(self, index: int) -> Story:
        while self.stream.next_token <= index:
            self._see(await anext(self.stream))
        return self

    def _see(self, event: object) -> None:
        if isinstance(event, Scheduled):
            self.resumed_from.append(event.resumed_from_token)
        elif isinstance(event, Tokens):
            self.indexes += range(event.first_index, event.first_index + len(event.token_ids))
            self.text_at.append((event.text_offset, event.text))

    async def complete(self, sampling: Sampling | None = None) -> Completion:
        """Read it to its end, and hold it against the uninterrupted answer."""
        async for event in self.stream:
            self._see(event)
        done = await self.stream.result()
        wanted = await answer(self.prompt, sampling or Sampling(temperature=0, max_tokens=LENGTH))
        assert self.indexes == list(range(len(done.token_ids))), "each position once, in order"
        assert_tokens(done.token_ids, wanted.token_ids, self.prompt)
        assert done.text == wanted.text
        assert [at for at, _ in self.text_at] == [
            sum(len(text) for _, text in self.text_at[:n]) for n in range(len(self.text_at))
        ]
        return done


async def stories_on_a(fleet: LocalFleet, **options: Any) -> list[Story]:
    stories = [Story(fleet, prompt, **options) for prompt in PROMPTS]
    return list(await asyncio.gather(*(story.until_token(4) for story in stories)))


@pytest.fixture
async def pair(fleet: LocalFleet) -> tuple[LocalExecutor, LocalExecutor]:
    return await fleet.add("a", step_base_s=0.003), await fleet.add("b")


@pytest.fixture
async def watched() -> AsyncIterator[LocalFleet]:
    """A fleet that notices a stall soon."""
    async with LocalFleet(instance=HANG_IS_NOTICED) as fleet:
        yield fleet


# --- death ----------------------------------------------------------------------------------------


async def test_an_engine_that_dies_mid_stream(fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]) -> None:
    stories = await stories_on_a(fleet)
    pair[0].engine.inject(Fault(kind=FaultKind.DIE))
    for story in stories:
        done = await story.complete()
        assert [d.instance_id for d in done.decisions] == ["a", "b"]
        assert done.attempts == 2
        assert 4 < story.resumed_from[1] < LENGTH
    assert await pair[0].exit_status() == 4
    assert pair[1].engine.load().unfinished == 0


async def test_a_dead_executor_is_not_chosen_and_comes_back_when_it_is_started_again(
    fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]
) -> None:
    [first, *_] = await stories_on_a(fleet)
    pair[0].engine.inject(Fault(kind=FaultKind.DIE))
    await first.complete()
    await pair[0].exit_status()
    gone = await fleet.until("a", InstanceState.FAILED, InstanceState.LOST)
    assert "died" in gone.state_reason
    engine = fleet.scheduler.control.scheduler.instance("a").spec.engine_start_id
    for _ in range(4):
        assert (await fleet.client.generate("Once", max_tokens=1).result()).instance_id == "b"
    pair[0].start()
    await fleet.until("a", InstanceState.READY)
    assert fleet.scheduler.control.scheduler.instance("a").spec.engine_start_id != engine
    done = await fleet.client.generate("Once", max_tokens=1, preferred_instance="a").result()
    assert done.instance_id == "a"


@pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware", "cost_optimized", "adaptive"])
async def test_a_death_under_every_policy(
    policy: str, fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]
) -> None:
    await fleet.client.set_policy(policy)
    stories = await stories_on_a(fleet)
    pair[0].engine.inject(Fault(kind=FaultKind.DIE))
    for story in stories:
        assert (await story.complete()).attempts == 2


async def test_the_only_instance_dies_and_its_requests_wait_for_it_to_come_back(fleet: LocalFleet) -> None:
    executor = await fleet.add("a", step_base_s=0.003)
    stories = await stories_on_a(fleet)
    executor.engine.inject(Fault(kind=FaultKind.DIE))
    await executor.exit_status()
    explained = await fleet.client.explain(stories[0].stream.request_id)
    assert explained.state is RequestState.QUEUED
    assert explained.waiting_because
    executor.start()
    for story in stories:
        # An attempt's end may be heard of before its engine's: then it is tried there once more, and turned away.
        assert (await story.complete()).attempts in (2, 3)


async def test_requests_whose_fleet_does_not_come_back_end_with_a_word() -> None:
    async with LocalFleet(queue={"orphan_timeout_s": 0.3}) as fleet:
        executor = await fleet.add("a", step_base_s=0.003)
        stories = await stories_on_a(fleet)
        executor.engine.inject(Fault(kind=FaultKind.DIE))
        for story in stories:
            with pytest.raises(NoInstanceError, match="ready"):
                await story.complete()


async def test_one_death_after_another(fleet: LocalFleet) -> None:
    """Three instances die in turn under the same stream; each start is resumed where the one before stopped."""
    executors = {name: await fleet.add(name, step_base_s=0.003) for name in ("a", "b", "c", "d")}
    story = Story(fleet, "Long", max_tokens=100)
    for _ in range(3):
        await story.until_token(story.stream.next_token + 10)
        now_on = (await fleet.client.explain(story.stream.request_id)).decisions[-1].instance_id
        executors[now_on].engine.inject(Fault(kind=FaultKind.DIE))
        await executors[now_on].exit_status()
    done = await story.complete(Sampling(temperature=0, max_tokens=100))
    assert done.attempts == 4
    assert story.resumed_from == sorted(set(story.resumed_from))


async def test_a_request_that_fails_wherever_it_goes_ends_after_its_attempts() -> None:
    async with LocalFleet(queue={"max_attempts": 3}) as fleet:
        for name in ("a", "b"):
            executor = await fleet.add(name)
            executor.engine.inject(Fault(kind=FaultKind.ERROR, times=5))
        story = Story(fleet, "Doomed")
        with pytest.raises(GenerationFailedError, match="after 3 attempts"):
            await story.complete()
        assert story.indexes == list(range(len(story.indexes)))


# --- an engine's error, a stall ---------------------------------------------------------------------


async def test_a_request_its_engine_failed_goes_on_elsewhere(
    fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]
) -> None:
    pair[0].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=10))
    story = Story(fleet, PROMPTS[0])
    done = await story.complete()
    assert [d.instance_id for d in done.decisions] == ["a", "b"]
    assert story.resumed_from == [0, 10]
    assert (await fleet.instance("a")).state is InstanceState.READY, "one error is no verdict"


async def test_an_engine_that_fails_in_a_row_rests_until_it_proves_itself() -> None:
    async with LocalFleet(instance={"probation_s": 0.3}) as fleet:
        failing = await fleet.add("a")
        await fleet.add("b")
        failing.engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=2, times=3))
        for prompt in PROMPTS[:3]:
            assert (await Story(fleet, prompt).complete()).attempts == 2
        resting = await fleet.until("a", InstanceState.SUSPECT)
        assert "injected error" in resting.state_reason
        assert (await fleet.client.generate("Once", max_tokens=1, preferred_instance="a").result()).instance_id == "b"
        await fleet.until("a", InstanceState.READY)
        assert (await Story(fleet, PROMPTS[0]).complete()).attempts == 1


async def test_an_engine_that_stalls_mid_stream(watched: LocalFleet) -> None:
    """Its heartbeats go on, and lie; it is not chosen again until it has done an iteration."""
    stalling = await watched.add("a", step_base_s=0.003)
    await watched.add("b")
    stories = await stories_on_a(watched)
    stalling.engine.inject(Fault(kind=FaultKind.HANG))
    for story in stories:
        done = await story.complete()
        assert [d.instance_id for d in done.decisions] == ["a", "b"]
    stalled = await watched.instance("a")
    assert stalled.state is InstanceState.STALLED
    assert "no iteration" in stalled.state_reason
    assert stalled.heartbeat_age_s < 1.0, "it still says that all is well"
    for _ in range(4):
        done = await watched.client.generate("Once", max_tokens=1, preferred_instance="a").result()
        assert done.instance_id == "b"
    stalling.engine.clear_faults()
    await watched.until("a", InstanceState.READY)
    assert (await Story(watched, PROMPTS[0]).complete()).attempts == 1
    await eventually(lambda: stalling.engine.load().unfinished == 0, what="the stalled requests to be aborted")


async def test_a_stalled_engine_that_wakes_up_disturbs_no_stream(watched: LocalFleet) -> None:
    stalling = await watched.add("a", step_base_s=0.003)
    await watched.add("b", step_base_s=0.01)
    stories = await stories_on_a(watched)
    stalling.engine.inject(Fault(kind=FaultKind.HANG))
    await watched.until("a", InstanceState.STALLED)
    await asyncio.gather(*(story.until_token(story.stream.next_token) for story in stories))  # from b
    stalling.engine.clear_faults()
    for story in stories:
        assert (await story.complete()).attempts == 2


async def test_a_long_prefill_is_progress_and_no_stall(watched: LocalFleet) -> None:
    """A second to its first token, more than twice the stall limit, in chunks of a sixth of it."""
    await watched.add("a", prefill_tokens_per_s=4_000.0, max_batched_tokens=256)
    await watched.add("b")
    stream = watched.client.generate(token_ids=[700] * 4_000, temperature=0, max_tokens=3, preferred_instance="a")
    done = await stream.result()
    assert done.attempts == 1
    assert done.timings.time_to_first_token_s is not None
    assert done.timings.time_to_first_token_s > 2 * HANG_IS_NOTICED["stall_limit_s"]


# --- the network ------------------------------------------------------------------------------------


async def test_a_short_cut_is_bridged_without_a_new_attempt(fleet: LocalFleet) -> None:
    async with NetworkProxy(fleet.scheduler.port) as network:
        await fleet.add("a", through=network.address, step_base_s=0.003)
        await fleet.add("b")
        stories = await stories_on_a(fleet)
        dialled = network.connections
        await network.cut()
        for story in stories:
            done = await story.complete()
            assert [d.instance_id for d in done.decisions] == ["a"]
        assert network.connections > dialled, "it was cut"
        assert (await fleet.until("a", InstanceState.READY)).assigned == 0


async def test_many_short_cuts_lose_and_double_nothing(fleet: LocalFleet) -> None:
    async with NetworkProxy(fleet.scheduler.port) as network:
        for name in ("a", "b"):
            await fleet.add(name, through=network.address, step_base_s=0.003)
        stories = await stories_on_a(fleet, max_tokens=200, preferred_instance="")
        reading = [asyncio.create_task(s.complete(Sampling(temperature=0, max_tokens=200))) for s in stories]
        cuts = 0
        while not all(task.done() for task in reading):
            await network.cut()
            cuts += 1
            await asyncio.wait(reading, timeout=0.15)
        await asyncio.gather(*reading)
        assert cuts >= 3


async def test_an_executor_that_is_cut_off_mid_stream(fleet: LocalFleet) -> None:
    """It goes on generating where nobody hears it; its requests go on elsewhere, and it comes back by itself."""
    async with NetworkProxy(fleet.scheduler.port) as network:
        away = await fleet.add("a", through=network.address, step_base_s=0.003)
        await fleet.add("b", step_base_s=0.003)
        stories = await stories_on_a(fleet)
        await network.refuse()
        for story in stories:
            done = await story.complete()
            assert [d.instance_id for d in done.decisions] == ["a", "b"]
        assert (await fleet.instance("a")).state is InstanceState.LOST
        assert (await fleet.client.generate("Once", max_tokens=1, preferred_instance="a").result()).instance_id == "b"
        await network.heal()
        back = await fleet.until("a", InstanceState.READY)
        assert back.assigned == 0
        await eventually(lambda: away.engine.load().unfinished == 0, what="the fenced attempts to be aborted")
        assert away.engine.load().kv_used_tokens == 0
        assert (await Story(fleet, PROMPTS[0]).complete()).attempts == 1


async def test_an_executor_whose_packets_vanish_mid_stream() -> None:
    """Nothing breaks and nothing is said: only the lease tells."""
    async with LocalFleet(instance={"lease_s": 0.5}) as fleet, NetworkProxy(fleet.scheduler.port) as network:
        away = await fleet.add("a", through=network.address, step_base_s=0.003)
        await fleet.add("b", step_base_s=0.003)
        stories = await stories_on_a(fleet, max_tokens=200)
        network.blackhole()
        for story in stories:
            done = await story.complete(Sampling(temperature=0, max_tokens=200))
            assert [d.instance_id for d in done.decisions] == ["a", "b"]
        lost = await fleet.instance("a")
        assert lost.state is InstanceState.LOST
        assert "silent" in lost.state_reason
        await network.heal()
        await fleet.until("a", InstanceState.READY)
        await eventually(lambda: away.engine.load().unfinished == 0, what="the fenced attempts to be aborted")


async def test_a_pause_of_the_network_shorter_than_the_lease_moves_nothing(fleet: LocalFleet) -> None:
    async with NetworkProxy(fleet.scheduler.port) as network:
        await fleet.add("a", through=network.address, step_base_s=0.003)
        await fleet.add("b")
        stories = await stories_on_a(fleet)
        network.blackhole()
        await asyncio.sleep(0.3)  # nothing happens: that is the point
        await network.heal()
        for story in stories:
            assert (await story.complete()).attempts == 1


# --- state that tokens do not hold ------------------------------------------------------------------

REPLAYED: dict[str, tuple[dict[str, Any], Sampling]] = {
    "seed": (
        {"temperature": 0.9, "seed": 11},
        Sampling(temperature=0.9, seed=11, max_tokens=LENGTH),
    ),
    "penalties": (
        {"allowed_token_ids": list(range(700, 760)), "presence_penalty": 1.0, "frequency_penalty": 0.5},
        Sampling(
            temperature=0,
            allowed_token_ids=tuple(range(700, 760)),
            presence_penalty=1.0,
            frequency_penalty=0.5,
            max_tokens=LENGTH,
        ),
    ),
    "bad words": (
        {"bad_words": ["botu", "dafa bika"]},
        Sampling(temperature=0, bad_words=("botu", "dafa bika"), max_tokens=LENGTH),
    ),
}


@pytest.mark.parametrize("history", [True, False], ids=("history", "replay"))
@pytest.mark.parametrize("name", REPLAYED)
async def test_what_cannot_be_resumed_goes_on_from_its_history_or_is_replayed(
    name: str, history: bool, fleet: LocalFleet
) -> None:
    dying = await fleet.add("a", step_base_s=0.003)
    heir = await fleet.add("b", output_history=history)
    options, sampling = REPLAYED[name]
    story = await Story(fleet, PROMPTS[0], **options).until_token(20)
    generated_by_b = heir.engine.load().generation_tokens_total
    dying.engine.inject(Fault(kind=FaultKind.DIE))
    done = await story.complete(sampling)
    assert done.attempts == 2
    seam = story.resumed_from[1]
    generated = heir.engine.load().generation_tokens_total - generated_by_b
    assert generated == (LENGTH - seam if history else LENGTH), "only the rest, or anew from the prompt"
    told = {entry.event: entry.detail for entry in (await fleet.client.explain(story.stream.request_id)).history}
    how = f"after {seam} tokens, which b takes" if history else "by replay: b keeps no output history"
    assert told["continues"].startswith(how)


@pytest.mark.parametrize("option", [{"presence_penalty": 0.8}, {"choice": ["one thing", "another"]}], ids=str)
@pytest.mark.parametrize("history", [True, False], ids=("history", "replay"))
async def test_random_output_without_a_seed_survives_a_failover(
    option: dict[str, Any], history: bool, fleet: LocalFleet
) -> None:
    """Where an engine would have to replay it, it was given a seed when it was accepted."""
    dying = await fleet.add("a", step_base_s=0.05)  # it dies before the shortest answer is over
    await fleet.add("b", output_history=history)
    story = await Story(fleet, PROMPTS[0], **{"temperature": 0.9, **option}).until_token(2)
    dying.engine.inject(Fault(kind=FaultKind.DIE))
    async for event in story.stream:
        story._see(event)
    done = await story.stream.result()
    assert done.attempts == 2
    assert story.indexes == list(range(len(done.token_ids))), "each position once, in order"
    if "choice" in option:
        assert done.text in option["choice"]


async def test_structured_output_goes_on_too(fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]) -> None:
    schema = {"type": "object", "properties": {f"field{n}": {"type": "string"} for n in range(6)}}
    constraint = StructuredOutput(kind=StructuredKind.JSON_SCHEMA, value=json.dumps(schema))
    story = await Story(fleet, PROMPTS[0], json_schema=schema, max_tokens=200).until_token(10)
    pair[0].engine.inject(Fault(kind=FaultKind.DIE))
    done = await story.complete(Sampling(temperature=0, max_tokens=200, structured_output=constraint))
    assert done.attempts == 2
    assert json.loads(done.text).keys() == schema["properties"].keys()  # type: ignore[attr-defined]


@pytest.mark.parametrize("cut_at", [6, 7, 8])
async def test_a_stop_string_over_the_seam(
    cut_at: int, fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]
) -> None:
    """Wherever the seam falls: before the stop string, inside it, or just behind."""
    whole = await answer(PROMPTS[0], Sampling(temperature=0, max_tokens=LENGTH))
    words = whole.text.split(" ")
    stop = f"{words[7][1:]} {words[8]} {words[9][:2]}"
    pair[0].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=cut_at))
    done = await fleet.client.generate(
        PROMPTS[0], temperature=0, max_tokens=LENGTH, stop=stop, preferred_instance="a"
    ).result()
    assert done.attempts == 2
    assert done.stop_string == stop
    assert done.text == whole.text[: whole.text.index(stop)]
    assert_tokens(done.token_ids, whole.token_ids[: len(done.token_ids)])


async def test_a_letter_over_the_seam(fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]) -> None:
    """The first half of a two-byte letter is the last token that was delivered."""
    whole = await answer("Letters", Sampling(temperature=0, max_tokens=LENGTH))
    half = whole.token_ids.index(0xC3)
    pair[0].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=half + 1))
    story = Story(fleet, "Letters")
    assert (await story.complete()).attempts == 2
    assert story.resumed_from == [0, half + 1]


async def test_logprobs_go_on_over_the_seam(fleet: LocalFleet, pair: tuple[LocalExecutor, LocalExecutor]) -> None:
    pair[0].engine.inject(Fault(kind=FaultKind.ERROR, after_tokens=10))
    story = Story(fleet, PROMPTS[0], logprobs=2)
    done = await story.complete()
    assert [row[0].token_id for row in done.logprobs] == list(done.token_ids)


async def test_a_replay_that_differs_fails_and_says_so(fleet: LocalFleet) -> None:
    """Two engines of one model name that answer differently: what was delivered must not be taken back silently."""
    dying = await fleet.add("a", step_base_s=0.003)
    await fleet.add("b", answers_as="another model", pretends=True, output_history=False)
    story = await Story(fleet, PROMPTS[0], temperature=0.9, seed=11).until_token(20)
    dying.engine.inject(Fault(kind=FaultKind.DIE))
    with pytest.raises(GenerationFailedError, match="token 0 differs"):
        await story.complete()


async def test_a_replay_that_differs_goes_on_where_the_caller_takes_best_effort(fleet: LocalFleet) -> None:
    dying = await fleet.add("a", step_base_s=0.003)
    await fleet.add("b", answers_as="another model", pretends=True, output_history=False)
    story = await Story(fleet, PROMPTS[0], temperature=0.9, seed=11, resume_mode="best_effort").until_token(20)
    dying.engine.inject(Fault(kind=FaultKind.DIE))
    done = await story.stream.result()
    assert (len(done.token_ids), done.attempts) == (LENGTH, 2)
    wanted = await answer(PROMPTS[0], Sampling(temperature=0.9, seed=11, max_tokens=LENGTH))
    assert_tokens(done.token_ids[:20], wanted.token_ids[:20])


async def test_a_resume_on_another_model_would_be_noticed(fleet: LocalFleet) -> None:
    """The comparison these tests rest on can fail."""
    dying = await fleet.add("a", step_base_s=0.003)
    await fleet.add("b", answers_as="another model", pretends=True)
    story = await Story(fleet, PROMPTS[0]).until_token(20)
    dying.engine.inject(Fault(kind=FaultKind.DIE))
    with pytest.raises(AssertionError, match="wanted"):
        await story.complete()


async def test_cancel_while_it_waits_to_be_resumed(fleet: LocalFleet) -> None:
    executor = await fleet.add("a", step_base_s=0.003)
    story = await Story(fleet, PROMPTS[0]).until_token(5)
    executor.engine.inject(Fault(kind=FaultKind.DIE))
    await executor.exit_status()
    assert (await story.stream.cancel()).cancelled
    executor.start()
    await fleet.until("a", InstanceState.READY)
    assert executor.engine.load().prompt_tokens_total == 0, "it does not run again"

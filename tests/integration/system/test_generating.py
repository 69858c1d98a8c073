"""Requests in, tokens out: prompts of every kind, sampling, streaming, many at once."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import Any

import pytest

from executor_svc.runtime.engine_port import Sampling, StructuredKind, StructuredOutput
from sage_client import Accepted, AsyncClient, ChatMessage, Finished, FinishReason, Scheduled, Tokens
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.support.eventually import eventually
from tests.support.simulated_answer import answer, encode
from tests.support.token_check import assert_tokens

GREEDY = Sampling(temperature=0, max_tokens=24)


async def test_a_stream_is_accepted_then_placed_then_tokens_then_finished(client: AsyncClient) -> None:
    events = [event async for event in client.generate("Once upon a time", temperature=0, max_tokens=24)]
    assert [type(e) for e in events[:2]] == [Accepted, Scheduled]
    assert {type(e) for e in events[2:-1]} == {Tokens}
    assert isinstance(events[-1], Finished)
    tokens = [e for e in events if isinstance(e, Tokens)]
    assert len(tokens) > 1, "tokens come as they are made, not all at the end"
    assert [e.first_index for e in tokens] == [sum(len(t.token_ids) for t in tokens[:i]) for i in range(len(tokens))]
    assert [e.text_offset for e in tokens] == [sum(len(t.text) for t in tokens[:i]) for i in range(len(tokens))]
    wanted = await answer("Once upon a time", GREEDY)
    assert_tokens([t for e in tokens for t in e.token_ids], wanted.token_ids)
    assert "".join(e.text for e in tokens) == wanted.text


async def test_the_end_says_what_it_took(client: AsyncClient) -> None:
    done = await client.generate("Once upon a time", temperature=0, max_tokens=24).result()
    assert done.finish_reason is FinishReason.LENGTH
    assert done.usage.prompt_tokens == len(encode("Once upon a time"))
    assert done.usage.completion_tokens == 24
    assert done.attempts == 1
    assert done.timings.time_to_first_token_s is not None
    assert done.timings.total_s is not None
    assert 0 < done.timings.time_to_first_token_s < done.timings.total_s


async def test_thirty_two_streams_at_once_each_get_their_own_tokens(fleet: LocalFleet) -> None:
    for name in ("a", "b"):
        await fleet.add(name, max_running=8)
    prompts = [f"Story number {n}" for n in range(32)]
    streams = [fleet.client.generate(prompt, temperature=0, max_tokens=16 + n) for n, prompt in enumerate(prompts)]
    done = await asyncio.gather(*(stream.result() for stream in streams))
    assert {each.instance_id for each in done} == {"a", "b"}
    for n, each in enumerate(done):
        wanted = await answer(prompts[n], Sampling(temperature=0, max_tokens=16 + n))
        assert_tokens(each.token_ids, wanted.token_ids, prompts[n])
        assert each.text == wanted.text


async def test_token_ids_are_a_prompt_as_they_are(client: AsyncClient) -> None:
    done = await client.generate(token_ids=[700, 701, 702], temperature=0, max_tokens=24).result()
    assert_tokens(done.token_ids, (await answer([700, 701, 702], GREEDY)).token_ids)
    assert done.usage.prompt_tokens == 3


async def test_a_chat_is_rendered_by_the_models_own_template(client: AsyncClient) -> None:
    turns = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="Hello?")]
    done = await client.generate(messages=turns, temperature=0, max_tokens=24).result()
    rendered = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHello?<|im_end|>\n<|im_start|>assistant\n"
    assert done.usage.prompt_tokens == len(encode(rendered))
    assert_tokens(done.token_ids, (await answer(rendered, GREEDY)).token_ids)


async def test_a_chats_last_message_can_be_continued(client: AsyncClient) -> None:
    turns = [ChatMessage(role="user", content="Count."), ChatMessage(role="assistant", content="One, two,")]
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 24}
    done = await client.generate(messages=turns, continue_final_message=True, **options).result()
    rendered = "<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\nOne, two,"
    assert_tokens(done.token_ids, (await answer(rendered, GREEDY)).token_ids)


FEW = tuple(range(700, 740))  # among few tokens, repetitions are many
SAMPLINGS: dict[str, tuple[dict[str, Any], Sampling]] = {
    "seed": ({"temperature": 0.8, "seed": 42}, Sampling(temperature=0.8, seed=42, max_tokens=24)),
    "presence_penalty": (
        {"temperature": 0, "allowed_token_ids": FEW, "presence_penalty": 1.5},
        Sampling(temperature=0, allowed_token_ids=FEW, presence_penalty=1.5, max_tokens=24),
    ),
    "frequency_penalty": (
        {"temperature": 0, "allowed_token_ids": FEW, "frequency_penalty": 1.5},
        Sampling(temperature=0, allowed_token_ids=FEW, frequency_penalty=1.5, max_tokens=24),
    ),
    "repetition_penalty": (
        {"temperature": 0, "allowed_token_ids": FEW, "repetition_penalty": 1.5},
        Sampling(temperature=0, allowed_token_ids=FEW, repetition_penalty=1.5, max_tokens=24),
    ),
    "allowed_token_ids": (
        {"temperature": 0, "allowed_token_ids": [700, 701, 702]},
        Sampling(temperature=0, allowed_token_ids=(700, 701, 702), max_tokens=24),
    ),
    "logit_bias": (
        {"temperature": 0, "logit_bias": {900: 100.0, 901: 100.0}},
        Sampling(temperature=0, logit_bias={900: 100.0, 901: 100.0}, max_tokens=24),
    ),
    "bad_words": (
        {"temperature": 0, "bad_words": ["botu"]},
        Sampling(temperature=0, bad_words=("botu",), max_tokens=24),
    ),
}


@pytest.mark.parametrize("name", SAMPLINGS)
async def test_sampling_reaches_the_engine(name: str, client: AsyncClient) -> None:
    """Each option changes the simulated answer, so passing it on shows."""
    options, sampling = SAMPLINGS[name]
    done = await client.generate("Once upon a time", max_tokens=24, **options).result()
    wanted = await answer("Once upon a time", sampling)
    assert_tokens(done.token_ids, wanted.token_ids)
    option: dict[str, Any] = {name: getattr(Sampling(), name)}
    without = replace(sampling, **option)
    assert wanted.token_ids != (await answer("Once upon a time", without)).token_ids, "the option has no effect here"


async def test_end_of_sequence_ends_it_and_ignore_eos_does_not(fleet: LocalFleet) -> None:
    await fleet.add("one", mean_output_tokens=8)
    short = await fleet.client.generate("Once upon a time", temperature=0, max_tokens=60).result()
    assert short.finish_reason is FinishReason.STOP
    assert short.stop_token_id == short.token_ids[-1]
    assert "<|im_end|>" not in short.text
    long = await fleet.client.generate("Once upon a time", temperature=0, max_tokens=60, ignore_eos=True).result()
    assert long.usage.completion_tokens == 60
    assert long.token_ids[: len(short.token_ids)] == short.token_ids


async def test_a_stop_token_ends_it_and_min_tokens_puts_it_off(client: AsyncClient) -> None:
    whole = await answer("Once upon a time", GREEDY)
    stop = whole.token_ids[5]
    options: dict[str, Any] = {"temperature": 0, "max_tokens": 24, "stop_token_ids": [stop]}
    done = await client.generate("Once upon a time", **options).result()
    assert (done.token_ids, done.stop_token_id) == (whole.token_ids[:6], stop)
    later = await client.generate("Once upon a time", min_tokens=10, **options).result()
    wanted = Sampling(temperature=0, max_tokens=24, min_tokens=10, stop_token_ids=(stop,))
    assert_tokens(later.token_ids, (await answer("Once upon a time", wanted)).token_ids)
    assert len(later.token_ids) > 10


async def test_a_stop_string_ends_it_across_tokens_and_is_not_shown(client: AsyncClient) -> None:
    whole = await answer("Once upon a time", GREEDY)
    words = whole.text.split(" ")
    stop = f"{words[6][2:]} {words[7][:2]}"  # the end of one token and the beginning of the next
    done = await client.generate("Once upon a time", temperature=0, max_tokens=24, stop=[stop, "never"]).result()
    assert done.finish_reason is FinishReason.STOP
    assert done.stop_string == stop
    assert done.text == whole.text[: whole.text.index(stop)]
    assert_tokens(done.token_ids, whole.token_ids[: len(done.token_ids)])


async def test_a_stop_string_is_shown_when_asked_for(client: AsyncClient) -> None:
    whole = await answer("Once upon a time", GREEDY)
    stop = whole.text.split(" ")[7]
    stream = client.generate("Once upon a time", temperature=0, max_tokens=24, stop=stop, include_stop_in_output=True)
    done = await stream.result()
    assert done.text == whole.text[: whole.text.index(stop) + len(stop)]


async def test_a_stop_string_frees_the_engine(client: AsyncClient, one: LocalExecutor) -> None:
    whole = await answer("Once upon a time", GREEDY)
    await client.generate("Once upon a time", temperature=0, max_tokens=4000, stop=whole.text.split(" ")[3]).result()
    await eventually(lambda: one.engine.load().unfinished == 0, what="the engine to let go")
    assert one.engine.load().kv_used_tokens == 0


async def test_logprobs_come_one_row_per_token_with_the_chosen_one_first(client: AsyncClient) -> None:
    done = await client.generate("Once upon a time", temperature=0, max_tokens=24, logprobs=3).result()
    wanted = await answer("Once upon a time", Sampling(temperature=0, max_tokens=24, logprobs=3))
    assert len(done.logprobs) == 24
    for row, wanted_row, token in zip(done.logprobs, wanted.logprobs, done.token_ids, strict=True):
        assert row[0].token_id == token
        assert [(e.token_id, e.rank) for e in row] == [(e.token_id, e.rank) for e in wanted_row]
        assert [e.logprob for e in row] == pytest.approx([e.logprob for e in wanted_row], rel=1e-6)


async def test_structured_output_is_what_was_asked_for(client: AsyncClient) -> None:
    schema = {"type": "object", "properties": {"name": {"type": "string"}, "age": {"type": "integer"}}}
    done = await client.generate("Who?", max_tokens=100, json_schema=schema).result()
    found = json.loads(done.text)
    assert isinstance(found["name"], str)
    assert isinstance(found["age"], int)
    kind = StructuredOutput(kind=StructuredKind.CHOICE, value=json.dumps(["yes", "no"]))
    wanted = await answer("Who?", Sampling(temperature=0, max_tokens=100, structured_output=kind))
    chosen = await client.generate("Who?", temperature=0, max_tokens=100, choice=["yes", "no"]).result()
    assert chosen.text == wanted.text
    assert chosen.text in ("yes", "no")


async def test_characters_split_over_tokens_come_whole(client: AsyncClient) -> None:
    """About one token in 32 begins a two-byte letter; no piece of text may hold half of one."""
    events = [event async for event in client.generate("Letters", temperature=0, max_tokens=120)]
    pieces = [event.text for event in events if isinstance(event, Tokens)]
    wanted = await answer("Letters", Sampling(temperature=0, max_tokens=120))
    assert "".join(pieces) == wanted.text
    assert any("À" <= letter <= "ÿ" for letter in wanted.text)
    assert not any("\ufffd" in piece for piece in pieces)


async def test_defaults_of_a_model_apply_where_the_request_says_nothing() -> None:
    async with LocalFleet(models={"sim": {"sampling": {"temperature": 0.0, "max_tokens": 7}}}) as fleet:
        await fleet.add("one")
        done = await fleet.client.generate("Once upon a time").result()
        assert_tokens(done.token_ids, (await answer("Once upon a time", GREEDY)).token_ids[:7])
        assert len((await fleet.client.generate("Once upon a time", max_tokens=9).result()).token_ids) == 9


async def test_without_max_tokens_it_runs_to_the_models_length(fleet: LocalFleet) -> None:
    await fleet.add("one", max_model_len=128, kv_capacity_tokens=4096, step_base_s=0.0)
    done = await fleet.client.generate(token_ids=[700] * 28, temperature=0).result()
    assert done.usage.completion_tokens == 100
    assert done.finish_reason is FinishReason.LENGTH


async def test_options_without_effect_are_said(client: AsyncClient) -> None:
    done = await client.generate("Hi", temperature=0, top_p=0.5, seed=3, max_tokens=2).result()
    assert any("top_p" in warning for warning in done.warnings)
    assert any("seed" in warning for warning in done.warnings)


async def test_the_tenant_and_model_may_be_named_and_the_only_model_left_out(client: AsyncClient) -> None:
    done = await client.generate("Hi", model="sim", tenant="acme", max_tokens=2).result()
    assert done.model == "sim"
    assert (await client.explain(done.request_id, tenant="acme")).request_id == done.request_id


async def test_text_is_taken_as_soon_as_an_instance_is_ready(fleet: LocalFleet) -> None:
    """An instance whose tokenizer is on its way is not a reason to refuse."""
    fleet.launch("one")
    await fleet.client.generate("Hi", max_tokens=2, no_instance="wait", deadline=5.0).result()
    fleet.launch("two", model="other", vocab_size=1024)

    async def ready() -> bool:
        fleet_view = await fleet.client.list_instances(model="other")
        return any(i.state.value == "ready" for i in fleet_view.instances)

    await eventually(ready, every_s=0.0, what="the second model")
    assert (await fleet.client.generate("Hi", model="other", max_tokens=2).result()).usage.completion_tokens == 2


async def test_an_executor_keeps_the_log_probabilities_of_few_tokens(fleet: LocalFleet) -> None:
    """What the scheduler has need not be sent again."""
    one = await fleet.add("one")
    stream = fleet.client.generate("Once", max_tokens=1_000, logprobs=5, temperature=0)
    while stream.next_token < 900:
        await anext(stream)
    assert one._service is not None
    [output] = one._service.attempts._held.values()
    await eventually(lambda: len(output._logprobs or ()) < len(output.token_ids) / 2)
    await stream.aclose()

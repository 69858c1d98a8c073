"""Whatever a caller sends: a clear error that names what is wrong, nothing lost, never INTERNAL."""

from __future__ import annotations

import asyncio
import json
import math
import random
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from executor_svc.config import load as load_executor
from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, common_pb2, inference_pb2
from sage_client import AsyncClient, InvalidRequestError, NoInstanceError, QueueFullError, Tokens, UnknownPolicyError
from sage_common.configuration import ConfigError
from sage_wire.protocol import PROMPT_LIMIT_BYTES
from scheduler_svc.config import load as load_scheduler
from scheduler_svc.tokenization import store
from tests.integration.system.local_fleet import MODEL, LocalExecutor, LocalFleet
from tests.integration.system.refusals import Refusal, generate, refusal, refused
from tests.support.eventually import eventually

LONG_TEXT = "word " * 150_000
INVALID = grpc.StatusCode.INVALID_ARGUMENT
MEGABYTE = 1 << 20
NAN, INF = math.nan, math.inf


def request(
    *, prompt: dict[str, Any] | None = None, sampling: dict[str, Any] | None = None, **spec: Any
) -> inference_pb2.GenerateRequest:
    """A valid request but for what is given."""
    made = inference_pb2.GenerationSpec(**({"text": "Hello"} if prompt is None else prompt), **spec)
    made.sampling.CopyFrom(common_pb2.SamplingParams(**{"max_tokens": 4, **(sampling or {})}))
    return inference_pb2.GenerateRequest(spec=made)


@pytest.fixture
def channel(fleet: LocalFleet, one: LocalExecutor) -> grpc.aio.Channel:
    """To a fleet with one executor."""
    return fleet.channel()


async def assert_invalid(channel: grpc.aio.Channel, sent: inference_pb2.GenerateRequest, **wanted: str) -> Refusal:
    """Refused for exactly the fields of ``wanted`` (``__`` for a dot), each with words that hold its value."""
    found = await refused(channel, sent)
    assert (found.code, found.reason) == (INVALID, "INVALID_REQUEST"), found
    assert set(found.fields) == {name.replace("__", ".") for name in wanted}
    for name, words in wanted.items():
        field = name.replace("__", ".")
        assert words in found.fields[field], found.fields
        assert f"{field}: {found.fields[field]}" in found.message, "the message alone says it all, too"
    return found


# --- prompts ------------------------------------------------------------------------------------


async def test_an_empty_prompt(channel: grpc.aio.Channel) -> None:
    await assert_invalid(channel, request(prompt={}), spec__prompt="give one of text, tokens, chat")
    await assert_invalid(channel, request(prompt={"text": ""}), spec__text="is empty")
    tokens = inference_pb2.TokenIds()
    await assert_invalid(channel, request(prompt={"tokens": tokens}), spec__tokens__ids="is empty")
    chat = inference_pb2.Chat()
    await assert_invalid(channel, request(prompt={"chat": chat}), spec__chat__messages="is empty")


async def test_prompt_plus_max_tokens_over_the_models_length_says_both_numbers(channel: grpc.aio.Channel) -> None:
    tokens = inference_pb2.TokenIds(ids=[700] * 5000)
    sent = request(prompt={"tokens": tokens}, sampling={"max_tokens": 4000})
    found = await assert_invalid(channel, sent, spec__sampling__max_tokens="9000")
    for number in ("5000", "4000", "8192"):
        assert number in found.message


async def test_a_prompt_longer_than_the_model_says_both_numbers(channel: grpc.aio.Channel) -> None:
    tokens = inference_pb2.TokenIds(ids=[700] * 9000)
    found = await assert_invalid(channel, request(prompt={"tokens": tokens}), spec__prompt="9000")
    assert "8192" in found.message


@pytest.mark.parametrize("kind", ["text", "chat"])
async def test_a_prompt_of_10_mb_is_refused_and_others_go_on(
    kind: str, fleet: LocalFleet, channel: grpc.aio.Channel
) -> None:
    text = "a b " * (10 * MEGABYTE // 4)
    part = inference_pb2.ContentPart(text=text)
    chat = inference_pb2.Chat(messages=[inference_pb2.ChatMessage(role="user", content=[part])])
    prompt: dict[str, Any] = {"text": text} if kind == "text" else {"chat": chat}
    other = fleet.client.generate("Hi", max_tokens=60)
    field = "spec__text" if kind == "text" else "spec__chat__messages"
    found = await assert_invalid(channel, request(prompt=prompt), **{field: str(10 * MEGABYTE)})
    assert str(PROMPT_LIMIT_BYTES) in found.message
    assert (await other.result()).usage.completion_tokens == 60


async def test_a_prompt_of_10_mb_of_token_ids_is_refused_by_its_length(channel: grpc.aio.Channel) -> None:
    tokens = inference_pb2.TokenIds(ids=[700] * (5 * MEGABYTE))
    await assert_invalid(channel, request(prompt={"tokens": tokens}), spec__tokens__ids=str(5 * MEGABYTE))


async def test_the_sdk_says_so_too_without_sending_it(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.generate("x" * 10 * MEGABYTE, max_tokens=1).result()
    [violation] = caught.value.violations
    assert violation.field == "spec.text"
    assert str(PROMPT_LIMIT_BYTES) in violation.description


async def test_a_long_text_does_not_hold_others_up(
    fleet: LocalFleet, channel: grpc.aio.Channel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokenizing it takes a while, in a thread; what streams meanwhile goes on streaming."""
    monkeypatch.setattr(store, "bytes_per_token", lambda tokenizer: None)
    await fleet.add("two", model="unbounded", vocab_size=20_000)  # another tokenizer, which is new here
    found, meanwhile = await _beside_a_stream(fleet, channel, request(model="unbounded", prompt={"text": LONG_TEXT}))
    assert "8192" in found.fields["spec.text"]
    assert meanwhile >= 5


async def test_a_text_that_cannot_fit_is_not_even_tokenized(fleet: LocalFleet, channel: grpc.aio.Channel) -> None:
    found, _ = await _beside_a_stream(fleet, channel, request(prompt={"text": LONG_TEXT}))
    assert "the model's 8192 tokens hold at most" in found.fields["spec.text"]


async def _beside_a_stream(
    fleet: LocalFleet, channel: grpc.aio.Channel, sent: inference_pb2.GenerateRequest
) -> tuple[Refusal, int]:
    """How a request is refused, and how many events another stream had meanwhile."""
    big = asyncio.create_task(generate(channel, sent))
    meanwhile = 0
    async for event in fleet.client.generate("Hi", model=MODEL, max_tokens=8000, temperature=0):
        meanwhile += isinstance(event, Tokens)
        if big.done():
            break
    found = await big
    assert isinstance(found, Refusal)
    assert found.code is INVALID
    return found, meanwhile


async def test_token_ids_outside_the_vocabulary(channel: grpc.aio.Channel) -> None:
    tokens = inference_pb2.TokenIds(ids=[700, 2048, 701, 999_999])
    found = await assert_invalid(channel, request(prompt={"tokens": tokens}), spec__tokens__ids="2048 at 1")
    assert "999999 at 3" in found.message


async def test_input_that_is_not_text(channel: grpc.aio.Channel) -> None:
    image = inference_pb2.Media(data=b"\x89PNG", mime_type="image/png")
    clip = inference_pb2.Media(data=b"RIFF", mime_type="audio/wav")
    for part, told in (
        (inference_pb2.ContentPart(image=image), f"is an image; model {MODEL!r} takes text only"),
        (inference_pb2.ContentPart(audio=clip), f"is an audio clip; model {MODEL!r} takes text only"),
        (inference_pb2.ContentPart(video=image), "video input is not supported"),
    ):
        message = inference_pb2.ChatMessage(role="user", content=[inference_pb2.ContentPart(text="See:"), part])
        found = await refused(channel, request(prompt={"chat": inference_pb2.Chat(messages=[message])}))
        assert found.code is INVALID
        assert found.fields == {"spec.chat.messages[0].content[1]": told}


async def test_chat_arguments_that_are_no_json_object(channel: grpc.aio.Channel) -> None:
    message = inference_pb2.ChatMessage(role="user", content=[inference_pb2.ContentPart(text="Hi")])
    for source, words in (("{", "is not JSON"), ("[1]", "is not a JSON object")):
        chat = inference_pb2.Chat(messages=[message], template_arguments_json=source)
        await assert_invalid(channel, request(prompt={"chat": chat}), spec__chat__template_arguments_json=words)


async def test_a_message_without_a_role_or_that_cannot_be_continued(channel: grpc.aio.Channel) -> None:
    part = inference_pb2.ContentPart(text="Hi")
    nobody = inference_pb2.Chat(messages=[inference_pb2.ChatMessage(content=[part])])
    found = await refused(channel, request(prompt={"chat": nobody}))
    assert found.fields == {"spec.chat.messages[0].role": "is empty"}
    silent = inference_pb2.Chat(messages=[inference_pb2.ChatMessage(role="user")], continue_final_message=True)
    await assert_invalid(channel, request(prompt={"chat": silent}), spec__chat="cannot be continued")


# --- sampling -----------------------------------------------------------------------------------

OUT_OF_RANGE: list[tuple[str, Any]] = [
    ("temperature", -0.1),
    ("temperature", NAN),
    ("temperature", INF),
    ("top_p", 0.0),
    ("top_p", 1.1),
    ("top_p", NAN),
    ("min_p", -0.1),
    ("min_p", 1.5),
    ("min_p", NAN),
    ("presence_penalty", 2.5),
    ("presence_penalty", NAN),
    ("frequency_penalty", -2.5),
    ("frequency_penalty", NAN),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", 2.5),
    ("repetition_penalty", NAN),
    ("max_tokens", 0),
    ("min_tokens", 5),
    ("logprobs", 21),
    ("prompt_logprobs", 21),
    ("logit_bias", {700: NAN}),
    ("logit_bias", {700: 101.0}),
    ("logit_bias", {2048: 1.0}),
    ("stop_token_ids", [2048]),
    ("allowed_token_ids", [2048]),
    ("stop", [""]),
    ("stop", ["x"] * 65),
    ("bad_words", [""]),
    ("bad_words", [" "]),
    ("n", 2),
    ("n", 0),
]


async def test_sampling_out_of_range(fleet: LocalFleet, channel: grpc.aio.Channel) -> None:
    for name, value in OUT_OF_RANGE:
        await assert_invalid(channel, request(sampling={name: value}), **{f"spec__sampling__{name}": ""})
    ready = await fleet.instance("one")
    assert ready.state.value == "ready", "the caller's fault never counts against an instance"
    assert ready.assigned == 0


STRUCTURED: list[tuple[str, dict[str, Any], str]] = [
    ("json_schema", {"json_schema": "{"}, "is not JSON"),
    ("json_schema", {"json_schema": "[1]"}, "a schema is an object"),
    ("json_schema", {"json_schema": '{"type": "no-such-type"}'}, "no-such-type"),
    ("json_schema", {"json_schema": "[" * 60_000}, "is not JSON"),
    ("json_schema", {"json_schema": ""}, "is empty"),
    ("regex", {"regex": "("}, ""),
    ("regex", {"regex": ""}, "is empty"),
    ("grammar", {"grammar": "root ::= ("}, ""),
    ("json_object", {"json_object": False}, "is false"),
    ("choice", {"choice": {"choices": []}}, "at least one"),
    ("choice", {"choice": {"choices": ["a", ""]}}, "none of them empty"),
]


async def test_broken_structured_output(fleet: LocalFleet, channel: grpc.aio.Channel) -> None:
    for field, constraint, words in STRUCTURED:
        structured = common_pb2.StructuredOutput(**constraint)
        sent = request(sampling={"structured_output": structured})
        await assert_invalid(channel, sent, **{f"spec__sampling__structured_output__{field}": words})
    assert (await fleet.instance("one")).state.value == "ready"


async def test_structured_output_of_no_kind(channel: grpc.aio.Channel) -> None:
    sent = request(sampling={"structured_output": common_pb2.StructuredOutput()})
    await assert_invalid(channel, sent, spec__sampling__structured_output="give one of json_schema")


# --- everything else ----------------------------------------------------------------------------


async def test_an_unknown_model_names_those_there_are(fleet: LocalFleet, channel: grpc.aio.Channel) -> None:
    await fleet.add("two", model="other")
    found = await refused(channel, request(model="no-such-model"))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
    assert "'no-such-model'" in found.message
    assert "other, sim" in found.message
    await assert_invalid(channel, request(), spec__model="other, sim")


async def test_an_unknown_adapter_names_those_there_are(channel: grpc.aio.Channel) -> None:
    await assert_invalid(channel, request(adapter="dialect"), spec__adapter="'dialect' is not one of the model's")


async def test_an_unknown_policy_names_those_there_are(client: AsyncClient, channel: grpc.aio.Channel) -> None:
    with pytest.raises(UnknownPolicyError, match=r"fifo, .*priority, .*slo_aware"):
        await client.set_policy("shortest")
    with pytest.raises(UnknownPolicyError, match=r"did you mean slo_aware\?"):
        await client.set_policy("slo-aware")
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await admin_pb2_grpc.AdminServiceStub(channel).SetPolicy(admin_pb2.SetPolicyRequest(policy="shortest"))
    found = refusal(caught.value)
    assert (found.code, found.reason) == (INVALID, "UNKNOWN_POLICY")
    assert list(found.fields) == ["policy"]
    assert (await client.get_policy()).policy == "fifo"


async def test_an_unknown_priority(client: AsyncClient, channel: grpc.aio.Channel) -> None:
    sent = request()
    sent.spec.priority = 99  # type: ignore[assignment]  # proto3 enums are open
    await assert_invalid(channel, sent, spec__priority="99")
    with pytest.raises(InvalidRequestError, match="critical, high, normal, low, background"):
        client.generate("Hi", priority="urgent")


async def test_other_words_that_are_not_of_their_set(channel: grpc.aio.Channel) -> None:
    sent = request()
    sent.spec.no_instance = 7  # type: ignore[assignment]
    sent.spec.resume_mode = 8  # type: ignore[assignment]
    await assert_invalid(channel, sent, spec__no_instance="7", spec__resume_mode="8")


async def test_durations_and_budgets_that_make_no_sense(channel: grpc.aio.Channel) -> None:
    await assert_invalid(channel, request(deadline=Duration(seconds=-1)), spec__deadline="must be positive")
    await assert_invalid(channel, request(deadline=Duration()), spec__deadline="must be positive")
    await assert_invalid(channel, request(ttft_target=Duration(nanos=-5)), spec__ttft_target="must be positive")
    await assert_invalid(channel, request(tpot_target=Duration()), spec__tpot_target="must be positive")
    await assert_invalid(channel, request(cost_budget=NAN), spec__cost_budget="must be a number")
    await assert_invalid(channel, request(cost_budget=-1.0), spec__cost_budget="must be a number")


async def test_an_error_stays_readable_however_long_what_it_quotes(channel: grpc.aio.Channel) -> None:
    """gRPC bounds what a status may weigh; a client must not be told of that instead of its mistake."""
    found = await refused(channel, request(model="é" * 5000))
    assert (found.code, found.reason) == (grpc.StatusCode.NOT_FOUND, "UNKNOWN_MODEL")
    assert "éé" in found.message
    turns = [inference_pb2.ChatMessage(content=[inference_pb2.ContentPart(text="x")])] * 90  # of no role
    found = await refused(channel, request(chat=inference_pb2.Chat(messages=turns), adapter="\n" * 1000))
    assert found.code is INVALID
    assert found.fields["spec.chat.messages[0].role"] == "is empty"
    assert "more fields at fault" in found.fields["spec"]


async def test_ids_tenants_and_tags_past_their_bounds(channel: grpc.aio.Channel) -> None:
    long_id = request()
    long_id.request_id = "x" * 257
    await assert_invalid(channel, long_id, request_id="256")
    odd = request()
    odd.tenant = "a\nb"
    await assert_invalid(channel, odd, tenant="cannot be printed")
    await assert_invalid(channel, request(tags={str(n): "x" for n in range(17)}), spec__tags="17")
    found = await refused(channel, request(tags={"k": "x" * 300}))
    assert found.code is INVALID


async def test_every_field_at_fault_is_named_at_once(channel: grpc.aio.Channel) -> None:
    sent = request(
        prompt={"tokens": inference_pb2.TokenIds(ids=[5000])},
        sampling={"temperature": -1, "top_p": 7, "n": 3, "stop_token_ids": [9999], "max_tokens": 0},
        deadline=Duration(seconds=-3),
        cost_budget=NAN,
        adapter="none-such",
    )
    sent.spec.priority = 42  # type: ignore[assignment]
    await assert_invalid(
        channel,
        sent,
        spec__tokens__ids="5000",
        spec__sampling__temperature="-1",
        spec__sampling__top_p="7",
        spec__sampling__n="3",
        spec__sampling__stop_token_ids="9999",
        spec__sampling__max_tokens="0",
        spec__deadline="-3",
        spec__cost_budget="nan",
        spec__adapter="none-such",
        spec__priority="42",
    )


async def test_a_prompt_at_fault_is_complained_of_once(channel: grpc.aio.Channel) -> None:
    sent = request(prompt={"text": ""}, sampling={"top_p": 7})
    await assert_invalid(channel, sent, spec__text="is empty", spec__sampling__top_p="7")


async def test_a_conflict_of_ids(channel: grpc.aio.Channel) -> None:
    first, second = request(), request(prompt={"text": "Other"})
    first.request_id = second.request_id = "twice"
    assert isinstance(await generate(channel, first), list)
    found = await refused(channel, second)
    assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_CONFLICT")
    assert found.metadata["request_id"] == "twice"


async def test_a_full_queue_says_when_to_come_back() -> None:
    async with LocalFleet(queue={"limit_per_model": 3}) as fleet:
        executor = await fleet.add("one", max_running=1)
        streams = [fleet.client.generate("Once", max_tokens=5_000) for _ in range(5)]
        for stream in streams:  # one runs, one is ahead in the engine, three wait
            await anext(stream)
        await eventually(lambda: executor.engine.load().unfinished == 2)
        found = await refused(fleet.channel(), request())
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL")
        assert found.retry_s is not None
        assert found.retry_s > 0
        assert "3 requests" in found.message
        assert "expected wait" in found.message
        with pytest.raises(QueueFullError) as caught:
            await fleet.client.generate("Hi").result()
        assert caught.value.retry_after_s is not None
        for stream in streams:
            await stream.cancel()
        assert (await fleet.client.generate("Hi", max_tokens=2).result()).usage.completion_tokens == 2


async def test_no_instance_is_said_at_once_or_waited_for(fleet: LocalFleet) -> None:
    channel = fleet.channel()
    found = await refused(channel, request(model="sim"))
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_INSTANCE")
    assert "no instance has registered" in found.message
    nobody = await refused(channel, request(model=""))
    assert nobody.message.startswith("no instance can serve any model now: ")
    waiting = fleet.client.generate("Hi", model="sim", max_tokens=2, no_instance="wait", deadline=10)
    nameless = fleet.client.generate("Hi", max_tokens=2, no_instance="wait", deadline=10)
    await fleet.add("one")
    assert (await waiting.result()).instance_id == "one"
    assert (await nameless.result()).model == "sim"


async def test_an_instance_that_is_still_starting_is_no_instance_yet(fleet: LocalFleet) -> None:
    fleet.launch("one", load_s=0.4)
    await eventually(lambda: len(fleet.scheduler.control.scheduler.instances()), what="the registration")
    with pytest.raises(NoInstanceError, match=r"1 (downloading|loading|warming)"):
        await fleet.client.generate("Hi", max_tokens=2).result()
    assert (await fleet.client.generate("Hi", max_tokens=2, no_instance="wait").result()).instance_id == "one"


async def test_no_instance_because_the_only_one_went_away(fleet: LocalFleet, one: LocalExecutor) -> None:
    one.terminate()
    assert await one.exit_status() == 0
    found = await refused(fleet.channel(), request())
    assert (found.code, found.reason) == (grpc.StatusCode.UNAVAILABLE, "NO_INSTANCE")
    assert "1 lost" in found.message
    waiting = fleet.client.generate("Hi", max_tokens=2, no_instance="wait", deadline=10)
    await anext(waiting)
    one.start()
    assert (await waiting.result()).instance_id == "one"


async def test_a_request_no_instance_will_ever_do_is_refused_even_if_it_would_wait(fleet: LocalFleet) -> None:
    await fleet.add("one", settings={"role": "embedding"})
    with pytest.raises(InvalidRequestError, match="embeds; it does not generate"):
        await fleet.client.generate("Hi", max_tokens=2, no_instance="wait", deadline=5).result()


# --- anything -----------------------------------------------------------------------------------

NUMBERS = [NAN, INF, -INF, -1.0, 0.0, 1e-300, 0.5, 1.0, 2.0, 1e300]
COUNTS = [0, 1, 2, 100, 2**31, 2**32 - 1]
TEXTS = ["", " ", "\x00", "a", "é" * 50, "\ufffe", "<|im_end|>", "{{ 7 * 7 }}", "{% raise %}", "x" * 5000]


def anything(dice: random.Random) -> inference_pb2.GenerateRequest:
    """A well-formed message of values nobody would send together."""
    sent = inference_pb2.GenerateRequest(request_id=dice.choice([*[""] * 9, "r", "x" * 300, "\x01"]))
    sent.after_token = dice.choice([0, 0, 0, 5, 2**32 - 1])
    spec, sampling = sent.spec, sent.spec.sampling
    sampling.max_tokens = dice.choice([1, 3, 4])
    for field in dice.sample(list(sampling.DESCRIPTOR.fields), dice.choice([0, 0, 1, 5])):
        _fill(sampling, field, dice)
    for field in dice.sample(list(spec.DESCRIPTOR.fields), dice.choice([0, 0, 1, 5])):
        if field.name != "sampling":
            _fill(spec, field, dice)
    if spec.WhichOneof("prompt") is None and dice.random() < 0.8:
        spec.text = "Hello"
    return sent


def _fill(message: Any, field: Any, dice: random.Random) -> None:
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        table = getattr(message, field.name)
        if field.message_type.fields_by_name["key"].cpp_type == field.CPPTYPE_STRING:
            table[dice.choice(TEXTS)] = dice.choice(TEXTS)
        else:
            table[dice.choice(COUNTS)] = dice.choice(NUMBERS)
    elif field.message_type is not None:
        inner = message
        if not field.is_repeated:
            inner = getattr(message, field.name)
            inner.SetInParent()
        else:
            inner = getattr(message, field.name).add()
        for each in dice.sample(list(field.message_type.fields), min(2, len(field.message_type.fields))):
            _fill(inner, each, dice)
    elif field.is_repeated:
        getattr(message, field.name).extend(_scalar(field, dice) for _ in range(dice.choice([0, 1, 3])))
    else:
        setattr(message, field.name, _scalar(field, dice))


def _scalar(field: Any, dice: random.Random) -> Any:
    kind = field.cpp_type
    if kind in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        return dice.choice(NUMBERS)
    if kind == field.CPPTYPE_STRING:
        return b"\x00\xff" if field.type == field.TYPE_BYTES else dice.choice(TEXTS)
    if kind == field.CPPTYPE_BOOL:
        return dice.random() < 0.5
    if kind == field.CPPTYPE_ENUM:
        return dice.choice([0, 1, 2, 99])
    if kind in (field.CPPTYPE_INT32, field.CPPTYPE_INT64):
        return dice.choice([0, 1, -1, 2**31 - 1, -(2**31)])
    return dice.choice(COUNTS)


ALLOWED = {
    INVALID,
    grpc.StatusCode.NOT_FOUND,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.UNAVAILABLE,
}


@pytest.mark.parametrize("seed", range(2))
async def test_nothing_at_all_is_an_internal_error(seed: int, fleet: LocalFleet, channel: grpc.aio.Channel) -> None:
    dice = random.Random(seed)
    sent = [anything(dice) for _ in range(120)]
    answers = await asyncio.gather(*(generate(channel, each) for each in sent))
    taken = 0
    for each, answer in zip(sent, answers, strict=True):
        if isinstance(answer, Refusal):
            assert answer.code in ALLOWED, (answer, each)
            assert answer.message
            assert answer.code is not INVALID or answer.fields, (answer, each)
        else:
            taken += 1
            assert answer[-1].HasField("finished"), each
    assert taken > 5, "some of them have to be fine, or nothing is tested"
    await eventually(lambda: fleet.executors["one"].engine.load().unfinished == 0)
    assert (await fleet.instance("one")).state.value == "ready"


async def test_json_schemas_go_in_as_objects_too(client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.generate("Hi", json_schema={"type": "no-such-type"}, max_tokens=10).result()
    assert [v.field for v in caught.value.violations] == ["spec.sampling.structured_output.json_schema"]
    assert json.dumps("no-such-type").strip('"') in str(caught.value)


# --- configuration ------------------------------------------------------------------------------

CONFIGURATIONS = [
    (load_scheduler, ["--listen", "nowhere"], "listen"),
    (load_scheduler, ["--instance.lease-s", "-1"], "instance.lease_s"),
    (load_scheduler, ["--queue.limit-per-model", "many"], "queue.limit_per_model"),
    (load_scheduler, ["--no-such-flag", "1"], "no-such-flag"),
    (load_scheduler, ["--config", "no-such-file.toml"], "no-such-file.toml"),
    (load_executor, ["--model", "m", "--engine.kind", "abacus"], "engine.kind"),
    (load_executor, ["--model", "m", "--no-such-flag", "1"], "no-such-flag"),
    (load_executor, ["--model", "m", "--scheduler", "nowhere"], "scheduler"),
    (load_executor, ["--engine.kind", "simulated"], "--model"),
]


@pytest.mark.parametrize(("load", "flags", "key"), CONFIGURATIONS)
def test_bad_configuration_is_one_line_that_names_the_key(
    load: Callable[[list[str]], Any], flags: list[str], key: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        load(flags)
    assert key in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("service", "flags", "key"),
    [
        ("scheduler_svc", ["--policy", "shortest"], "configuration: policy: unknown policy 'shortest'"),
        ("scheduler_svc", ["--policy", "slo-aware"], "did you mean slo_aware? There are: adaptive, "),
        (
            "scheduler_svc",
            ["--listen", "127.0.0.1:0", "--telemetry.metrics-listen", "192.0.2.1:9464", "--insecure"],
            "telemetry.metrics_listen: cannot serve",
        ),
        ("executor_svc", ["--model", "m", "--engine.kind", "abacus"], "engine.kind"),
    ],
)
async def test_it_is_all_that_a_service_says_before_it_ends(service: str, flags: list[str], key: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", service, *flags), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 2
    assert out == b""
    assert len(err.decode().splitlines()) == 1, err
    assert key in err.decode()

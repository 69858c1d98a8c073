"""GenerateRequest → Submission: whatever comes is converted, and all that is wrong is named at once."""

from __future__ import annotations

import asyncio
import json
from array import array
from collections.abc import Mapping, MutableSequence
from typing import Any

import pytest
from google.protobuf import duration_pb2
from hypothesis import given, settings

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_media.kinds import IMAGE_LIMIT_BYTES, MEDIA_LIMIT, MEDIA_LIMIT_BYTES, MediaKind
from sage_wire.protocol import PROMPT_LIMIT_BYTES
from scheduler_svc.control.requests.read_from import ReadFrom
from scheduler_svc.control.requests.submission import TOKEN_ID, ChatPrompt, Submission, TextPrompt, TokenPrompt
from scheduler_svc.control.requests.tokenizers import Mark
from scheduler_svc.domain.request import Priority, ResumeMode, Sampling, StructuredOutput
from scheduler_svc.transport import request_limits, submissions
from scheduler_svc.transport.sampling_params import LISTS, SCALARS
from scheduler_svc.transport.submissions import DEFAULT_TENANT
from tests.unit.transport.any_message import messages

Spec = inference_pb2.GenerationSpec
Duration = duration_pb2.Duration


def submission(request: inference_pb2.GenerateRequest, trace_headers: Mapping[str, str], *, tenant: str) -> Submission:
    return asyncio.run(submissions.submission(request, trace_headers, tenant=tenant))


def choices(*strings: str) -> common_pb2.StructuredOutput.Choices:
    return common_pb2.StructuredOutput.Choices(choices=strings)


def texts(*parts: str) -> list[inference_pb2.ContentPart]:
    return [inference_pb2.ContentPart(text=part) for part in parts]


def convert(spec: Spec | None = None, **fields: object) -> Submission:
    request = inference_pb2.GenerateRequest(spec=spec or Spec(text="hi"), **fields)  # type: ignore[arg-type]
    return submission(request, {}, tenant=request.tenant)


def faults(spec: Spec | None = None, **fields: object) -> dict[str, str]:
    return {v.field: v.description for v in convert(spec, **fields).violations}


# --- what is right --------------------------------------------------------------------------------


def test_a_plain_request() -> None:
    found = convert(request_id="r1")
    assert found.violations == ()
    assert (found.key.tenant, found.key.request_id) == (DEFAULT_TENANT, "r1")
    assert found.prompt == TextPrompt(text="hi", special_tokens=True)
    assert (found.priority, found.resume_mode) == (Priority.NORMAL, ResumeMode.STRICT)
    assert (found.wait_for_instance, found.detached, found.after_token) == (False, False, 0)
    assert found.sampling == {}
    assert (found.deadline_s, found.ttft_target_s, found.tpot_target_s, found.cost_budget) == (None, None, None, None)


def test_every_field_arrives() -> None:
    spec = Spec(
        model="m",
        tokens=inference_pb2.TokenIds(ids=[1, 2, 3]),
        priority=common_pb2.PRIORITY_HIGH,
        deadline=Duration(seconds=60),
        ttft_target=Duration(nanos=500_000_000),
        tpot_target=Duration(nanos=20_000_000),
        cost_budget=0.25,
        session="s",
        tags={"team": "blue"},
        preferred_instance="i",
        adapter="a",
        no_instance=inference_pb2.NO_INSTANCE_WAIT,
        resume_mode=inference_pb2.RESUME_MODE_BEST_EFFORT,
    )
    request = inference_pb2.GenerateRequest(request_id="r", tenant="t", spec=spec, detached=True, after_token=9)
    found = submission(request, {"traceparent": "00-1"}, tenant="t")
    assert found.violations == ()
    assert (found.key.tenant, found.key.request_id, found.model) == ("t", "r", "m")
    assert found.prompt == TokenPrompt(token_ids=array(TOKEN_ID, [1, 2, 3]))
    assert found.priority is Priority.HIGH
    assert (found.deadline_s, found.ttft_target_s, found.tpot_target_s) == (60.0, 0.5, 0.02)
    assert (found.cost_budget, found.session, found.tags) == (0.25, "s", {"team": "blue"})
    assert (found.preferred_instance, found.adapter) == ("i", "a")
    assert found.wait_for_instance
    assert found.resume_mode is ResumeMode.BEST_EFFORT
    assert (found.detached, found.after_token) == (True, 9)
    assert found.trace_headers == {"traceparent": "00-1"}


def test_an_id_is_made_where_none_is_given() -> None:
    first, second = convert().key, convert().key
    assert first.request_id
    assert first != second


def test_only_sampling_that_was_set_is_passed_on() -> None:
    assert convert(Spec(text="hi", sampling=common_pb2.SamplingParams(temperature=0.0))).sampling == {
        "temperature": 0.0
    }


def test_every_sampling_field_of_the_contract_is_converted() -> None:
    """One that is added to the contract and forgotten here would be ignored without a word."""
    handled = {*SCALARS, *LISTS, "logit_bias", "structured_output", "engine_options", "n"}
    assert {field.name for field in common_pb2.SamplingParams.DESCRIPTOR.fields} == handled
    assert handled - {"n"} == set(Sampling.__dataclass_fields__)


def test_a_sampling_field_without_presence_is_a_list() -> None:
    """A single value that cannot be absent would be taken for a list: the contract marks those ``optional``."""
    assert all(isinstance(getattr(common_pb2.SamplingParams(), name), MutableSequence) for name in LISTS)


def test_every_sampling_field_arrives() -> None:
    wire = common_pb2.SamplingParams(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        seed=-7,
        n=1,
        stop=["x"],
        stop_token_ids=[2],
        include_stop_in_output=True,
        min_tokens=1,
        max_tokens=9,
        logprobs=0,
        prompt_logprobs=2,
        ignore_eos=True,
        logit_bias={3: -1.5},
        allowed_token_ids=[4],
        bad_words=["y"],
        structured_output=common_pb2.StructuredOutput(regex="a+", reasoning_ended=False, reasoning_arguments="{}"),
        skip_special_tokens=False,
        cache_salt="salt",
        engine_options={"mine": "1"},
    )
    assert Sampling(**convert(Spec(text="hi", sampling=wire)).sampling) == Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        repetition_penalty=1.1,
        seed=-7,
        stop=("x",),
        stop_token_ids=(2,),
        include_stop_in_output=True,
        min_tokens=1,
        max_tokens=9,
        logprobs=0,
        prompt_logprobs=2,
        ignore_eos=True,
        logit_bias={3: -1.5},
        allowed_token_ids=(4,),
        bad_words=("y",),
        structured_output=StructuredOutput(kind="regex", value="a+", reasoning_ended=False, reasoning_arguments="{}"),
        skip_special_tokens=False,
        cache_salt="salt",
        engine_options={"mine": "1"},
    )


@pytest.mark.parametrize(
    ("wire", "kind", "value"),
    [
        (common_pb2.StructuredOutput(json_schema="{}"), "json_schema", "{}"),
        (common_pb2.StructuredOutput(json_object=True), "json_object", ""),
        (common_pb2.StructuredOutput(regex="[ab]"), "regex", "[ab]"),
        (common_pb2.StructuredOutput(choice=choices("é", 'a"b')), "choice", json.dumps(["é", 'a"b'])),
        (common_pb2.StructuredOutput(grammar="root ::= 'a'"), "grammar", "root ::= 'a'"),
        (common_pb2.StructuredOutput(structural_tag="{}"), "structural_tag", "{}"),
    ],
)
def test_every_kind_of_structured_output(wire: common_pb2.StructuredOutput, kind: str, value: str) -> None:
    found = convert(Spec(text="hi", sampling=common_pb2.SamplingParams(structured_output=wire)))
    assert found.violations == ()
    assert found.sampling["structured_output"] == StructuredOutput(kind=kind, value=value)


def test_a_conversation() -> None:
    chat = inference_pb2.Chat(
        messages=[
            inference_pb2.ChatMessage(role="system", content=texts("be", " kind")),
            inference_pb2.ChatMessage(role="user", content=texts("hi"), name="Ann"),
        ],
        continue_final_message=True,
        template_arguments_json='{"enable_thinking": false}',
    )
    prompt = convert(Spec(chat=chat)).prompt
    assert isinstance(prompt, ChatPrompt)
    assert [(t.role, t.text, t.name) for t in prompt.conversation.turns] == [
        ("system", "be\n kind", ""),
        ("user", "hi", "Ann"),
    ]
    assert prompt.conversation.continue_final_message
    assert prompt.conversation.template_arguments == {"enable_thinking": False}


def test_a_conversation_with_tool_calls() -> None:
    call = inference_pb2.ChatMessage(role="assistant", template_fields_json='{"tool_calls": [{"id": "c1"}]}')
    prompt = convert(Spec(chat=inference_pb2.Chat(messages=[call]))).prompt
    assert isinstance(prompt, ChatPrompt)
    [turn] = prompt.conversation.turns
    assert (turn.text, turn.fields) == ("", {"tool_calls": [{"id": "c1"}]})


# --- what is wrong --------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["request_id", "tenant"])
def test_ids_are_short_and_can_be_printed(field: str) -> None:
    def faults_of(value: str) -> dict[str, str]:
        return faults(None, **{field: value})

    assert faults_of("x" * 256) == {}
    assert "257 characters" in faults_of("x" * 257)[field]
    assert "printed" in faults_of("a\nb")[field]


def test_tags_are_few_and_short() -> None:
    assert faults(Spec(text="hi", tags={f"k{i}": "v" for i in range(16)})) == {}
    assert "17 entries" in faults(Spec(text="hi", tags={f"k{i}": "v" for i in range(17)}))["spec.tags"]
    assert "256 bytes" in faults(Spec(text="hi", tags={"k": "é" * 128}))["spec.tags['k']"]


@pytest.mark.parametrize("field", ["priority", "no_instance", "resume_mode"])
def test_enum_values_the_contract_does_not_have(field: str) -> None:
    spec = Spec(text="hi")
    spec.MergeFromString(Spec(**{field: 77}).SerializeToString())  # type: ignore[arg-type]
    assert "77" in faults(spec)[f"spec.{field}"]


@pytest.mark.parametrize("field", ["deadline", "ttft_target", "tpot_target"])
@pytest.mark.parametrize(
    "wrong",
    [
        Duration(),
        Duration(seconds=-1),
        Duration(nanos=-1),
        Duration(seconds=2**63 - 1),
        Duration(seconds=-(2**63)),
        Duration(seconds=315_576_000_001),
    ],
    ids=["zero", "negative", "negative-nanos", "most", "least", "past-what-a-duration-may-be"],
)
def test_durations_are_positive_and_can_be_sent_on(field: str, wrong: Duration) -> None:
    assert f"spec.{field}" in faults(Spec(text="hi", **{field: wrong}))  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [-0.01, float("nan"), float("inf"), float("-inf")])
def test_a_budget_is_a_number(wrong: float) -> None:
    assert "spec.cost_budget" in faults(Spec(text="hi", cost_budget=wrong))


def test_a_request_without_a_prompt() -> None:
    found = convert(Spec(model="m"))
    assert found.prompt is None
    assert [v.field for v in found.violations] == ["spec.prompt"]


def test_a_request_without_a_spec() -> None:
    found = submission(inference_pb2.GenerateRequest(), {}, tenant="")
    assert [v.field for v in found.violations] == ["spec.prompt"]


def test_empty_prompts() -> None:
    assert "spec.text" in faults(Spec(text=""))
    assert "spec.tokens.ids" in faults(Spec(tokens=inference_pb2.TokenIds()))
    assert "spec.chat.messages" in faults(Spec(chat=inference_pb2.Chat()))


def test_prompts_past_the_limit() -> None:
    text = "x" * (PROMPT_LIMIT_BYTES + 1)
    assert str(PROMPT_LIMIT_BYTES) in faults(Spec(text=text))["spec.text"]
    turns = [inference_pb2.ChatMessage(role="user", content=texts(text[: len(text) // 2 + 1]))] * 2
    assert str(PROMPT_LIMIT_BYTES) in faults(Spec(chat=inference_pb2.Chat(messages=turns)))["spec.chat.messages"]


def test_too_many_token_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(request_limits, "PROMPT_LIMIT_TOKENS", 3)
    assert "4 tokens" in faults(Spec(tokens=inference_pb2.TokenIds(ids=[1, 2, 3, 4])))["spec.tokens.ids"]


def test_media_is_refused_where_it_stands() -> None:
    content = [{"text": "look"}, {"image": {"data": b"x"}}, {"audio": {"data": b"x"}}, {"video": {"uri": "x"}}, {}]
    chat = inference_pb2.Chat(messages=[inference_pb2.ChatMessage(content=content)])  # type: ignore[arg-type]
    assert faults(Spec(chat=chat)) == {
        "spec.chat.messages[0].role": "is empty",
        "spec.chat.messages[0].content[3]": "video input is not supported",
        "spec.chat.messages[0].content[4]": "is empty",
    }


def chat_with(*media: inference_pb2.Media, kind: str = "image") -> Spec:
    parts = [inference_pb2.ContentPart(**{kind: each}) for each in media]  # type: ignore[arg-type]
    see = inference_pb2.ContentPart(text="See:")
    return Spec(chat=inference_pb2.Chat(messages=[inference_pb2.ChatMessage(role="user", content=[see, *parts])]))


def test_images_of_a_chat_come_in_its_order_and_know_their_places() -> None:
    found = convert(
        chat_with(inference_pb2.Media(data=b"one"), inference_pb2.Media(data=b"two", mime_type="image/gif"))
    )
    assert not found.violations
    assert isinstance(found.prompt, ChatPrompt)
    [turn] = found.prompt.conversation.turns
    assert (turn.text, turn.parts) == ("See:", ("See:", Mark.IMAGE, Mark.IMAGE))
    places = [f"spec.chat.messages[0].content[{index}]" for index in (1, 2)]
    assert [(each.data, each.field) for each in found.media] == [(b"one", places[0]), (b"two", places[1])]


def test_images_beside_token_ids() -> None:
    ids, image = inference_pb2.TokenIds(ids=[5, 6]), inference_pb2.Media(data=b"one")
    [found] = convert(Spec(tokens=ids, images=[image])).media
    assert (found.data, found.field) == (b"one", "spec.images[0]")
    assert "for prompts of tokens" in faults(Spec(text="hi", images=[image]))["spec.images"]


def test_audio_beside_token_ids_and_images() -> None:
    ids, one, clip = (
        inference_pb2.TokenIds(ids=[5]),
        inference_pb2.Media(data=b"one"),
        inference_pb2.Media(data=b"clip"),
    )
    found = convert(Spec(tokens=ids, images=[one], audio=[clip])).media
    assert [(each.kind, each.data, each.field) for each in found] == [
        (MediaKind.IMAGE, b"one", "spec.images[0]"),
        (MediaKind.AUDIO, b"clip", "spec.audio[0]"),
    ]
    assert "for prompts of tokens" in faults(Spec(text="hi", audio=[clip]))["spec.audio"]


def test_audio_of_a_chat_stands_where_it_was_sent() -> None:
    found = convert(chat_with(inference_pb2.Media(data=b"clip", mime_type="audio/x-wav"), kind="audio"))
    assert not found.violations
    assert isinstance(found.prompt, ChatPrompt)
    assert found.prompt.conversation.turns[0].parts == ("See:", Mark.AUDIO)
    assert [(each.kind, each.data) for each in found.media] == [(MediaKind.AUDIO, b"clip")]


@pytest.mark.parametrize(
    ("clip", "field", "words"),
    [
        (inference_pb2.Media(uri="https://a/b.wav"), "uri", "is not fetched; send the audio clip itself"),
        (inference_pb2.Media(), "data", "is empty"),
        (inference_pb2.Media(data=bytes(MEDIA_LIMIT_BYTES + 1)), "data", str(MEDIA_LIMIT_BYTES)),
        (inference_pb2.Media(data=b"x", mime_type="image/png"), "mime_type", "audio/wav"),
    ],
    ids=["uri", "empty", "large", "kind"],
)
def test_audio_that_is_not_here_or_too_large_is_refused(clip: inference_pb2.Media, field: str, words: str) -> None:
    assert words in faults(chat_with(clip, kind="audio"))[f"spec.chat.messages[0].content[1].audio.{field}"]


def test_images_and_audio_are_bounded_together() -> None:
    few = [inference_pb2.Media(data=b"x")] * (MEDIA_LIMIT // 2 + 1)
    ids = inference_pb2.TokenIds(ids=[5])
    assert "is image or audio clip 17" in faults(Spec(tokens=ids, images=few, audio=few))["spec.audio[7]"]
    half = [inference_pb2.Media(data=bytes(MEDIA_LIMIT_BYTES // 2))]
    found = faults(Spec(tokens=ids, images=half, audio=[*half, inference_pb2.Media(data=b"x")]))
    assert f"with this one, 3 have {MEDIA_LIMIT_BYTES + 1} bytes together" in found["spec.audio[1]"]


@pytest.mark.parametrize(
    ("image", "field", "words"),
    [
        (inference_pb2.Media(uri="http://10.0.0.1/a.png"), "uri", "is not fetched"),
        (inference_pb2.Media(mime_type="image/png"), "data", "is empty"),
        (inference_pb2.Media(data=bytes(IMAGE_LIMIT_BYTES + 1)), "data", str(IMAGE_LIMIT_BYTES)),
        (inference_pb2.Media(data=b"x", mime_type="image/svg+xml"), "mime_type", "image/png"),
    ],
    ids=["uri", "empty", "large", "kind"],
)
def test_an_image_that_is_not_here_or_too_large_is_refused(image: inference_pb2.Media, field: str, words: str) -> None:
    assert words in faults(chat_with(image))[f"spec.chat.messages[0].content[1].image.{field}"]


def test_too_many_images_and_too_many_bytes_of_them() -> None:
    many = [inference_pb2.Media(data=b"x")] * (MEDIA_LIMIT + 1)
    assert "is image 17" in faults(chat_with(*many))["spec.chat.messages[0].content[17].image"]
    large = [inference_pb2.Media(data=bytes(IMAGE_LIMIT_BYTES))] * 3
    assert str(MEDIA_LIMIT_BYTES) in faults(chat_with(*large))["spec.chat.messages[0].content[3].image"]


@pytest.mark.parametrize(
    "source", ["{", "[1]", '"x"', "[" * 100_000, "{" + '"a":{' * 100_000, "1" * 10_000], ids=lambda s: s[:6]
)
def test_template_arguments_are_a_json_object(source: str) -> None:
    turn = inference_pb2.ChatMessage(role="user", content=texts("hi"))
    chat = inference_pb2.Chat(messages=[turn], template_arguments_json=source)
    assert list(faults(Spec(chat=chat))) == ["spec.chat.template_arguments_json"]


@pytest.mark.parametrize("source", ["{", "[1]", "[" * 60_000, '{"role": "system"}', '{"content": "x", "name": "y"}'])
def test_further_fields_of_a_message_are_a_json_object_without_its_own(source: str) -> None:
    turn = inference_pb2.ChatMessage(role="user", content=texts("hi"), template_fields_json=source)
    assert list(faults(Spec(chat=inference_pb2.Chat(messages=[turn])))) == [
        "spec.chat.messages[0].template_fields_json"
    ]


@pytest.mark.parametrize(
    ("wire", "field"),
    [
        (common_pb2.StructuredOutput(), ""),
        (common_pb2.StructuredOutput(json_object=False), ".json_object"),
        (common_pb2.StructuredOutput(json_schema=""), ".json_schema"),
        (common_pb2.StructuredOutput(regex=""), ".regex"),
        (common_pb2.StructuredOutput(grammar=""), ".grammar"),
        (common_pb2.StructuredOutput(structural_tag=""), ".structural_tag"),
        (common_pb2.StructuredOutput(choice=choices()), ".choice"),
        (common_pb2.StructuredOutput(choice=choices("a", "")), ".choice"),
    ],
)
def test_structured_output_that_says_nothing(wire: common_pb2.StructuredOutput, field: str) -> None:
    spec = Spec(text="hi", sampling=common_pb2.SamplingParams(structured_output=wire))
    assert list(faults(spec)) == [f"spec.sampling.structured_output{field}"]


@pytest.mark.parametrize(("wire", "choices"), [({}, 1), ({"n": 0}, 0), ({"n": 3}, 3)])
async def test_the_number_of_choices_is_no_field_of_a_choices_sampling(wire: dict[str, Any], choices: int) -> None:
    spec = Spec(text="hi", sampling=common_pb2.SamplingParams(**wire))
    made = await submissions.submission(inference_pb2.GenerateRequest(spec=spec), {}, tenant="t")
    assert (made.choices, made.sampling, made.violations) == (choices, {}, ())


async def test_positions_of_further_choices() -> None:
    request = inference_pb2.GenerateRequest(spec=Spec(text="hi"), takes_choices=True)
    request.after.add(choice=2, after_token=5, after_attempt=common_pb2.Attempt(epoch=1, number=9))
    request.after.add(choice=1, after_token=3)
    made = await submissions.submission(request, {}, tenant="t")
    assert made.takes_choices
    assert made.after == (
        ReadFrom(choice=2, after_token=5, after_attempt=(1, 9)),
        ReadFrom(choice=1, after_token=3),
    )


def test_everything_wrong_is_named_at_once() -> None:
    spec = Spec(
        chat=inference_pb2.Chat(messages=[inference_pb2.ChatMessage()], template_arguments_json="{"),
        deadline=Duration(seconds=-1),
        ttft_target=Duration(),
        cost_budget=float("nan"),
        tags={"k": "v" * 300},
        sampling=common_pb2.SamplingParams(n=3, structured_output=common_pb2.StructuredOutput(regex="")),
    )
    spec.MergeFromString(Spec(priority=50).SerializeToString())  # type: ignore[arg-type]
    assert set(faults(spec, request_id="a\0b", tenant="t" * 300)) == {
        "request_id",
        "tenant",
        "spec.tags['k']",
        "spec.chat.messages[0].role",
        "spec.chat.template_arguments_json",
        "spec.deadline",
        "spec.ttft_target",
        "spec.cost_budget",
        "spec.priority",
        "spec.sampling.structured_output.regex",
    }


# --- the digest -----------------------------------------------------------------------------------


def test_the_same_content_has_the_same_digest() -> None:
    tags = [(f"k{i}", "v") for i in range(10)]
    first, second = Spec(text="hi", tags=dict(tags)), Spec(text="hi", tags=dict(reversed(tags)))
    assert convert(first).digest == convert(second).digest


def test_how_a_client_reads_is_no_part_of_the_content() -> None:
    plain = convert(request_id="r").digest
    assert convert(request_id="other", tenant="t", detached=True, after_token=5).digest == plain


@pytest.mark.parametrize(
    "other",
    [
        Spec(text="hi!"),
        Spec(text="hi", model="m"),
        Spec(text="hi", sampling=common_pb2.SamplingParams(seed=0)),
        Spec(text="hi", deadline=Duration(seconds=1)),
        Spec(text="hi", priority=common_pb2.PRIORITY_LOW),
        Spec(tokens=inference_pb2.TokenIds(ids=[104, 105])),
    ],
)
def test_other_content_has_another_digest(other: Spec) -> None:
    assert convert(other).digest != convert().digest


# --- anything at all ------------------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(messages(inference_pb2.GenerateRequest))
def test_whatever_comes_a_submission_comes_of_it(request: inference_pb2.GenerateRequest) -> None:
    found = submission(request, {}, tenant="")
    assert (found.prompt is None) == any(
        v.field.startswith(("spec.prompt", "spec.text", "spec.tokens", "spec.chat", "spec.images", "spec.audio"))
        for v in found.violations
    )
    assert len({v.field for v in found.violations}) == len(found.violations), "no field is named twice"
    assert submission(request, {}, tenant="").digest == found.digest

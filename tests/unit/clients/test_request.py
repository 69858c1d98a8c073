"""From a caller's arguments to the message of Generate."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_client import Audio, ChatMessage, Image, InvalidRequestError, SamplingOptions
from sage_client._request import encode_request
from sage_media.kinds import IMAGE_LIMIT_BYTES
from sage_wire.protocol import PROMPT_LIMIT_BYTES


def encode(prompt: str | None = "hi", **options: Any) -> inference_pb2.GenerateRequest:
    return encode_request(prompt, options, tenant="acme")  # type: ignore[arg-type]


def fields_at_fault(prompt: str | None = "hi", **options: Any) -> list[str]:
    with pytest.raises(InvalidRequestError) as caught:
        encode(prompt, **options)
    return [v.field for v in caught.value.violations]


def test_every_sampling_field_of_the_contract_is_an_option() -> None:
    kinds = set(common_pb2.StructuredOutput.DESCRIPTOR.fields_by_name)
    fields = set(common_pb2.SamplingParams.DESCRIPTOR.fields_by_name) - {"structured_output"}

    assert set(SamplingOptions.__annotations__) == fields | kinds


def test_what_is_not_said_is_absent() -> None:
    assert encode().spec.sampling == common_pb2.SamplingParams()
    assert not encode().spec.HasField("deadline")
    assert not encode().spec.HasField("cost_budget")
    assert not encode().HasField("after_token")


def test_zero_is_said() -> None:
    request = encode(temperature=0, logprobs=0, cost_budget=0.0)

    assert request.spec.sampling.HasField("temperature")
    assert request.spec.sampling.HasField("logprobs")
    assert request.spec.HasField("cost_budget")


def test_all_scalar_and_list_options_arrive() -> None:
    sampling = encode(
        temperature=0.5,
        top_k=3,
        seed=-1,
        stop=["a", "b"],
        stop_token_ids=[7],
        allowed_token_ids=(1, 2),
        bad_words=["x"],
        logit_bias={5: -1.0},
        skip_special_tokens=False,
        max_tokens=9,
        cache_salt="salt",
        engine_options={"mine": [1]},
    ).spec.sampling

    assert (sampling.temperature, sampling.top_k, sampling.seed, sampling.max_tokens) == (0.5, 3, -1, 9)
    assert (list(sampling.stop), list(sampling.stop_token_ids)) == (["a", "b"], [7])
    assert (list(sampling.allowed_token_ids), list(sampling.bad_words)) == ([1, 2], ["x"])
    assert dict(sampling.logit_bias) == {5: -1.0}
    assert (sampling.cache_salt, dict(sampling.engine_options)) == ("salt", {"mine": "[1]"})
    assert sampling.HasField("skip_special_tokens")


@pytest.mark.parametrize(
    ("option", "kind"),
    [
        ({"json_schema": "{}"}, "json_schema"),
        ({"json_object": True}, "json_object"),
        ({"regex": "a+"}, "regex"),
        ({"choice": ["yes", "no"]}, "choice"),
        ({"choice": []}, "choice"),
        ({"grammar": "root ::= 'a'"}, "grammar"),
        ({"structural_tag": {"format": {}}}, "structural_tag"),
    ],
)
def test_structured_output_kinds(option: dict[str, Any], kind: str) -> None:
    assert encode(**option).spec.sampling.structured_output.WhichOneof("kind") == kind


def test_a_chat_is_made_of_messages_or_mappings() -> None:
    request = encode(
        None,
        messages=[ChatMessage(role="system", content="be brief"), {"role": "user", "content": "hi"}],
        continue_final_message=True,
        template_arguments={"thinking": False},
    )
    chat = request.spec.chat

    assert [(m.role, m.content[0].text) for m in chat.messages] == [("system", "be brief"), ("user", "hi")]
    assert chat.continue_final_message
    assert chat.template_arguments_json == '{"thinking": false}'


def test_an_empty_prompt_is_left_to_the_server() -> None:
    assert encode("").spec.WhichOneof("prompt") == "text"
    assert encode(None, token_ids=[]).spec.WhichOneof("prompt") == "tokens"
    assert encode(None, messages=[]).spec.WhichOneof("prompt") == "chat"


def test_tenant_is_the_clients_unless_said() -> None:
    assert encode().tenant == "acme"
    assert encode(tenant="other").tenant == "other"


@pytest.mark.parametrize("name", ["critical", "CRITICAL", 1, common_pb2.PRIORITY_CRITICAL])
def test_a_priority_by_name_or_number(name: Any) -> None:
    assert encode(priority=name).spec.priority == common_pb2.PRIORITY_CRITICAL


def test_ids_are_made_and_differ() -> None:
    assert encode().request_id != encode().request_id


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"max_tokens": -1}, "spec.sampling.max_tokens"),
        ({"seed": 2**63}, "spec.sampling.seed"),
        ({"top_k": 1.5}, "spec.sampling.top_k"),
        ({"temperature": "hot"}, "spec.sampling.temperature"),
        ({"stop_token_ids": [-1]}, "spec.sampling.stop_token_ids"),
        ({"choice": "yes"}, "spec.sampling.choice"),
        ({"json_object": True, "regex": "a"}, "spec.sampling.structured_output"),
        ({"priority": "urgent"}, "spec.priority"),
        ({"deadline": float("nan")}, "spec.deadline"),
        ({"ttft_target": float("inf")}, "spec.ttft_target"),
        ({"tags": {"a": 1}}, "spec.tags"),
        ({"no_instance": "perhaps"}, "spec.no_instance"),
        ({"token_ids": [1]}, "spec.prompt"),
        ({"after_token": -1}, "after_token"),
    ],
)
def test_what_cannot_be_sent_names_its_field(options: dict[str, Any], field: str) -> None:
    assert fields_at_fault(**options) == [field]


def test_a_number_that_does_not_fit_is_refused_with_the_range() -> None:
    with pytest.raises(InvalidRequestError, match="max_tokens: cannot be sent: -4 is not in the range 0 to 4294967295"):
        encode(max_tokens=-4)


def test_all_faults_are_named_at_once() -> None:
    assert fields_at_fault(None, max_tokens=-1, priority="urgent") == [
        "spec.prompt",
        "spec.sampling.max_tokens",
        "spec.priority",
    ]


def test_token_ids_and_messages_name_their_place() -> None:
    assert fields_at_fault(None, token_ids=[1, -1]) == ["spec.tokens.ids"]
    assert fields_at_fault(None, messages=[{"role": "user", "content": "a"}, {"role": "user"}]) == [
        "spec.chat.messages[1]"
    ]


def test_the_content_of_a_message_may_be_parts() -> None:
    parts: list[str | dict[str, str]] = ["a", {"type": "text", "text": "b"}, {"text": "c"}]
    turns = [ChatMessage(role="user", content=parts), {"role": "user", "content": parts}]
    chat = encode(None, messages=turns).spec.chat

    assert [[part.text for part in message.content] for message in chat.messages] == [["a", "b", "c"]] * 2


TOOLS = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]


def test_tools_are_a_variable_of_the_template_beside_others() -> None:
    turn = {"role": "user", "content": "a"}
    chat = encode(None, messages=[turn], tools=TOOLS, template_arguments={"enable_thinking": False}).spec.chat

    assert json.loads(chat.template_arguments_json) == {"enable_thinking": False, "tools": TOOLS}


def test_tool_calls_and_their_answers_are_fields_of_their_messages() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bern"}'}}
    turns = [
        {"role": "user", "content": "is it raining?"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        ChatMessage(role="tool", content="yes", tool_call_id="c1"),
    ]
    _, made, answer = encode(None, messages=turns).spec.chat.messages

    [sent] = json.loads(made.template_fields_json)["tool_calls"]
    assert sent["function"] == {"name": "weather", "arguments": {"city": "Bern"}}
    assert (list(made.content), json.loads(answer.template_fields_json)) == ([], {"tool_call_id": "c1"})


def test_tools_without_messages_and_calls_that_are_no_json_are_named() -> None:
    assert fields_at_fault("hello", tools=TOOLS) == ["tools"]
    turn = {"role": "user", "content": "a"}
    assert fields_at_fault(None, messages=[turn], tools=TOOLS, template_arguments={"tools": []}) == ["tools"]
    call = {"function": {"name": "weather", "arguments": "{"}}
    assert fields_at_fault(None, messages=[{"role": "assistant", "tool_calls": [call]}]) == ["spec.chat.messages[0]"]


def test_images_are_sent_as_they_are_and_out_of_data_urls() -> None:
    url = f"data:image/png;base64,{base64.b64encode(b'picture').decode()}"
    written = {"type": "image_url", "image_url": {"url": url}}
    content = ["See:", Image(data=b"raw", mime_type="image/gif"), written]
    [turn] = encode(None, messages=[{"role": "user", "content": content}]).spec.chat.messages
    images = [(part.image.data, part.image.mime_type) for part in turn.content if part.HasField("image")]
    assert images == [(b"raw", "image/gif"), (b"picture", "image/png")]


def test_images_beside_token_ids() -> None:
    spec = encode(None, token_ids=[1, 2], images=[b"one", Image(data=b"two")]).spec
    assert [each.data for each in spec.images] == [b"one", b"two"]
    assert fields_at_fault("hello", images=[b"one"]) == ["images"]


def test_what_is_of_another_type_beside_token_ids_is_named() -> None:
    assert fields_at_fault(None, token_ids=[1], images=[b"one", Audio(data=b"sound")]) == ["spec.images[1]"]
    assert fields_at_fault(None, token_ids=[1], audio=["sound"]) == ["spec.audio[0]"]


def test_audio_is_sent_as_it_is_and_out_of_parts() -> None:
    data = base64.b64encode(b"sound").decode()
    written = {"type": "input_audio", "input_audio": {"data": data, "format": "mp3"}}
    away = {"type": "audio_url", "audio_url": {"url": f"data:audio/wav;base64,{data}"}}
    content = ["Hear:", Audio(data=b"raw", mime_type="audio/x-wav"), written, away]
    [turn] = encode(None, messages=[{"role": "user", "content": content}]).spec.chat.messages
    audio = [(part.audio.data, part.audio.mime_type) for part in turn.content if part.HasField("audio")]
    assert audio == [(b"raw", "audio/wav"), (b"sound", "audio/mpeg"), (b"sound", "audio/wav")]
    spec = encode(None, token_ids=[1, 2], audio=[b"one", Audio.from_input(written["input_audio"])]).spec  # type: ignore[arg-type]
    assert [each.data for each in spec.audio] == [b"one", b"sound"]
    assert fields_at_fault("hello", audio=[b"one"]) == ["audio"]


@pytest.mark.parametrize(
    ("part", "words"),
    [
        ({"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}, "is not fetched"),
        ({"type": "image_url", "image_url": {"url": "data:image/png;base64,???"}}, "is not base64"),
        ({"type": "image_url", "image_url": "data:image/svg+xml;base64,eA=="}, "'image/svg\\+xml' are not supported"),
        ({"type": "input_audio", "input_audio": {}}, "has no data and format"),
        ({"type": "audio_url", "audio_url": "https://example.com/a.wav"}, "is not fetched"),
        ({"type": "video_url", "video_url": {}}, "type 'video_url' are not supported"),
        (Audio(data=b"x", mime_type="audio/aac"), "audio clips of type 'audio/aac' are not supported"),
        (Image(data=b""), "is empty"),
        (Image(data=bytes(IMAGE_LIMIT_BYTES + 1)), str(IMAGE_LIMIT_BYTES)),
    ],
    ids=["url", "base64", "kind", "audio", "audio url", "video", "audio kind", "empty", "large"],
)
def test_a_part_that_cannot_be_sent_is_named(part: Any, words: str) -> None:
    with pytest.raises(InvalidRequestError, match=words) as caught:
        encode(None, messages=[{"role": "user", "content": ["a", part]}])
    assert [v.field for v in caught.value.violations] == ["spec.chat.messages[0].content[1]"]


def test_a_prompt_too_large_to_send_is_refused_here() -> None:
    assert fields_at_fault("x" * (PROMPT_LIMIT_BYTES + 1)) == ["spec.text"]


def test_a_message_too_large_to_send_is_refused_here() -> None:
    assert fields_at_fault(None, token_ids=[1 << 31] * 4_000_000) == ["spec"]


def test_an_unknown_option_is_a_type_error() -> None:
    with pytest.raises(TypeError, match="tempurature"):
        encode(tempurature=1.0)


def test_none_means_not_said() -> None:
    assert encode(temperature=None, deadline=None, model=None, request_id="r") == encode(request_id="r")

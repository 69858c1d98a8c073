"""Encodes the arguments of ``generate`` into the contract's message."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any, TypeVar, cast

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_client._durations import duration
from sage_client._enums import NoInstance, Priority, ResumeMode
from sage_client._field_faults import FieldFaults
from sage_client._media import Audio, Image, media_in_part, media_of
from sage_client._options import ChatMessage, ContentPart, GenerateOptions
from sage_client._response_format import schema_of
from sage_client._sampling import SamplingOptions, encode_sampling
from sage_media.urls import MEDIA_PARTS
from sage_wire.protocol import MAX_MESSAGE_BYTES, PROMPT_LIMIT_BYTES

_MediaT = TypeVar("_MediaT", Image, Audio)

NO_INSTANCE = {
    NoInstance.FAIL: inference_pb2.NO_INSTANCE_FAIL,
    NoInstance.WAIT: inference_pb2.NO_INSTANCE_WAIT,
}
"""The contract's values of ``no_instance``."""

_RESUME_MODE = {
    ResumeMode.STRICT: inference_pb2.RESUME_MODE_STRICT,
    ResumeMode.BEST_EFFORT: inference_pb2.RESUME_MODE_BEST_EFFORT,
}
_SAMPLING = SamplingOptions.__annotations__.keys()
_KNOWN = GenerateOptions.__annotations__.keys() | _SAMPLING
_DURATIONS = ("deadline", "ttft_target", "tpot_target")
_PLAIN = ("model", "cost_budget", "session", "preferred_instance", "adapter")


def encode_request(prompt: str | None, options: GenerateOptions, *, tenant: str) -> inference_pb2.GenerateRequest:
    """Encode a request.  A request without an id gets one, because reattaching needs an id.

    Raises:
        InvalidRequestError: values that do not fit the contract; names every field.
        TypeError: an option has an unknown name.
    """
    given = cast(GenerateOptions, {name: value for name, value in options.items() if value is not None})
    if unknown := given.keys() - _KNOWN:
        raise TypeError(f"generate() got an unexpected option {min(unknown)!r}")
    faults = FieldFaults()
    request = inference_pb2.GenerateRequest(detached=given.get("detached", False))
    with faults.at("request_id"):
        request.request_id = given.get("request_id") or f"req-{uuid.uuid4().hex}"
    request.fresh = not given.get("request_id")
    with faults.at("tenant"):
        request.tenant = given.get("tenant", tenant)
    if given.get("after_token"):
        with faults.at("after_token"):
            request.after_token = given["after_token"]
    _fill_spec(request.spec, prompt, given, faults)
    request.takes_choices = request.spec.sampling.n > 1
    if (size := request.ByteSize()) > MAX_MESSAGE_BYTES:
        faults.add("spec", f"the message has {size} bytes; at most {MAX_MESSAGE_BYTES} can be sent")
    faults.raise_any()
    return request


def _fill_spec(
    spec: inference_pb2.GenerationSpec, prompt: str | None, given: GenerateOptions, faults: FieldFaults
) -> None:
    _set_prompt(spec, prompt, given, faults)
    sampling = cast(SamplingOptions, {name: given[name] for name in given.keys() & _SAMPLING})  # type: ignore[literal-required]
    _set_response_format(sampling, given, faults)
    spec.sampling.CopyFrom(encode_sampling(sampling, faults))
    for name in _PLAIN:
        if name in given:
            with faults.at(f"spec.{name}"):
                setattr(spec, name, given[name])  # type: ignore[literal-required]
    for name in _DURATIONS:
        if name in given:
            with faults.at(f"spec.{name}"):
                getattr(spec, name).CopyFrom(duration(given[name]))  # type: ignore[literal-required]
    with faults.at("spec.priority"):
        name = Priority.parse(given.get("priority", Priority.NORMAL)).name
        spec.priority = common_pb2.Priority.Value(f"PRIORITY_{name}")
    with faults.at("spec.tags"):
        spec.tags.update(given.get("tags", {}))
    with faults.at("spec.no_instance"):
        spec.no_instance = NO_INSTANCE[NoInstance(given.get("no_instance", NoInstance.FAIL))]
    with faults.at("spec.resume_mode"):
        spec.resume_mode = _RESUME_MODE[ResumeMode(given.get("resume_mode", ResumeMode.STRICT))]
    spec.skip_special_tokens_in_prompt = not given.get("add_special_tokens", True)


def _set_response_format(sampling: SamplingOptions, given: GenerateOptions, faults: FieldFaults) -> None:
    if "response_format" not in given:
        return
    if "json_schema" in sampling:
        faults.add("response_format", "json_schema may not be given beside it")
    with faults.at("response_format"):
        sampling["json_schema"] = schema_of(given["response_format"])


def _set_prompt(
    spec: inference_pb2.GenerationSpec, prompt: str | None, given: GenerateOptions, faults: FieldFaults
) -> None:
    given_prompts = (prompt is not None) + ("messages" in given) + ("token_ids" in given)
    if given_prompts != 1:
        faults.add("spec.prompt", f"exactly one of prompt, messages and token_ids must be given, not {given_prompts}")
    elif "token_ids" not in given and (media := [name for name in ("images", "audio") if name in given]):
        faults.add(media[0], "are for token_ids; the parts of messages have their own")
    elif "messages" not in given and "tools" in given:
        faults.add("tools", "only messages have tools")
    elif prompt is not None:
        with faults.at("spec.text"):
            spec.text = prompt
        if (size := spec.ByteSize()) > PROMPT_LIMIT_BYTES:
            faults.add("spec.text", f"the prompt has {size} bytes; at most {PROMPT_LIMIT_BYTES} can be sent")
    elif "token_ids" in given:
        with faults.at("spec.tokens.ids"):
            spec.tokens.ids.extend(given["token_ids"])
        spec.tokens.SetInParent()  # an empty list is sent, so that the server refuses it
        for index, image in enumerate(given.get("images", ())):
            with faults.at(f"spec.images[{index}]"):
                spec.images.append(media_of(_of_kind(image, Image)))
        for index, clip in enumerate(given.get("audio", ())):
            with faults.at(f"spec.audio[{index}]"):
                spec.audio.append(media_of(_of_kind(clip, Audio)))
    else:
        _set_chat(spec.chat, given, faults)


def _set_chat(chat: inference_pb2.Chat, given: GenerateOptions, faults: FieldFaults) -> None:
    chat.SetInParent()
    for index, message in enumerate(given["messages"]):
        path = f"spec.chat.messages[{index}]"
        with faults.at(path):
            turn = message if isinstance(message, ChatMessage) else ChatMessage(**message)
            if turn.content is None and not turn.tool_calls:
                raise ValueError("its content is missing")
            parts = [turn.content] if isinstance(turn.content, str) else turn.content or ()
            content = [_part(part, f"{path}.content[{place}]", faults) for place, part in enumerate(parts)]
            fields = _template_fields(turn)
            chat.messages.add(role=turn.role, name=turn.name, content=content, template_fields_json=fields)
    chat.continue_final_message = given.get("continue_final_message", False)
    if "tools" in given and "tools" in given.get("template_arguments", {}):
        faults.add("tools", "template_arguments has them, too")
    elif "template_arguments" in given or "tools" in given:
        arguments = {**given.get("template_arguments", {}), **({"tools": given["tools"]} if "tools" in given else {})}
        with faults.at("spec.chat.template_arguments_json"):
            chat.template_arguments_json = json.dumps(arguments, allow_nan=False)


def _template_fields(turn: ChatMessage) -> str:
    """Encode what templates read of a turn beside its content.  Raises ValueError for arguments that are no JSON."""
    fields: dict[str, Any] = {}
    if turn.tool_calls:
        fields["tool_calls"] = [_tool_call(call) for call in turn.tool_calls]
    if turn.tool_call_id:
        fields["tool_call_id"] = turn.tool_call_id
    return json.dumps(fields, allow_nan=False) if fields else ""


def _tool_call(call: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the call with its arguments as a mapping, which templates expect; OpenAI's clients write JSON."""
    function = call.get("function")
    if not (isinstance(function, Mapping) and isinstance(function.get("arguments"), str)):
        return call
    return {**call, "function": {**function, "arguments": json.loads(function["arguments"] or "{}")}}


def _part(part: ContentPart, path: str, faults: FieldFaults) -> inference_pb2.ContentPart:
    """Encode a part of a turn; one that is neither text nor an image or audio is recorded in ``faults``."""
    found = inference_pb2.ContentPart()
    with faults.at(path):
        if isinstance(part, str):
            found.text = part
        elif isinstance(part, Image | Audio):
            _fill_media(found, part)
        else:
            _fill_part(found, part)
    return found


def _fill_part(found: inference_pb2.ContentPart, part: Mapping[str, Any]) -> None:
    kind = part.get("type", "text" if "text" in part else "")
    if kind == "text":
        found.text = part["text"]
    elif (media := media_in_part(part)) is not None:
        _fill_media(found, media)
    else:
        raise ValueError(f"parts of type {kind!r} are not supported: text, {', '.join(MEDIA_PARTS)} are")


def _of_kind(content: object, kind: type[_MediaT]) -> _MediaT:
    """Return an image or a clip that stands beside token ids.  Raises TypeError for what is of another type."""
    if isinstance(content, kind):
        return content
    if isinstance(content, bytes):
        return kind(data=content)
    raise TypeError(f"is {type(content).__name__}, neither {kind.__name__} nor bytes")


def _fill_media(found: inference_pb2.ContentPart, media: Image | Audio) -> None:
    (found.image if isinstance(media, Image) else found.audio).CopyFrom(media_of(media))

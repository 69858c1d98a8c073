"""Bodies of /v1/chat/completions and /v1/completions as GenerationSpec."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from sage.controlplane.v1 import inference_pb2
from sage_media.urls import MEDIA_PARTS, content_of_part
from scheduler_svc.transport.openai_lines import own_options, sampling
from scheduler_svc.transport.openai_lines.members import NO_TEXT, Members, is_text
from scheduler_svc.transport.violations import Violations

CHOICES_LIMIT = 16
"""Outputs of one line: prompts times ``n``."""

COMPLETION_TOKENS = 16
"""Output tokens of a completion that does not say, as OpenAI's API has it."""


def chat(found: Mapping[str, Any], violations: Violations) -> list[inference_pb2.GenerationSpec]:
    """Return what a body of /v1/chat/completions asks for: one spec for each choice."""
    body = Members(found, violations)
    spec = inference_pb2.GenerationSpec()
    _messages(spec.chat, body)
    spec.chat.continue_final_message = bool(body.flag("continue_final_message"))
    body.allow("add_generation_prompt", not spec.chat.continue_final_message)
    arguments = body.members("chat_template_kwargs")
    if arguments:
        spec.chat.template_arguments_json = json.dumps(arguments)
    body.allow("add_special_tokens", False)
    body.allow("tools", [])
    body.allow("tool_choice", "none", "auto")
    body.drop("parallel_tool_calls")
    return _choices([_finished(spec, body, violations, None)], body, violations)


def completion(found: Mapping[str, Any], violations: Violations) -> list[inference_pb2.GenerationSpec]:
    """Return what a body of /v1/completions asks for: one spec for each choice, those of the first prompt first."""
    body = Members(found, violations)
    prompts = _prompts(body)
    shared = inference_pb2.GenerationSpec(skip_special_tokens_in_prompt=body.flag("add_special_tokens") is False)
    body.allow("best_of", 1)
    _finished(shared, body, violations, COMPLETION_TOKENS)
    specs = []
    for prompt in prompts:
        spec = inference_pb2.GenerationSpec()
        spec.CopyFrom(shared)
        if isinstance(prompt, str):
            spec.text = prompt
        else:
            spec.tokens.ids.extend(prompt)
        specs.append(spec)
    return _choices(specs, body, violations)


def _finished(
    spec: inference_pb2.GenerationSpec, body: Members, violations: Violations, default_max_tokens: int | None
) -> inference_pb2.GenerationSpec:
    """Take what all bodies that generate have in common; ``n`` stays."""
    spec.model = body.text("model")
    sampling.fill(spec.sampling, body, default_max_tokens)
    own = own_options.take(body, violations)
    own_options.fill_spec(spec, own)
    own_options.fill_shared(spec, own)
    return spec


def _choices(
    specs: Sequence[inference_pb2.GenerationSpec], body: Members, violations: Violations
) -> list[inference_pb2.GenerationSpec]:
    """Return ``n`` specs for each one; choice i of a prompt has the seed plus i."""
    n = body.integer("n")
    n = 1 if n is None else n
    body.refuse_rest()
    if not 1 <= n * len(specs) <= CHOICES_LIMIT:
        violations.add("n", f"gives {n * len(specs)} outputs; a line has 1 to {CHOICES_LIMIT}")
        return list(specs[:1])
    found = []
    for each in specs:
        for choice in range(n):
            spec = inference_pb2.GenerationSpec()
            spec.CopyFrom(each)
            if choice and spec.sampling.HasField("seed"):
                spec.sampling.seed += choice
            found.append(spec)
    return found


def _prompts(body: Members) -> list[str | list[int]]:
    """Return the prompts: a text, texts, token ids, or lists of token ids."""
    found = body.take("prompt")
    prompts = found if isinstance(found, list) and not _are_ids(found) else [found]
    if len(prompts) > CHOICES_LIMIT:  # before anything is made for each of them
        body.refuse("prompt", f"has {len(prompts)} prompts; a line has at most {CHOICES_LIMIT} outputs")
        return [""]
    texts, ids = all(isinstance(each, str) for each in prompts), all(map(_are_ids, prompts))
    if not prompts or not (texts or ids):
        body.refuse("prompt", "is neither a text, nor token ids, nor a list of them")
        return [""]
    if texts and not all(map(is_text, prompts)):
        body.refuse("prompt", NO_TEXT)
        return [""]
    return prompts


def _are_ids(found: Any) -> bool:
    return isinstance(found, list) and bool(found) and all(type(each) is int and 0 <= each < 2**32 for each in found)


def _messages(chat: inference_pb2.Chat, body: Members) -> None:
    messages = body.take("messages")
    if not isinstance(messages, list) or not messages:
        body.refuse("messages", "is not a list with at least one message")
        return
    for place, message in enumerate(messages):
        path = f"messages[{place}]"
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            body.refuse(path, "is not an object with a role")
            return
        role, name = message["role"], str(message.get("name") or "")
        for member, value in (("role", role), ("name", name)):
            if not is_text(value):
                body.refuse(f"{path}.{member}", NO_TEXT)
                return
        other = [name for name, value in message.items() if value and name not in ("role", "content", "name")]
        if other:
            body.refuse(f"{path}.{other[0][:64]}", "is not supported in a batch")
            return
        turn = chat.messages.add(role=role, name=name)
        _content(turn, message.get("content"), body, f"{path}.content")


def _content(turn: inference_pb2.ChatMessage, content: Any, body: Members, path: str) -> None:
    if isinstance(content, str):
        _text(turn, content, body, path)
        return
    if not isinstance(content, list):
        body.refuse(path, "is neither a text nor a list of parts")
        return
    for place, part in enumerate(content):
        _part(turn, part, body, f"{path}[{place}]")


def _part(turn: inference_pb2.ChatMessage, part: Any, body: Members, path: str) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    text = part.get("text") if kind in ("text", "input_text") else None
    if isinstance(text, str):
        _text(turn, text, body, path)
    elif isinstance(part, dict) and kind in MEDIA_PARTS:
        _media(turn, part, body, path)
    else:
        names = ", ".join(sorted(MEDIA_PARTS))
        body.refuse(path, f"is neither a text nor one of {names}: other parts are not supported in a batch")


def _media(turn: inference_pb2.ChatMessage, part: Mapping[str, Any], body: Members, path: str) -> None:
    try:
        kind, data, mime_type = content_of_part(part)
    except ValueError as error:
        body.refuse(path, str(error))
        return
    getattr(turn.content.add(), kind).MergeFrom(inference_pb2.Media(data=data, mime_type=mime_type))


def _text(turn: inference_pb2.ChatMessage, text: str, body: Members, path: str) -> None:
    if is_text(text):
        turn.content.add(text=text)
    else:
        body.refuse(path, NO_TEXT)

"""Prompts of GenerateRequest: conversion, and the checks that need no model."""

from __future__ import annotations

import json
from array import array
from collections.abc import Mapping, Sequence
from typing import Any

from sage.controlplane.v1 import inference_pb2
from scheduler_svc.control.requests.submission import TOKEN_ID, ChatPrompt, Prompt, TextPrompt, TokenPrompt
from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation, Mark
from scheduler_svc.transport.violations import Violations

_OWN_FIELDS = {"role", "content", "name"}
"""Of a chat message: its other fields may not stand for them."""

_MARKS = {each.value: each for each in Mark}
"""What stands for a part that is not text, by the part's name."""

IDS_AT_A_TIME = 64 * 1024
"""Token ids converted in one go, about a millisecond: another thread can run in between."""


def prompt(spec: inference_pb2.GenerationSpec, violations: Violations) -> Prompt | None:
    """Convert the prompt, whose size ``request_limits`` has checked, or return None if it is at fault."""
    before = len(violations)
    kind = spec.WhichOneof("prompt")
    converted: Prompt | None = None
    if kind == "text":
        if not spec.text:
            violations.add("spec.text", "is empty")
        converted = TextPrompt(text=spec.text, special_tokens=not spec.skip_special_tokens_in_prompt)
    elif kind == "tokens":
        if not spec.tokens.ids:
            violations.add("spec.tokens.ids", "is empty")
        converted = _token_prompt(spec.tokens.ids)
    elif kind == "chat":
        converted = _chat(spec.chat, violations)
    else:
        violations.add("spec.prompt", "give one of text, tokens, chat")
    return converted if len(violations) == before else None


def input_prompt(each: inference_pb2.EmbedInput, field: str, violations: Violations) -> Prompt | None:
    """Convert an input of EmbedRequest, or return None if it is at fault."""
    kind = each.WhichOneof("input")
    if kind == "text" and each.text:
        return TextPrompt(text=each.text)
    if kind == "tokens" and each.tokens.ids:
        return _token_prompt(each.tokens.ids)
    violations.add(field, "is empty" if kind else "give one of text, tokens")
    return None


def _token_prompt(ids: Sequence[int]) -> TokenPrompt:
    """Copy token ids into an array, which takes four bytes for each; a list takes eight or thirty-six."""
    found, largest = array(TOKEN_ID), 0
    for start in range(0, len(ids), IDS_AT_A_TIME):
        some = ids[start : start + IDS_AT_A_TIME]
        found.extend(some)
        largest = max(largest, *some)
    return TokenPrompt(token_ids=found, largest=largest)


def _chat(chat: inference_pb2.Chat, violations: Violations) -> ChatPrompt:
    if not chat.messages:
        violations.add("spec.chat.messages", "is empty")
    turns = [_turn(message, f"spec.chat.messages[{index}]", violations) for index, message in enumerate(chat.messages)]
    return ChatPrompt(
        conversation=Conversation(
            turns=turns,
            continue_final_message=chat.continue_final_message,
            template_arguments=_object(chat.template_arguments_json, "spec.chat.template_arguments_json", violations),
        )
    )


def _turn(message: inference_pb2.ChatMessage, path: str, violations: Violations) -> ChatTurn:
    if not message.role:
        violations.add(f"{path}.role", "is empty")
    content: list[str | Mark] = []
    for index, part in enumerate(message.content):
        kind = part.WhichOneof("part")
        if kind == "text":
            content.append(part.text)
        elif kind in _MARKS:
            content.append(_MARKS[kind])
        else:
            what = f"{kind} input is not supported" if kind else "is empty"
            violations.add(f"{path}.content[{index}]", what)
    texts = [each for each in content if isinstance(each, str)]
    parts = tuple(content) if len(content) > 1 or len(texts) < len(content) else ()
    fields = _object(message.template_fields_json, f"{path}.template_fields_json", violations)
    if taken := sorted(fields.keys() & _OWN_FIELDS):
        violations.add(f"{path}.template_fields_json", f"has {', '.join(taken)}, for which there are fields")
    return ChatTurn(role=message.role, text="\n".join(texts), name=message.name, parts=parts, fields=fields)


def _object(source: str, field: str, violations: Violations) -> Mapping[str, Any]:
    """Read a JSON object; empty for an empty text, and for one that is at fault."""
    if not source:
        return {}
    try:
        found = json.loads(source)
    except (ValueError, RecursionError) as error:
        violations.add(field, f"is not JSON: {error}")
        return {}
    if not isinstance(found, dict):
        violations.add(field, "is not a JSON object")
        return {}
    return found

"""Prompts of GenerateRequest: conversion, and the checks that need no model."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from sage.controlplane.v1 import inference_pb2
from sage_wire.protocol import PROMPT_LIMIT_BYTES
from scheduler_svc.control.requests.submission import ChatPrompt, Prompt, TextPrompt, TokenPrompt
from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation
from scheduler_svc.transport.violations import Violations

PROMPT_LIMIT_TOKENS = 2 * 1024 * 1024
"""Token ids of a prompt.  Converting this many takes the event loop a third of a second."""


def prompt(spec: inference_pb2.GenerationSpec, violations: Violations) -> Prompt | None:
    """Convert the prompt, or return None if it is at fault.

    Sizes are bounded here, before anything is tokenized: texts by PROMPT_LIMIT_BYTES, ids by PROMPT_LIMIT_TOKENS.
    """
    before = len(violations)
    kind = spec.WhichOneof("prompt")
    converted: Prompt | None = None
    if kind == "text":
        _check_text(spec.text, "spec.text", violations)
        converted = TextPrompt(text=spec.text, special_tokens=not spec.skip_special_tokens_in_prompt)
    elif kind == "tokens":
        count = len(spec.tokens.ids)
        if not count:
            violations.add("spec.tokens.ids", "is empty")
        elif count > PROMPT_LIMIT_TOKENS:
            violations.add("spec.tokens.ids", f"has {count} tokens; the limit is {PROMPT_LIMIT_TOKENS}")
        else:
            converted = TokenPrompt(token_ids=list(spec.tokens.ids))
    elif kind == "chat":
        converted = _chat(spec.chat, violations)
    else:
        violations.add("spec.prompt", "give one of text, tokens, chat")
    return converted if len(violations) == before else None


def _check_text(text: str, field: str, violations: Violations) -> None:
    if not text:
        violations.add(field, "is empty")
        return
    size = len(text.encode(errors="replace"))
    if size > PROMPT_LIMIT_BYTES:
        violations.add(field, f"has {size} bytes; the limit is {PROMPT_LIMIT_BYTES}")


def _chat(chat: inference_pb2.Chat, violations: Violations) -> ChatPrompt:
    if not chat.messages:
        violations.add("spec.chat.messages", "is empty")
    turns, size = [], 0
    for index, message in enumerate(chat.messages):
        turn = _turn(message, f"spec.chat.messages[{index}]", violations)
        turns.append(turn)
        size += len(turn.text.encode(errors="replace"))
    if size > PROMPT_LIMIT_BYTES:
        violations.add("spec.chat.messages", f"have {size} bytes; the limit is {PROMPT_LIMIT_BYTES}")
    return ChatPrompt(
        conversation=Conversation(
            turns=turns,
            continue_final_message=chat.continue_final_message,
            template_arguments=_template_arguments(chat.template_arguments_json, violations),
        )
    )


def _turn(message: inference_pb2.ChatMessage, path: str, violations: Violations) -> ChatTurn:
    if not message.role:
        violations.add(f"{path}.role", "is empty")
    texts = []
    for index, part in enumerate(message.content):
        kind = part.WhichOneof("part")
        if kind == "text":
            texts.append(part.text)
        else:
            what = f"{kind} input is not supported" if kind else "is empty"
            violations.add(f"{path}.content[{index}]", what)
    parts = tuple(texts) if len(texts) > 1 else ()
    return ChatTurn(role=message.role, text="\n".join(texts), name=message.name, parts=parts)


def _template_arguments(source: str, violations: Violations) -> Mapping[str, Any]:
    if not source:
        return {}
    try:
        arguments = json.loads(source)
    except (ValueError, RecursionError) as error:
        violations.add("spec.chat.template_arguments_json", f"is not JSON: {error}")
        return {}
    if not isinstance(arguments, dict):
        violations.add("spec.chat.template_arguments_json", "is not a JSON object")
        return {}
    return arguments

"""A model's chat template: the Jinja dialect that Hugging Face tokenizers carry, in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scheduler_svc.control.tokenizers import Conversation, PromptError


class _TemplateRefusal(Exception):
    """The template itself called raise_exception."""


class ChatTemplate:
    """Renders a conversation to the prompt text the model was trained on."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Raises ValueError if ``source`` is no template."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ValueError(f"not a chat template: {error}") from error
        self._special_tokens = dict(special_tokens)

    def render(self, conversation: Conversation) -> str:
        """Raises PromptError where the template refuses the conversation."""
        messages: list[dict[str, Any]] = []
        for turn in conversation.turns:
            message: dict[str, Any] = {"role": turn.role, "content": turn.text}
            if turn.name:
                message["name"] = turn.name
            messages.append(message)
        variables = {**self._special_tokens, **conversation.template_arguments}
        variables["messages"] = messages
        variables["add_generation_prompt"] = not conversation.continue_final_message
        try:
            text = self._template.render(variables)
        except (jinja2.TemplateError, _TemplateRefusal, TypeError, ValueError, KeyError) as error:
            raise PromptError(f"the model's chat template refuses it: {error}") from error
        return _cut_after_last(text, messages) if conversation.continue_final_message else text


def _cut_after_last(text: str, messages: list[dict[str, Any]]) -> str:
    """Leave the last message open: what the template closes it with is cut off."""
    last = str(messages[-1]["content"]).strip()
    at = text.rfind(last)
    if not last or at < 0:
        raise PromptError("the final message cannot be continued: the template does not show it as it is")
    return text[: at + len(last)]


def _tojson(value: Any, ensure_ascii: bool = False, indent: int | None = None) -> str:
    # Jinja's own filter escapes HTML, which models were not trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


def _raise_exception(message: str) -> None:
    raise _TemplateRefusal(message)

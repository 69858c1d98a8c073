"""A model's chat template: the Jinja dialect of Hugging Face tokenizers, run in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scheduler_svc.control.requests.tokenizers import Conversation, PromptError

LEFT_OPEN = "<<here the final message goes on>> "
"""A mark behind the message that is to be continued, which shows where that message ends in the rendered text.

The mark ends with a space, which shows whether the template keeps spaces at the end of a message.
"""


class _TemplateRefusal(Exception):
    """The template called ``raise_exception``."""


class _GenerationBlocks(jinja2.ext.Extension):
    """Reads ``{% generation %}`` blocks as their content.

    The tag marks the model's own words for training; it has no effect on a prompt.
    """

    tags = {"generation"}  # noqa: RUF012 - as the base class has it

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class ChatTemplate:
    """Renders a conversation to the prompt text that the model was trained on."""

    def __init__(self, source: str, special_tokens: Mapping[str, str]) -> None:
        """Compile the template.  Raises ValueError if ``source`` is not a Jinja template."""
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols, _GenerationBlocks]
        )
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ValueError(f"not a chat template: {error}") from error
        self._special_tokens = dict(special_tokens)

    def render(self, conversation: Conversation) -> str:
        """Return the prompt text.  Raises PromptError if the template refuses the conversation."""
        messages: list[dict[str, Any]] = []
        for turn in conversation.turns:
            message: dict[str, Any] = {"role": turn.role, "content": turn.text}
            if turn.name:
                message["name"] = turn.name
            messages.append(message)
        variables = {**self._special_tokens, **conversation.template_arguments}
        if conversation.continue_final_message:
            if not messages or not messages[-1]["content"].strip():
                raise PromptError("the final message cannot be continued: it is empty")
            messages[-1]["content"] += LEFT_OPEN
        variables["messages"] = messages
        variables["add_generation_prompt"] = not conversation.continue_final_message
        try:
            text = self._template.render(variables)
        except Exception as error:  # the template is the model author's program and may fail in any way
            raise PromptError(f"the model's chat template refuses the conversation: {error}") from error
        return _cut_open(text) if conversation.continue_final_message else text


def _cut_open(text: str) -> str:
    """Cut off what the template closes the last message with, so that the model continues that message."""
    at = text.rfind(LEFT_OPEN.rstrip())
    if at < 0:
        raise PromptError("the final message cannot be continued: the chat template changes it")
    return text[:at] if text.startswith(LEFT_OPEN, at) else text[:at].rstrip()


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML, which models were not trained on.
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _strftime_now(layout: str) -> str:
    return datetime.now().strftime(layout)


def _raise_exception(message: str) -> None:
    raise _TemplateRefusal(message)

"""A model's chat template: the Jinja dialect of Hugging Face tokenizers, run in a sandbox."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from scheduler_svc.control.requests.tokenizers import ChatTurn, Conversation, Mark, PromptError
from scheduler_svc.tokenization.content_shape import ContentShape, content_shape

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
            self._shape = content_shape(environment.parse(source))
            self._template = environment.from_string(source)
        except jinja2.TemplateError as error:
            raise ValueError(f"not a chat template: {error}") from error
        self._special_tokens = dict(special_tokens)

    def render(self, conversation: Conversation) -> str:
        """Return the prompt text.

        Raises PromptError if the template refuses the conversation, or drops what the user says last or what is to be
        continued.
        """
        for shape in (self._shape, ContentShape.PARTS):
            text = self._render(conversation, conversation.turns, shape)
            if conversation.continue_final_message:
                return _cut_open(text, conversation.turns[-1].texts[-1])
            if not self._drops_user(conversation, text, shape):
                return text
        raise PromptError("the model's chat template leaves out what the user says")

    def _render(self, conversation: Conversation, turns: Sequence[ChatTurn], shape: ContentShape) -> str:
        variables = {**self._special_tokens, **conversation.template_arguments}
        variables["messages"] = [_message(turn, shape) for turn in _left_open(conversation, turns)]
        variables["add_generation_prompt"] = not conversation.continue_final_message
        try:
            return self._template.render(variables)
        except Exception as error:  # the template is the model author's program and may fail in any way
            raise PromptError(f"the model's chat template refuses the conversation: {error}") from error

    def _drops_user(self, conversation: Conversation, text: str, shape: ContentShape) -> bool:
        """Return whether the prompt is the same whatever the user says last."""
        turns = list(conversation.turns)
        last = next((index for index in reversed(range(len(turns))) if turns[index].role == "user"), None)
        if last is None or not turns[last].text.strip() or turns[last].texts[-1].strip() in text:
            return False
        marks = tuple(each for each in turns[last].parts if isinstance(each, Mark))
        turns[last] = replace(turns[last], text=LEFT_OPEN, parts=(*marks, LEFT_OPEN) if marks else ())
        return self._render(conversation, turns, shape) == text


def _message(turn: ChatTurn, shape: ContentShape) -> dict[str, Any]:
    content: Any = turn.text
    only_text = not any(isinstance(each, Mark) for each in turn.parts)
    if shape is ContentShape.PARTS and not (turn.role == "tool" and only_text):  # as in vLLM: few take parts of tools
        content = [_part(each) for each in turn.content]
    name = {"name": turn.name} if turn.name else {}
    return {**turn.fields, "role": turn.role, "content": content, **name}


def _part(part: str | Mark) -> dict[str, str]:
    return {"type": part.value} if isinstance(part, Mark) else {"type": "text", "text": part}


def _left_open(conversation: Conversation, turns: Sequence[ChatTurn]) -> Sequence[ChatTurn]:
    """Return the turns; the last one ends with a mark if it is to be continued.  Raises PromptError if it is empty."""
    if not conversation.continue_final_message:
        return turns
    if not turns or not turns[-1].texts[-1].strip():
        raise PromptError("the final message cannot be continued: it is empty")
    last = turns[-1]
    ends = last.content[-1]
    if isinstance(ends, Mark):
        raise PromptError(f"the final message cannot be continued: it ends with an {ends.value} part")
    parts = (*last.parts[:-1], ends + LEFT_OPEN) if last.parts else ()
    return [*turns[:-1], replace(last, text=last.text + LEFT_OPEN, parts=parts)]


def _cut_open(text: str, continued: str) -> str:
    """Cut off what the template closes the last message with, so that the model continues that message.

    Raises PromptError, as transformers does, if the template leaves out or changes a part of the message.
    """
    at = text.rfind(LEFT_OPEN.rstrip())
    if at < 0 or continued.strip() not in text:
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

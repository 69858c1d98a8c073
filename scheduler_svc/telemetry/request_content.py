"""The text of a prompt as messages, for the request's span; used only with ``telemetry.content``."""

from __future__ import annotations

from collections.abc import Iterable

from scheduler_svc.control.requests.submission import ChatPrompt, Prompt, TextPrompt

CONTENT_LIMIT = 16_384
"""Characters kept of a prompt, and of an output.  What is longer is cut off before the span is queued."""

ROLE_LIMIT = 64  # characters kept of a role

Message = tuple[str, str]
"""Role and text."""


def messages(prompt: Prompt) -> list[Message]:
    """Return the first CONTENT_LIMIT characters of all messages together; roles count as well."""
    found, left = [], CONTENT_LIMIT
    for role, text in _each(prompt):
        if left <= 0:
            break
        found.append((role[:ROLE_LIMIT], text[:left]))
        left -= max(1, len(text)) + len(role)  # an empty message counts as one character, which bounds their number
    return found


def _each(prompt: Prompt) -> Iterable[Message]:
    if isinstance(prompt, TextPrompt):
        return [("user", prompt.text)]
    if isinstance(prompt, ChatPrompt):
        return ((turn.role, turn.text) for turn in prompt.conversation.turns)
    return [("user", " ".join(map(str, prompt.token_ids[:CONTENT_LIMIT])))]

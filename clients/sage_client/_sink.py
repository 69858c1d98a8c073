"""What receives a request's events by callbacks: the low-level interface of the SDK."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from sage_client._errors import SageError
from sage_client._events import Accepted, ChoiceFinished, Finished, PromptRead, Scheduled, TokenLogprob


class Sink(Protocol):
    """Receives what happens to one request, on the client's event loop.

    Every method must return quickly: it delays the output of all other requests.  What it raises ends its own request,
    which the client then leaves, and goes to the event loop's exception handler.  A sink that cannot take more output
    pauses its call (``Call.pause``).  After ``finished`` or ``failed``, and after ``Call.leave``, nothing is called.
    ``prompt_read`` and ``choice_finished`` may be missing.
    """

    def accepted(self, event: Accepted, /) -> None:
        """Take the acceptance, which comes once and first."""

    def scheduled(self, event: Scheduled, /) -> None:
        """Take a placement; the output that follows is of it."""

    def prompt_read(self, event: PromptRead, /) -> None:
        """Take what the engine told of the prompt, if there is something to tell; before the first output."""

    def tokens(
        self,
        choice: int,
        first_index: int,
        token_ids: list[int],
        text_offset: int,
        text: str,
        logprobs: Sequence[tuple[TokenLogprob, ...]],
        /,
    ) -> None:
        """Take output, each token once and in order.

        Args:
            choice: index of the output.
            first_index: output position of ``token_ids[0]``.
            token_ids: the new tokens, which the sink may keep and change; empty where text follows its tokens.
            text_offset: position of ``text`` in the whole output text, in Unicode code points.
            text: may be behind the tokens while a character or a stop string is incomplete.
            logprobs: one entry per token if the request asked for them, else empty.
        """

    def choice_finished(self, event: ChoiceFinished, /) -> None:
        """Take the end of one choice of several; ``finished`` comes after the last of them."""

    def finished(self, event: Finished, /) -> None:
        """Take the end of a request that ended by itself."""

    def failed(self, error: SageError, /) -> None:
        """Take the end of a request that was refused or ended otherwise."""

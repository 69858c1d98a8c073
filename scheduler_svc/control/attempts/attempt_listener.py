"""The port through which the attempt table reports what happens to an attempt."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from scheduler_svc.control.requests.live_request import LiveRequest
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.control.requests.prompt_facts import PromptFacts
from scheduler_svc.domain.attempt_end import AttemptEnd


@dataclass(frozen=True, kw_only=True, slots=True)
class Loss:
    """Why nothing more will come of an attempt whose executor did not report its end."""

    why: str  # in words
    cause: FailoverCause
    counted: bool  # the attempt was not fenced: its request still needs it
    capacity_is_free: bool  # False while the instance may still hold it
    blames_instance: bool  # the request should go elsewhere
    engine_died: bool = False  # its executor reported that the engine is dead


class AttemptListener(Protocol):
    """Is told everything that happens to one attempt, in order.

    ``rejected``, ``ended`` or a ``lost`` that frees the capacity is the last call.  ``counted`` is false once the
    attempt is fenced: then only its capacity matters.
    """

    @property
    def position(self) -> int:
        """Count the output tokens that arrived: after a reconnect the executor sends from here on."""
        ...

    @property
    def published(self) -> int:
        """Count the output tokens that readers may have: a next scheduler asks for none before them."""
        ...

    def accepted(self) -> bool:
        """Note that the executor has the attempt; return False if it is too late and the attempt is given up."""
        ...

    def token(self, first_index: int, token_id: int, text: str, now: float) -> None:
        """Take one new token without log probabilities; ``now`` is the control clock's.

        Does what ``tokens`` does.  The hot path: nearly every token comes here.
        """
        ...

    def tokens(
        self,
        first_index: int,
        token_ids: Sequence[int],
        text: str,
        logprobs: Sequence[bytes] | None,
        kv_recomputed: bool,
    ) -> None:
        """Take new output.  Called once per message of output, never after the attempt was fenced.

        ``first_index`` is the output position of ``token_ids[0]``.  ``logprobs`` holds one message per token.
        ``kv_recomputed`` says that a decode leg computed the prompt itself, because its KV could not be fetched.
        """
        ...

    def prompt(self, facts: PromptFacts) -> None:
        """Take what the engine tells of the prompt; it comes before the first token or in the same message."""
        ...

    def rejected(self, reason: str, message: str, *, counted: bool) -> None:
        """Note that the executor did not start the attempt; nothing of it is left there."""
        ...

    def ended(self, end: AttemptEnd, *, counted: bool) -> LiveRequest | None:
        """Note that the attempt is over; return the request whose output and end the executor is to keep, if any."""
        ...

    def lost(self, loss: Loss) -> None:
        """Note that the attempt will give nothing more: its instance is lost or stalls, or it never arrived."""
        ...

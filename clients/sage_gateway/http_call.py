"""One HTTP request while it is answered: who asks and for what, and what became of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from sage_client import Accepted, Finished, SageError, Scheduled
from sage_gateway.conversation_media import Media
from sage_gateway.request_options import RequestOptions


async def _not_begun(body: bytes) -> None:
    raise RuntimeError("there is no answer to write to")


@dataclass(kw_only=True, slots=True)
class HttpCall:
    """What the front door knows of an HTTP request, and what the engine client finds out about it."""

    token: str = ""  # the caller's bearer token; empty: none
    options: RequestOptions = field(default_factory=RequestOptions)
    media: Sequence[Media] = ()  # of the conversation, in its order
    trace: Mapping[str, str] = field(default_factory=dict)  # headers of the W3C trace context
    request_ids: list[str] = field(default_factory=list)  # of its requests at the scheduler
    accepted: Accepted | None = None  # the first acceptance
    scheduled: Scheduled | None = None  # the latest placement
    finished: list[Finished] = field(default_factory=list)  # ends of its requests, as they come
    cost: float = 0.0  # of what has ended, in the currency of the instances' prices
    error: SageError | None = None  # why it failed, if it did
    asked: list[Any] = field(default_factory=list)  # what vLLM's server asked the engine for, the first ones
    write: Callable[[bytes], Awaitable[None]] = _not_begun  # writes on in the body of an answer that has begun

    def note_end(self, finished: Finished) -> None:
        """Note the end of one of its requests."""
        self.finished.append(finished)
        self.cost += finished.cost

    def next_request_id(self, proposed: str) -> str:
        """Return the id of the call's next request at the scheduler, and note it.

        ``proposed``: used where the caller gave none.
        """
        given = self.options.request_id
        made = proposed
        if given:
            made = f"{given}-{len(self.request_ids)}" if self.request_ids else given
        self.request_ids.append(made)
        return made


CURRENT: ContextVar[HttpCall] = ContextVar("sage_http_call")
"""The request that the running task answers."""


def current_call() -> HttpCall:
    """Return the request that is being answered; an empty one outside of any."""
    return CURRENT.get(None) or HttpCall()

"""Requests as the scheduler knows them, and what it keeps of detached ones."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from sage_client._enums import Priority, RequestState
from sage_client._events import Finished, TokenLogprob, Usage
from sage_client._plain import Plain


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestInfo(Plain):
    """A request as the scheduler knows it."""

    request_id: str
    tenant: str
    model: str
    priority: Priority
    state: RequestState
    error: str  # why it did not finish; empty if it did, or has not ended
    usage: Usage  # so far
    accepted_at: datetime
    ended_at: datetime | None  # None: it has not ended
    keep_until: datetime | None  # of detached work that ended: when its result is deleted
    detached: bool
    tags: Mapping[str, str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Result(Plain):
    """What detached work generated until its end; of several choices that of choice 0, with ``choices``."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[tuple[TokenLogprob, ...], ...]  # one per token if requested
    finished: Finished | None  # None: it ended otherwise; ``RequestInfo.error`` says why
    choices: tuple[Result, ...] = ()  # of several choices: the others, from index 1 on


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestStatus(Plain):
    """A request, and its result if it is detached and has ended."""

    request: RequestInfo
    result: Result | None  # None also where it is too large for one message
    result_in_pieces: bool  # the result is too large for one message: read it with ``attach``

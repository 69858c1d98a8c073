"""A request in its model's queue."""

from __future__ import annotations

from math import inf

from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.prediction.pace import Pace
from scheduler_svc.domain.request import Request


class WaitingRequest:
    """A request that waits, with the figures by which it is ordered."""

    __slots__ = (
        "alone",
        "emitted_tokens",
        "enqueued_at",
        "excluded",
        "finish_s",
        "first_token_s",
        "identity",
        "key",
        "late",
        "looked_at",
        "number",
        "output_tokens",
        "pace",
        "plain",
        "prompt_tokens",
        "request",
        "resumed",
        "revisions",
        "total_tokens",
        "unserved_since",
        "waits_for",
        "waits_since",
        "whole",
    )

    def __init__(
        self,
        request: Request,
        *,
        enqueued_at: float,
        emitted_tokens: int,
        excluded: frozenset[str],
        resumed: bool,
        output_tokens: int,
        pace: Pace,
        whole: bool = False,
        alone: bool = False,
        identity: ModelIdentity | None = None,
    ) -> None:
        self.request = request
        self.enqueued_at = enqueued_at
        self.emitted_tokens = emitted_tokens
        self.excluded = excluded  # instances to avoid if another one can serve it
        self.resumed = resumed
        self.whole = whole  # not split again, because its handoff failed
        self.alone = alone  # quarantined: placed on an instance that runs nothing else
        self.identity = identity  # of the model that began its output
        self.plain = identity is None and request.plain  # whether any engine that generates serves it
        self.unserved_since: float | None = None  # when it was set aside first; None if a READY instance can serve it
        self.waits_since: float | None = None  # when it first waited for a faster instance, beside one with capacity
        self.waits_for = ""  # why its policy had it wait when it was next; empty: no instance had capacity
        self.looked_at = -inf  # when it was looked at last because those before it were held back
        self.output_tokens = output_tokens  # predicted when it was enqueued
        self.pace = pace  # typical of the model's instances
        # Predicted seconds on the instance that is best for it, with margin; None until a placement was tried.
        self.first_token_s: float | None = None
        self.finish_s: float | None = None
        self.prompt_tokens = request.prompt_tokens + emitted_tokens  # to prefill
        self.total_tokens = request.total_tokens  # prompt and all that max_tokens allows
        self.key = 0.0  # what it is ordered by
        self.number = 0  # breaks ties; negative once it has left
        self.late = False  # its target can no longer be met
        self.revisions = 0  # how often its key was revised

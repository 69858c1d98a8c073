"""One request of a trace: when it came, how long it is, and what the caller stated."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.domain.request import Priority


@dataclass(frozen=True, kw_only=True, slots=True)
class TracedRequest:
    """One request of a trace."""

    arrival_s: float  # seconds since the trace began, ascending
    prompt_tokens: int  # >= 1
    output_tokens: int  # >= 1, what the request really generates; the scheduler never sees it
    block_hashes: tuple[int, ...] = ()  # of the prompt's KV blocks, each over its whole prefix; (): nothing shared
    block_tokens: int = 512  # tokens that each hash stands for
    max_tokens: int | None = None  # what the caller states; None: a default of the run
    priority: Priority = Priority.NORMAL
    ttft_target_s: float | None = None
    tpot_target_s: float | None = None
    deadline_s: float | None = None
    tenant: str = "default"
    session: str = ""
    model: str = "model"
    cancel_after_s: float | None = None  # from its arrival until its client cancels it, unless it has ended

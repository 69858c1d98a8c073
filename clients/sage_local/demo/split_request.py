"""Runs one request and records whether it was split, why, and when its tokens arrived."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import sage_client as sage

DEADLINE_S = 120.0


@dataclass(slots=True, kw_only=True)
class SplitRequest:
    """The outcome of one request of the prefill/decode demonstration."""

    kind: str  # "long", "short", ...
    max_tokens: int  # output tokens requested; the end of the sequence is ignored
    prompt_tokens: int = 0
    decision: sage.Decision | None = None  # its first placement
    timings: sage.Timings | None = None
    attempts: int = 0
    gaps: list[float] = field(default_factory=list)  # seconds between two messages with tokens
    tokens: int = 0  # output tokens that arrived
    error: str = ""  # why the request failed or how many tokens are missing; empty if neither

    @property
    def split(self) -> bool:
        """Whether prefill and decode ran on different instances."""
        return self.decision is not None and bool(self.decision.prefill_instance_id)

    @property
    def why(self) -> str:
        """Why the request was split or not, and what prevented a split that was wanted."""
        if self.decision is None:
            return ""
        instead = [reason for reason in self.decision.reasons if "should be split" in reason]
        return "; ".join([self.decision.phase_reason, *instead])

    @property
    def ttft_s(self) -> float | None:
        """Seconds from acceptance to the first token."""
        return self.timings.time_to_first_token_s if self.timings is not None else None


async def run_request(client: sage.AsyncClient, kind: str, prompt: str, max_tokens: int) -> SplitRequest:
    """Send a request and read its stream to the end; errors of the server go into the result."""
    seen = SplitRequest(kind=kind, max_tokens=max_tokens)
    stream = client.generate(prompt, max_tokens=max_tokens, ignore_eos=True, temperature=0.0, deadline=DEADLINE_S)
    last: float | None = None
    try:
        async for event in stream:
            if isinstance(event, sage.Scheduled):
                seen.decision = seen.decision or event.decision
            elif isinstance(event, sage.Tokens):
                now = time.perf_counter()
                if last is not None:
                    seen.gaps.append(now - last)
                last = now
                seen.tokens += len(event.token_ids)
        done = await stream.result()
    except sage.SageError as error:
        seen.error = str(error)
        return seen
    seen.prompt_tokens, seen.timings, seen.attempts = done.usage.prompt_tokens, done.timings, done.attempts
    if seen.tokens != max_tokens:
        seen.error = f"{max_tokens} tokens requested, {seen.tokens} arrived"
    return seen

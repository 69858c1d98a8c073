"""One request, as its reader sees it: whether it was split and why, and when its tokens came."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import sage_client as sage

DEADLINE_S = 120.0


@dataclass(slots=True, kw_only=True)
class SplitRequest:
    """Times are seconds."""

    kind: str  # "long", "short", ...
    max_tokens: int  # asked for, and none fewer: the end of the sequence is ignored
    prompt_tokens: int = 0
    decision: sage.Decision | None = None  # of its first placement
    timings: sage.Timings | None = None
    attempts: int = 0
    gaps: list[float] = field(default_factory=list)  # between two messages that carry tokens
    tokens: int = 0
    error: str = ""  # why it failed, or what is wrong with what came; empty if all is well

    @property
    def split(self) -> bool:
        return self.decision is not None and bool(self.decision.prefill_instance_id)

    @property
    def why(self) -> str:
        """Why it was split or not; also why not where it should have been."""
        if self.decision is None:
            return ""
        instead = [reason for reason in self.decision.reasons if "should be split" in reason]
        return "; ".join([self.decision.phase_reason, *instead])

    @property
    def ttft_s(self) -> float | None:
        return self.timings.time_to_first_token_s if self.timings is not None else None


async def run_request(client: sage.AsyncClient, kind: str, prompt: str, max_tokens: int) -> SplitRequest:
    """Reads the stream to its end.  Never raises for what the server says."""
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
        seen.error = f"{max_tokens} tokens were asked for, {seen.tokens} arrived"
    return seen

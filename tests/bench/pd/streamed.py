"""One request as its reader sees it: when its tokens came."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sage_client import AsyncClient, Scheduled, Tokens

REQUEST_TIMEOUT_S = 240.0


@dataclass(slots=True)
class Streamed:
    began: float  # this process's monotonic clock, seconds; so is every other time
    first: float = 0.0
    ended: float = 0.0
    split: bool = False
    why: str = ""  # it was split, or was not
    gaps: list[float] = field(default_factory=list)  # seconds between two messages that carry tokens
    token_ids: list[int] = field(default_factory=list)

    @property
    def first_token_s(self) -> float:
        return self.first - self.began


async def stream(client: AsyncClient, prompt: list[int], max_tokens: int) -> Streamed:
    """Greedy, and never ended by the model itself."""
    seen = Streamed(began=time.perf_counter())
    last = 0.0
    async for event in client.generate(
        token_ids=prompt, max_tokens=max_tokens, ignore_eos=True, temperature=0.0, timeout=REQUEST_TIMEOUT_S
    ):
        if isinstance(event, Scheduled):
            seen.split = bool(event.decision.prefill_instance_id)
            seen.why = event.decision.phase_reason
        elif isinstance(event, Tokens):
            now = time.perf_counter()
            if last:
                seen.gaps.append(now - last)
            else:
                seen.first = now
            last = now
            seen.token_ids.extend(event.token_ids)
    seen.ended = time.perf_counter()
    if len(seen.token_ids) != max_tokens:
        raise RuntimeError(f"{len(seen.token_ids)} tokens arrived of {max_tokens}")
    return seen

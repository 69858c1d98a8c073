"""A stream of as many tokens as were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage_client import AsyncClient, Completion
from tests.support.counted_stream import CountedStream

TOKENS = 48  # of an answer where nothing has to last


class CheckedStream(CountedStream):
    def __init__(self, client: AsyncClient, prompt: Sequence[int], *, max_tokens: int = TOKENS, **options: Any) -> None:
        super().__init__(
            client.generate(token_ids=prompt, temperature=0, max_tokens=max_tokens, ignore_eos=True, **options)
        )
        self.prompt = tuple(prompt)
        self.max_tokens = max_tokens

    async def complete(self) -> Completion:
        """Raises AssertionError where a position is missing, comes twice or is one too many."""
        done = await super().complete()
        assert len(done.token_ids) == self.max_tokens, self.stream.request_id
        return done

"""One client's stream: what it gave, and that no position was lost or doubled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sage_client import Accepted, AsyncClient, AsyncStream, Completion, Tokens

TOKENS = 48  # of an answer where nothing has to last


class CheckedStream:
    def __init__(self, client: AsyncClient, prompt: Sequence[int], *, max_tokens: int = TOKENS, **options: Any) -> None:
        self.prompt = tuple(prompt)
        self.max_tokens = max_tokens
        self._indexes: list[int] = []
        self.stream: AsyncStream = client.generate(
            token_ids=prompt, temperature=0, max_tokens=max_tokens, ignore_eos=True, **options
        )

    async def accepted(self) -> None:
        """The first event: from here on the scheduler knows it."""
        assert isinstance(await anext(self.stream), Accepted)

    async def until_token(self, index: int) -> None:
        while self.stream.next_token <= index:
            self._see(await anext(self.stream))

    def _see(self, event: object) -> None:
        if isinstance(event, Tokens):
            self._indexes += range(event.first_index, event.first_index + len(event.token_ids))

    async def complete(self) -> Completion:
        """Read it to its end.  Raises AssertionError where a position is missing or comes twice."""
        async for event in self.stream:
            self._see(event)
        done = await self.stream.result()
        assert self._indexes == list(range(self.max_tokens)), f"{self.stream.request_id}: positions {self._indexes}"
        return done

"""One client's stream: what it gave, and that no position was lost or doubled."""

from __future__ import annotations

from sage_client import Accepted, AsyncStream, Completion, Tokens


class CountedStream:
    def __init__(self, stream: AsyncStream) -> None:
        self.stream = stream
        self._indexes: list[int] = []

    async def accepted(self) -> None:
        """The first event: from here on the scheduler knows it."""
        assert isinstance(await anext(self.stream), Accepted)

    async def until_token(self, index: int) -> None:
        while self.stream.next_token <= index:
            self._see(await anext(self.stream))

    async def complete(self) -> Completion:
        """Read it to its end.  Raises AssertionError where a position is missing or comes twice."""
        async for event in self.stream:
            self._see(event)
        done = await self.stream.result()
        wanted = list(range(len(done.token_ids)))
        assert self._indexes == wanted, f"{self.stream.request_id}: positions {self._indexes}"
        return done

    def _see(self, event: object) -> None:
        if isinstance(event, Tokens):
            self._indexes += range(event.first_index, event.first_index + len(event.token_ids))

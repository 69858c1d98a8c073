"""Many streams at once, each held against what vLLM itself answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sage_client import AsyncClient, AsyncStream, Completion, Tokens
from tests.support.token_check import assert_tokens
from tests.vllm.system.cases import Case, Reference


class CheckedStream:
    def __init__(self, client: AsyncClient, name: str, case: Case, wanted: Reference, *, max_tokens: int) -> None:
        self._name = name
        self._wanted = wanted
        self._max_tokens = max_tokens
        self._indexes: list[int] = []
        self.stream: AsyncStream = client.generate(case.prompt, **{**case.options(), "max_tokens": max_tokens})

    async def until_token(self, index: int) -> None:
        while self.stream.next_token <= index:
            self._see(await anext(self.stream))

    def _see(self, event: object) -> None:
        if isinstance(event, Tokens):
            self._indexes += range(event.first_index, event.first_index + len(event.token_ids))

    async def complete(self) -> Completion:
        """Read it to its end.  Raises AssertionError where a token is lost, doubled or changed."""
        async for event in self.stream:
            self._see(event)
        done = await self.stream.result()
        assert self._indexes == list(range(len(done.token_ids))), f"{self._name}: positions {self._indexes}"
        assert_tokens(done.token_ids, self._wanted.token_ids[: self._max_tokens], self._name)
        assert self._wanted.text.startswith(done.text), self._name
        return done


async def complete_all(
    client: AsyncClient, cases: Mapping[str, Case], references: Mapping[str, Reference], *, max_tokens: int
) -> list[Completion]:
    """All at once."""
    streams = [
        CheckedStream(client, name, case, references[name], max_tokens=max_tokens) for name, case in cases.items()
    ]
    return await asyncio.gather(*(stream.complete() for stream in streams))

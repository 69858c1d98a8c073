"""Many streams at once, each held against what vLLM itself answers."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from sage_client import AsyncClient, Completion
from tests.support.counted_stream import CountedStream
from tests.support.token_check import assert_tokens
from tests.vllm.system.cases import Case, Reference


class CheckedStream(CountedStream):
    def __init__(self, client: AsyncClient, name: str, case: Case, wanted: Reference, *, max_tokens: int) -> None:
        super().__init__(client.generate(case.prompt, **{**case.options(), "max_tokens": max_tokens}))
        self._name = name
        self._wanted = wanted
        self._max_tokens = max_tokens

    async def complete(self) -> Completion:
        """Raises AssertionError where a token is lost, doubled or changed."""
        done = await super().complete()
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

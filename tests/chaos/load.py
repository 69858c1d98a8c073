"""Clients that keep a fleet busy and know what it has to answer."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from executor_svc.runtime.engine_port import Sampling
from sage_client import Accepted, AsyncClient, Finished, SageError, Scheduled, Tokens
from tests.support.simulated_answer import Answer, answer
from tests.support.token_check import assert_tokens


@dataclass
class Tally:
    """What became of the requests so far."""

    submitted: int = 0
    accepted: int = 0
    finished: int = 0
    cancelled: int = 0  # because their client left, on purpose
    refused: Counter[str] = field(default_factory=Counter)  # before they were accepted, by reason
    moved: int = 0  # finished after more than one placement
    continued: int = 0  # of those, placed again after their client had tokens
    tokens: int = 0
    answered_by: Counter[str] = field(default_factory=Counter)  # finished, by the model's revision


class Load:
    """``clients`` at once, each one request after another.  Raises what a wrong answer is."""

    def __init__(
        self,
        client: AsyncClient,
        *,
        clients: int,
        seed: int,
        revisions: Sequence[str | None] = (None,),
        model: str = "sim",
    ) -> None:
        """``revisions``: of the model, whose answers are right."""
        self._client = client
        self._model = model
        self._revisions = revisions
        self._clients = clients
        self._seed = seed
        self._over = asyncio.Event()
        self.tally = Tally()

    async def run(self) -> None:
        """Until ``stop``, and then until every request that was accepted has ended."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._clients):
                group.create_task(self._one_after_another(number), name=f"load-{number}")

    def stop(self) -> None:
        self._over.set()

    async def _one_after_another(self, number: int) -> None:
        dice = random.Random(f"{self._seed}/{number}")
        count = 0
        while not self._over.is_set():
            count += 1
            await self._request(f"{self._model}-{number}-{count}", dice)

    async def _request(self, request_id: str, dice: random.Random) -> None:
        sampling, options = _some_sampling(dice)
        prompt = f"{request_id} {dice.random()}"
        leaves_after = dice.randint(1, sampling.max_tokens) if dice.random() < 0.1 else None
        self.tally.submitted += 1
        stream = self._client.generate(
            prompt,
            model=self._model,
            request_id=request_id,
            max_tokens=sampling.max_tokens,
            priority=dice.choice(["critical", "high", "normal", "low", "background"]),
            no_instance="wait",
            deadline=60.0,
            **options,
        )
        seen = _Seen()
        try:
            async for event in stream:
                seen.take(event)
                if leaves_after is not None and len(seen.token_ids) >= leaves_after:
                    await stream.aclose()
                    self.tally.accepted += 1
                    self.tally.cancelled += 1
                    return
        except SageError as error:
            if seen.accepted:
                raise AssertionError(f"{request_id} was accepted and ended with {error!r}") from error
            self.tally.refused[error.reason or type(error).__name__] += 1
            await asyncio.sleep(0.1)
            return
        await self._judge(request_id, prompt, sampling, seen)

    async def _judge(self, request_id: str, prompt: str, sampling: Sampling, seen: _Seen) -> None:
        wanted = await self._wanted(prompt, sampling, seen)
        assert seen.finished == 1, f"{request_id} ended {seen.finished} times"
        assert seen.indexes == list(range(len(seen.token_ids))), f"{request_id}: positions {seen.indexes}"
        assert_tokens(seen.token_ids, wanted.token_ids, request_id)
        assert seen.text == wanted.text, request_id
        self.tally.accepted += 1
        self.tally.finished += 1
        self.tally.moved += seen.placements > 1
        self.tally.continued += seen.continued
        self.tally.tokens += len(seen.token_ids)

    async def _wanted(self, prompt: str, sampling: Sampling, seen: _Seen) -> Answer:
        """Return the answer of the revision that came; of the last one, if none did."""
        for revision in self._revisions:
            wanted = await answer(prompt, sampling, model=self._model, revision=revision)
            if wanted.token_ids == tuple(seen.token_ids):
                break
        self.tally.answered_by[str(revision)] += 1
        return wanted


class _Seen:
    def __init__(self) -> None:
        self.accepted = False
        self.placements = 0
        self.continued = False
        self.finished = 0
        self.indexes: list[int] = []
        self.token_ids: list[int] = []
        self.text = ""

    def take(self, event: object) -> None:
        match event:
            case Accepted():
                self.accepted = True
            case Scheduled():
                self.placements += 1
                self.continued |= bool(self.token_ids)
            case Tokens():
                self.indexes += range(event.first_index, event.first_index + len(event.token_ids))
                self.token_ids += event.token_ids
                self.text += event.text
            case Finished():
                self.finished += 1


def _some_sampling(dice: random.Random) -> tuple[Sampling, dict[str, Any]]:
    """Mostly greedy, at times seeded or penalised: what a plain continuation would get wrong."""
    max_tokens = dice.randint(1, 120)
    kind = dice.random()
    if kind < 0.2:
        seed = dice.randint(0, 2**31)
        return Sampling(temperature=1.0, seed=seed, max_tokens=max_tokens), {"temperature": 1.0, "seed": seed}
    if kind < 0.3:
        greedy = Sampling(temperature=0, presence_penalty=1.0, max_tokens=max_tokens)
        return greedy, {"temperature": 0, "presence_penalty": 1.0}
    return Sampling(temperature=0, max_tokens=max_tokens), {"temperature": 0}

"""Clients that read on over restarts of the scheduler, and know what each of their requests may become."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, MutableSequence, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from executor_svc.runtime.engine_port import Sampling, StructuredKind, StructuredOutput
from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_client import AsyncClient, Finished, SageError, StreamLostError, Tokens
from tests.chaos.gaps import Gaps
from tests.chaos.losses import Loss
from tests.support.raw_reader import GaveUp, RawReader
from tests.support.simulated_answer import Answer, answer
from tests.support.token_check import assert_tokens

LOST = frozenset({"OUTPUT_LOST", "REQUEST_NOT_FOUND", "GENERATION_FAILED"})
"""How a request may end that does not finish: its client is told, and has nothing wrong."""

UNSENT = frozenset({"UNAVAILABLE", "NO_INSTANCE", "RECOVERING", "SHUTTING_DOWN", "NOT_LEADER", "JOURNAL_UNAVAILABLE"})
"""How a request may be refused that has not been accepted: its client may send it again."""

ENDS_WITHIN_S = 60.0
DEADLINE_S = 900  # more than clocks are set forward by
LONG_REPEATS = 30
GRAMMAR_TOKENS = 64
SLOW_S = 0.05
SPLIT_FROM = 150
"""Prompt tokens from which requests are to be split: the long prompts here have more, the short ones less."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One request, and what its answer has to be."""

    request_id: str
    kind: str
    prompt: str
    sampling: Sampling
    stop: str = ""
    wanted: Answer | None = None  # None: no one knows it beforehand
    detached: bool = False
    began: float = 0.0  # seconds on the event loop's clock

    @classmethod
    async def random(cls, request_id: str, dice: random.Random) -> Job:
        kind = dice.choice(["greedy", "greedy", "seeded", "unseeded", "logprobs", "stop", "grammar"])
        prompt, tokens = f"{request_id} {dice.random()}", dice.randint(5, 250)
        if dice.random() < 0.4:
            prompt += " and there was a tale" * LONG_REPEATS  # long enough to be split
        seed = dice.randint(0, 2**31)
        if kind == "unseeded":
            sampling = Sampling(temperature=1.0, max_tokens=tokens, ignore_eos=True)
            return cls(request_id=request_id, kind=kind, prompt=prompt, sampling=sampling)
        if kind == "grammar":
            json = StructuredOutput(kind=StructuredKind.JSON_OBJECT, value="")
            sampling = Sampling(temperature=0.0, max_tokens=GRAMMAR_TOKENS, structured_output=json)
        elif kind == "seeded":
            sampling = Sampling(temperature=1.0, seed=seed, max_tokens=tokens, ignore_eos=True)
        else:
            logprobs = 2 if kind == "logprobs" else None
            sampling = Sampling(temperature=0.0, max_tokens=tokens, ignore_eos=True, logprobs=logprobs)
        wanted = await answer(prompt, sampling)
        stop = ""
        if kind == "stop":
            start = dice.randint(len(wanted.text) // 3, len(wanted.text))
            stop = wanted.text[start : start + 6] or "never said"
        return cls(request_id=request_id, kind=kind, prompt=prompt, sampling=sampling, stop=stop, wanted=wanted)

    def message(self) -> inference_pb2.GenerateRequest:
        request = inference_pb2.GenerateRequest(request_id=self.request_id)
        request.spec.text = self.prompt
        request.spec.no_instance = inference_pb2.NO_INSTANCE_WAIT
        request.spec.deadline.FromSeconds(DEADLINE_S)
        wire, sampling = request.spec.sampling, self.sampling
        wire.temperature, wire.max_tokens, wire.ignore_eos = (
            sampling.temperature,
            sampling.max_tokens,
            sampling.ignore_eos,
        )
        if sampling.structured_output is not None:
            wire.structured_output.json_object = True
        if sampling.seed is not None:
            wire.seed = sampling.seed
        if sampling.logprobs is not None:
            wire.logprobs = sampling.logprobs
        if self.stop:
            wire.stop.append(self.stop)
        return request

    def check(self, token_ids: Sequence[int], text: str, chosen: Sequence[int], *, whole: bool) -> None:
        """Raise AssertionError if output, all of it or what a client got, is not exactly as it has to be.

        ``chosen``: the first candidate of each token's log probabilities.
        """
        who = f"{self.request_id} ({self.kind})"
        if self.kind == "logprobs":
            assert list(chosen) == list(token_ids), f"{who}: log probabilities of other tokens"
        if whole and not self.stop and self.kind != "grammar":
            assert len(token_ids) == self.sampling.max_tokens, f"{who}: {len(token_ids)} tokens"
        if self.wanted is None:
            return
        assert not whole or self.stop or len(token_ids) == len(self.wanted.token_ids), f"{who}: {len(token_ids)} tokens"
        assert_tokens(token_ids, self.wanted.token_ids[: len(token_ids)], who)
        end = self.wanted.text.find(self.stop) if self.stop else -1
        right = self.wanted.text if end < 0 else self.wanted.text[:end]
        assert right.startswith(text), f"{who}: text"
        assert not whole or text == right, f"{who}: text ends early"


@dataclass
class Tally:
    """What became of the requests so far."""

    finished: Counter[str] = field(default_factory=Counter)  # by kind
    losses: list[Loss] = field(default_factory=list)
    unsent: Counter[str] = field(default_factory=Counter)  # refused before they were accepted, by reason
    read_again: int = 0  # read a second time from the scheduler's record, and the same
    split: int = 0  # finished, of raw clients
    attempts: int = 0  # of raw clients' finished requests
    reattached: int = 0  # raw calls over which one request was read, less one each
    longest_gap_s: float = 0.0

    @property
    def lost(self) -> Counter[str]:
        """How many were told lost, by reason."""
        return Counter(each.reason for each in self.losses)


class RestartLoad:
    """Clients of three sorts, each one request after another.  Raises what a wrong answer is."""

    def __init__(
        self,
        address: str,
        sessions: AsyncClient,
        calls: AsyncClient,
        *,
        each: int,
        seed: int,
        gaps: Gaps | None = None,
        slow: int = 0,
        vanishing: int = 0,
    ) -> None:
        """``address``: of the scheduler, or of several, separated by commas.

        ``each``: how many of each sort; ``slow``: SDK clients beside them that take their time; ``vanishing``: raw
        clients beside them that go away and come back.
        """
        self._address = address
        self._gaps = gaps or Gaps()
        self._clients: list[Callable[[Job], Awaitable[None]]] = []
        for _ in range(each):
            self._clients += [self._raw, lambda job: self._sdk(sessions, job), lambda job: self._sdk(calls, job)]
        self._clients += [lambda job: self._sdk(sessions, job, pause_s=SLOW_S)] * slow
        self._clients += [self._vanishing] * vanishing
        self._seed = seed
        self._over = asyncio.Event()
        self.tally = Tally()

    def stop(self) -> None:
        self._over.set()

    async def run(self) -> None:
        """Until ``stop``, and then until every request has ended."""
        async with asyncio.TaskGroup() as group:
            for number, client in enumerate(self._clients):
                group.create_task(self._one_after_another(number, client), name=f"load-{number}")

    async def _one_after_another(self, number: int, client: Callable[[Job], Awaitable[None]]) -> None:
        dice, count = random.Random(f"{self._seed}/{number}"), 0
        while not self._over.is_set():
            count += 1
            job = await Job.random(f"{number}-{count}", dice)
            job = replace(job, began=asyncio.get_running_loop().time(), detached=client == self._vanishing)
            try:
                async with asyncio.timeout(ENDS_WITHIN_S + 10):
                    await client(job)
            except TimeoutError:
                raise AssertionError(f"{job.request_id} ({job.kind}) hangs") from None

    async def _vanishing(self, job: Job) -> None:
        """A raw client whose request is detached: it goes away now and then."""
        dice = random.Random(job.request_id)
        request = job.message()
        request.detached = True
        reader = RawReader(self._address, request, within_s=ENDS_WITHIN_S)
        for _ in range(dice.randint(1, 3)):
            reading = asyncio.create_task(reader.run())
            await asyncio.wait([reading], timeout=dice.uniform(0.05, 1.5))
            if reading.done() and reading.exception() is None:
                break
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)
            await asyncio.sleep(dice.uniform(0.0, 1.0))
        await self._read_on(job, reader)

    async def _raw(self, job: Job) -> None:
        reader = RawReader(self._address, job.message(), within_s=ENDS_WITHIN_S, times=self._gaps.stream())
        await self._read_on(job, reader)

    async def _read_on(self, job: Job, reader: RawReader) -> None:
        try:
            await reader.run()
        except GaveUp as gave_up:
            self._check_raw(job, reader, whole=False)
            accepted = bool(reader.token_ids)
            await self._ended(job, gave_up.reason or gave_up.code.name, accepted, gave_up)
            return
        self._check_raw(job, reader, whole=True)
        self.tally.finished[job.kind] += 1
        if reader.finished is not None:
            self.tally.attempts += reader.finished.attempts
        self.tally.reattached += reader.calls - 1
        self.tally.split += reader.split
        self.tally.longest_gap_s = max(self.tally.longest_gap_s, reader.longest_gap_s)
        await self._read_again(job, reader)

    def _check_raw(self, job: Job, reader: RawReader, *, whole: bool) -> None:
        job.check(reader.token_ids, reader.text, [_chosen(each) for each in reader.logprobs], whole=whole)

    async def _read_again(self, job: Job, first: RawReader) -> None:
        """Compare the record of a request, where the scheduler still has it, with what was read: also if unseeded."""
        again = RawReader(self._address, job.message(), within_s=ENDS_WITHIN_S)
        try:
            await again.run()
        except GaveUp:
            return
        if again.attached and again.calls == 1:
            assert_tokens(first.token_ids, again.token_ids, f"{job.request_id} ({job.kind}), in the record")
            assert first.text == again.text
            self.tally.read_again += 1

    async def _sdk(self, client: AsyncClient, job: Job, *, pause_s: float = 0.0) -> None:
        sampling = job.sampling
        options: dict[str, Any] = {"temperature": sampling.temperature, "max_tokens": sampling.max_tokens}
        if sampling.seed is not None:
            options["seed"] = sampling.seed
        if sampling.logprobs is not None:
            options["logprobs"] = sampling.logprobs
        if job.stop:
            options["stop"] = [job.stop]
        if sampling.structured_output is not None:
            options["json_object"] = True
        times: MutableSequence[float] = [] if pause_s else self._gaps.stream()
        loop = asyncio.get_running_loop()
        stream = client.generate(
            job.prompt,
            request_id=job.request_id,
            ignore_eos=sampling.ignore_eos,
            no_instance="wait",
            deadline=DEADLINE_S,
            **options,
        )
        token_ids: list[int] = []
        chosen: list[int] = []
        text, ends = "", 0
        try:
            async for event in stream:
                await asyncio.sleep(pause_s)
                if isinstance(event, Tokens):
                    times.append(loop.time())
                    assert event.first_index == len(token_ids), f"{job.request_id}: {event.first_index}"
                    token_ids += event.token_ids
                    text += event.text
                    chosen += [row[0].token_id if row else -1 for row in event.logprobs]
                ends += isinstance(event, Finished)
        except SageError as error:
            job.check(token_ids, text, chosen, whole=False)
            reason = "OUTPUT_LOST" if isinstance(error, StreamLostError) else error.reason or "UNAVAILABLE"
            await self._ended(job, reason, bool(token_ids), error)
            return
        assert ends == 1, f"{job.request_id} ended {ends} times"
        job.check(token_ids, text, chosen, whole=True)
        self.tally.finished[job.kind] += 1

    async def _ended(self, job: Job, reason: str, has_tokens: bool, error: Exception) -> None:
        if reason in LOST:
            now = asyncio.get_running_loop().time()
            loss = Loss(request_id=job.request_id, reason=reason, detached=job.detached, began=job.began, ended=now)
            self.tally.losses.append(loss)
        elif not has_tokens and reason in UNSENT:
            self.tally.unsent[reason] += 1
            await asyncio.sleep(0.2)
        else:
            raise AssertionError(f"{job.request_id} ({job.kind}) ended with {reason}: {error!r}") from error


def _chosen(row: common_pb2.TokenLogprobs) -> int:
    return row.candidates[0].token_id if row.candidates else -1

"""Requests of every kind that are under way at the same time: streams, waiting, split and detached ones."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field

from executor_svc.runtime.engine_port import Sampling
from sage.controlplane.v1 import inference_pb2
from sage_client import AsyncClient, AsyncStream, Finished, SamplingOptions, Tokens
from tests.chaos.gaps import Gaps
from tests.support.eventually import eventually
from tests.support.raw_reader import RawReader
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

QUEUED_TOKENS = 20
LONG_REPEATS = 40  # of a few words: a prompt that is split
LOOKAHEAD_SHARE = 8  # of an engine's slots: so many more requests wait at the engine
ALL_RUN_WITHIN_S = 60.0
ENDS_WITHIN_S = 150.0


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How many requests of each kind there are."""

    sdk: int  # streams of the SDK, over one session
    raw: int = 0  # streams of clients on the generated stub alone
    queued: int = 0  # in the scheduler's queue: half of the SDK, half raw; beside them a few wait at the engines
    split: int = 0  # raw streams, each prefilled by one executor and decoded by another
    detached: int = 0  # submitted by the SDK, which reads half of them from the start and half at the end
    tokens: int = 400  # of each that runs

    @property
    def running(self) -> int:
        """Requests that run at the same time."""
        return self.sdk + self.raw + self.split + self.detached


@dataclass(eq=False)
class MixedRequest:
    """One request, and what its client has of it."""

    kind: str
    request_id: str
    prompt: str
    sampling: Sampling
    gaps: Gaps
    token_ids: list[int] = field(default_factory=list)
    text: str = ""
    attempts: int = 0  # as its end says; 0 before
    split: bool = False  # of raw ones

    async def read(self, stream: AsyncStream) -> None:
        """Read a stream of the SDK to its end."""
        times, loop = self.gaps.stream(), asyncio.get_running_loop()
        async for event in stream:
            if isinstance(event, Tokens):
                times.append(loop.time())
                assert event.first_index == len(self.token_ids), f"{self.request_id}: {event.first_index}"
                self.token_ids += event.token_ids
                self.text += event.text
            elif isinstance(event, Finished):
                self.attempts = event.attempts

    async def read_raw(self, address: str) -> None:
        """Submit it and read it to its end by the generated stub."""
        message = inference_pb2.GenerateRequest(request_id=self.request_id)
        message.spec.text = self.prompt
        sampling = message.spec.sampling
        sampling.temperature, sampling.ignore_eos = self.sampling.temperature, True
        sampling.max_tokens = self.sampling.max_tokens
        if self.sampling.seed is not None:
            sampling.seed = self.sampling.seed
        reader = RawReader(address, message, within_s=ENDS_WITHIN_S, times=self.gaps.stream())
        reader.token_ids = self.token_ids
        await reader.run()
        assert reader.finished is not None
        self.text, self.attempts, self.split = reader.text, reader.finished.attempts, reader.split

    async def check(self, *, attempts: int = 1) -> None:
        """Raise AssertionError unless it has exactly the engine's own answer, of as many attempts."""
        wanted = await answer(self.prompt, self.sampling)
        assert_tokens(self.token_ids, wanted.token_ids, self.request_id)
        assert self.text == wanted.text, self.request_id
        assert self.attempts == attempts, f"{self.request_id}: {self.attempts} attempts"
        assert self.split == (self.kind == "split"), f"{self.request_id}: split is {self.split}"


class MixedRequests:
    """``begin`` has them all running or waiting; ``end`` reads them to their ends and checks each."""

    def __init__(self, address: str, client: AsyncClient, sizes: Sizes, seed: int) -> None:
        """``client``: whose SDK streams and detached work they are."""
        self.gaps: dict[str, Gaps] = {}  # by kind, of those that run
        self._address = address
        self._client = client
        self._sizes = sizes
        self._seed = seed  # and part of their ids
        self._dice = random.Random(seed)
        self._requests: list[MixedRequest] = []
        self._unread: list[MixedRequest] = []
        self._reading: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Start those that run and wait for a token of each; then start those that wait."""
        sizes = self._sizes
        self._start("split", sizes.split, self._raw)  # first: they need room at two engines for a moment
        await eventually(self._all_read, within_s=ALL_RUN_WITHIN_S, what="split requests to run", every_s=0.05)
        self._start("sdk", sizes.sdk, self._sdk)
        self._start("raw", sizes.raw, self._raw)
        for number in range(sizes.detached):
            await self._submit(self._request("detached"), read=number % 2 == 0)
        await eventually(self._all_run, within_s=ALL_RUN_WITHIN_S, what="all to run", every_s=0.1)
        queued = sizes.queued + await self._room_at_engines()
        self._start("queued", queued // 2, self._sdk)
        self._start("queued", queued - queued // 2, self._raw)
        await eventually(self._all_wait, within_s=ALL_RUN_WITHIN_S, what="the others to wait", every_s=0.1)

    def struck(self, kind: str, at: float) -> None:
        """Note when a fault struck, on the event loop's clock."""
        for gaps in self.gaps.values():
            gaps.struck(kind, at)

    async def end(self) -> dict[str, int]:
        """Return how many ended right, by kind: all.  Raises AssertionError for the first one that did not."""
        await asyncio.gather(*self._reading)
        for each in self._unread:
            await each.read(self._client.attach(each.request_id))
        right: dict[str, int] = {}
        for each in self._requests:
            await each.check()
            right[each.kind] = right.get(each.kind, 0) + 1
        return right

    async def returned(self) -> int:
        """Return how many came back to the queue, with their places, from an earlier scheduler's."""
        waited = [each for each in self._requests if each.kind == "queued"]
        stories = [await self._client.explain(each.request_id) for each in waited]
        return sum(any(entry.event == "returned" for entry in story.history) for story in stories)

    def _all_read(self) -> bool:
        return all(each.token_ids for each in self._requests if each not in self._unread)

    async def _all_run(self) -> bool:
        """Whether every one has a token, or nobody reads it and the engines run as many as there are."""
        if not self._all_read():
            return False
        view = await self._client.list_instances()
        return sum(each.running for each in view.instances) == self._sizes.running

    async def _room_at_engines(self) -> int:
        """Return how many requests the scheduler sends to full engines, so that they never run dry."""
        view = await self._client.list_instances()
        return sum(max(1, each.max_running // LOOKAHEAD_SHARE) for each in view.instances) if self._sizes.queued else 0

    async def _all_wait(self) -> bool:
        view = await self._client.list_instances()
        return sum(queue.waiting for queue in view.queues) == self._sizes.queued

    def _request(self, kind: str) -> MixedRequest:
        """Return the next request of a kind: greedy and seeded ones in turns."""
        number = len(self._requests)
        prompt = f"Number {number}, {self._dice.random()}:" + " and so on it went" * LONG_REPEATS * (kind == "split")
        tokens = QUEUED_TOKENS if kind == "queued" else self._sizes.tokens
        seed = self._dice.randint(0, 2**31) if number % 2 else None
        sampling = Sampling(temperature=float(number % 2), seed=seed, max_tokens=tokens, ignore_eos=True)
        gaps = self.gaps.setdefault(kind, Gaps())
        found = MixedRequest(kind, f"{kind}-{self._seed}-{number}", prompt, sampling, gaps)
        self._requests.append(found)
        return found

    def _start(self, kind: str, count: int, read: Callable[[MixedRequest], Coroutine[None, None, None]]) -> None:
        for _ in range(count):
            self._reading.append(asyncio.create_task(read(self._request(kind))))

    async def _raw(self, request: MixedRequest) -> None:
        await request.read_raw(self._address)

    async def _sdk(self, request: MixedRequest) -> None:
        stream = self._client.generate(request.prompt, request_id=request.request_id, **_options(request.sampling))
        await request.read(stream)

    async def _submit(self, request: MixedRequest, *, read: bool) -> None:
        options = _options(request.sampling)
        work = await self._client.submit(request.prompt, request_id=request.request_id, **options)
        if read:
            self._reading.append(asyncio.create_task(request.read(work.attach())))
        else:
            self._unread.append(request)


def _options(sampling: Sampling) -> SamplingOptions:
    made = SamplingOptions(max_tokens=sampling.max_tokens, temperature=sampling.temperature, ignore_eos=True)
    if sampling.seed is not None:
        made["seed"] = sampling.seed
    return made

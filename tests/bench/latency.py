"""What the control plane adds to the time to first token, alone on the machine.

Three things take turns, so that each comes after the same kind of pause: the simulated engine called in this process;
a bare grpc.aio echo, whose round trip is the yardstick; a request through client, scheduler and executor.  What a
request takes longer through the control plane than in process, in round trips of the echo, is the figure.
"""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from executor_svc.engine.factory import engine_factory
from executor_svc.runtime.engine_port import EngineRequest, Sampling
from sage_client import AsyncClient, Tokens
from tests.bench.bare_server import bare_server
from tests.bench.control_plane import control_plane
from tests.bench.engines import Engine, simulated
from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.workload import Workload

STEP_S = 0.005
WARM_UP = 10  # turns that do not count
PROMPT_TOKENS = 32
MAX_TOKENS = 2  # the first token comes before the end, as it does for any real request
TEXT = "the quick brown fox jumps over the lazy dog"

Timed = Callable[[], Awaitable[float]]
"""Does one thing and says how many seconds it took."""


@dataclass(slots=True)
class Round:
    """Seconds, one list per kind of turn."""

    direct: list[float] = field(default_factory=list)
    echo: list[float] = field(default_factory=list)
    through: list[float] = field(default_factory=list)
    through_text: list[float] = field(default_factory=list)

    def added_s(self, through: list[float]) -> float:
        return statistics.median(through) - statistics.median(self.direct)

    def multiple(self, through: list[float]) -> float:
        return self.added_s(through) / statistics.median(self.echo)


async def measure(*, rounds: int, turns: int) -> list[Row]:
    """``turns`` of each kind per round."""
    engine = simulated(step_s=STEP_S, streams=8)
    async with (
        _called_in_process(engine) as direct,
        bare_server() as bare,
        control_plane(engine) as plane,
        AsyncClient(plane.address) as client,
    ):
        through, through_text = _through(client, text=False), _through(client, text=True)
        await _round(WARM_UP, direct, _timed(bare.echo), through, through_text)
        measured = [await _round(turns, direct, _timed(bare.echo), through, through_text) for _ in range(rounds)]
    return [
        _row("token ids", measured, [each.multiple(each.through) for each in measured], "<= 2.5"),
        _row("text prompt", measured, [each.multiple(each.through_text) for each in measured], ""),
    ]


async def _round(turns: int, direct: Timed, echo: Timed, through: Timed, through_text: Timed) -> Round:
    taken = Round()
    for _ in range(turns):
        # What a request leaves behind (its end acknowledged, a heartbeat) is over before the next thing is timed: the
        # engine in this process sleeps through its step meanwhile.
        for request, times in ((through, taken.through), (through_text, taken.through_text)):
            taken.direct.append(await direct())
            taken.echo.append(await echo())
            times.append(await request())
    return taken


def _row(case: str, rounds: list[Round], multiples: list[float], target: str) -> Row:
    echo_ms = statistics.median(statistics.median(each.echo) for each in rounds) * 1e3
    return Row(
        benchmark="added latency to first token",
        case=case,
        unit="x echo",
        target=target,
        note=f"an echo takes {echo_ms:.2f} ms",
        **spread(multiples),
    )


# --- what is timed --------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _called_in_process(engine: Engine) -> AsyncIterator[Timed]:
    started = await engine_factory(engine.settings).start(lambda state, progress, message: None)
    numbers = itertools.count()
    sampling = Sampling(temperature=0.0, max_tokens=MAX_TOKENS, ignore_eos=True)

    async def first_token() -> float:
        number = next(numbers)
        prompt = Workload(streams=1, prompt_tokens=PROMPT_TOKENS, max_tokens=MAX_TOKENS, seed=number).prompts()[0]
        request = EngineRequest(engine_request_id=str(number), prompt_token_ids=prompt, sampling=sampling)
        began, first = time.perf_counter(), 0.0
        async for _ in started.generate(request):
            first = first or time.perf_counter() - began
        return first

    try:
        yield first_token
    finally:
        await started.shutdown()


def _through(client: AsyncClient, *, text: bool) -> Timed:
    numbers = itertools.count()

    async def first_token() -> float:
        number = next(numbers)
        prompt = Workload(streams=1, prompt_tokens=PROMPT_TOKENS, max_tokens=MAX_TOKENS, seed=number).prompts()[0]
        began, first = time.perf_counter(), 0.0
        if text:
            stream = client.generate(f"{number} {TEXT}", max_tokens=MAX_TOKENS, ignore_eos=True, temperature=0.0)
        else:
            stream = client.generate(token_ids=prompt, max_tokens=MAX_TOKENS, ignore_eos=True, temperature=0.0)
        async for event in stream:
            if isinstance(event, Tokens):
                first = first or time.perf_counter() - began
        return first

    return first_token


def _timed(act: Callable[[], Awaitable[None]]) -> Timed:
    async def timed() -> float:
        began = time.perf_counter()
        await act()
        return time.perf_counter() - began

    return timed

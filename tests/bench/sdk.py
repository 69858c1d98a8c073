"""What the SDK costs: CPU seconds of a client process per million output tokens, by the way its requests travel.

The scheduler is a token source in a process of its own, so that nothing else is measured.  Requests count too: the cost
of one is told from runs of few tokens each.
"""

from __future__ import annotations

from collections.abc import Sequence

from tests.bench.report import Row
from tests.bench.rounds import spread
from tests.bench.sdk_client import Cost, SdkClient, Way, sdk_client
from tests.bench.token_scheduler import token_scheduler
from tests.bench.workload import Workload

STEP_S = 0.025
PROMPT_TOKENS = 32
WAYS: tuple[Way, ...] = ("generate", "events", "sinks")
TARGETS = {("events", 256): "<= 10", ("sinks", 256): "<= 3"}
SHORT_TOKENS = 2


async def measure(*, rounds: int, streams: int, max_tokens: int) -> list[Row]:
    costs: dict[Way, list[Cost]] = {way: [] for way in WAYS}
    short: dict[Way, list[Cost]] = {way: [] for way in WAYS}
    async with token_scheduler(STEP_S) as address, sdk_client(address) as client:
        for number in range(rounds + 1):  # the first warms up
            for way in WAYS:
                long_run, short_run = await _round(client, streams, max_tokens if number else SHORT_TOKENS, way, number)
                if number:
                    costs[way].append(long_run)
                    short[way].append(short_run)
    return [_row(streams, max_tokens, way, costs[way], short[way]) for way in WAYS]


async def _round(client: SdkClient, streams: int, max_tokens: int, way: Way, seed: int) -> tuple[Cost, Cost]:
    def workload(tokens: int) -> Workload:
        return Workload(streams=streams, prompt_tokens=PROMPT_TOKENS, max_tokens=tokens, seed=seed)

    return await client.run(workload(max_tokens), way), await client.run(workload(SHORT_TOKENS), way)


def _row(streams: int, max_tokens: int, way: Way, costs: Sequence[Cost], short: Sequence[Cost]) -> Row:
    tokens = streams * max_tokens
    request_ms = min(each.cpu_s for each in short) / streams * 1e3
    rate = tokens / min(each.wall_s for each in costs)
    return Row(
        benchmark=f"SDK, {streams} streams",
        case={"generate": "Generate calls", "events": "a session, events", "sinks": "a session, sinks"}[way],
        unit="CPU s / 1M tokens",
        target=TARGETS.get((way, streams), ""),
        note=f"{rate:,.0f} tokens/s; a request takes {request_ms:.2f} ms of it",
        **spread([each.cpu_s / tokens * 1e6 for each in costs]),
    )

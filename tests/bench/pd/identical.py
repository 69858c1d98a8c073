"""Whether a split request gives the tokens of the same request run whole; each runs alone."""

from __future__ import annotations

import random

from tests.bench.pd.fleet import fleet
from tests.bench.pd.platform import CONNECTOR, Platform
from tests.bench.pd.streamed import stream
from tests.bench.pd.witness import all_handed_over
from tests.bench.report import Row
from tests.bench.session import CannotMeasure
from tests.bench.workload import VOCABULARY

PROMPTS = (64, 512, 2_048, 3_500)  # tokens
EACH = 3
OUTPUT = 48
CHUNK = 2_048


async def measure(platform: Platform) -> list[Row]:
    """Share of requests, and how varied their outputs are: where few tokens are distinct a fault would not show."""
    engines = [platform.engine(place, chunk=CHUNK, connector=CONNECTOR, exact=True) for place in (0, 1)]
    draw = random.Random(5)
    equal: list[bool] = []
    distinct: list[int] = []
    async with fleet(engines, ("prefilling", "hybrid"), split=True) as client, all_handed_over(client) as splits:
        for length in [length for length in PROMPTS for _ in range(EACH)]:
            prompt = draw.choices(VOCABULARY, k=length)
            await client.set_prefill_decode("never")
            whole = await stream(client, prompt, OUTPUT)
            await client.set_prefill_decode("always")
            split = await stream(client, prompt, OUTPUT)
            if whole.split or not split.split:
                raise CannotMeasure(f"{length} prompt tokens were not placed as asked for")
            splits.count += 1
            equal.append(whole.token_ids == split.token_ids)
            distinct.append(len(set(whole.token_ids)))
    share = sum(equal) / len(equal)
    note = f"{platform.name}; {sum(equal)} of {len(equal)}; at least {min(distinct)} distinct tokens in {OUTPUT}"
    return [
        Row(
            benchmark="split tokens equal whole ones",
            case="greedy",
            unit="of requests",
            value=share,
            lowest=share,
            highest=share,
            note=note,
        )
    ]

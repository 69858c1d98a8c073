"""A load of conversations: each turn's prompt is all that was said before, and something new."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from statistics import mean

from sage_client import AsyncClient

VOCABULARY = range(100, 4_000)  # of token ids that callers use


@dataclass
class Told:
    """What a load's answers tell."""

    prompt_tokens: int = 0
    cached_tokens: int = 0  # by the engines' own count
    believed_tokens: int = 0  # by the scheduler's
    ttfts_s: list[float] = field(default_factory=list)  # of second and later turns
    instances: list[str] = field(default_factory=list)

    @property
    def cached_share(self) -> float:
        """Share of the prompt tokens of second and later turns that the engines found in their caches."""
        return self.cached_tokens / self.prompt_tokens

    @property
    def mean_ttft_s(self) -> float:
        """Mean time to the first token of second and later turns, in seconds."""
        return mean(self.ttfts_s)


async def converse(
    client: AsyncClient, *, seed: int, conversations: int = 8, turns: int = 5, text_tokens: int = 512
) -> Told:
    """Play conversations, all of them turn by turn; the order within a turn is drawn."""
    rng = random.Random(seed)
    histories = [_text(rng, text_tokens) for _ in range(conversations)]
    told = Told()
    for turn in range(turns):
        order = rng.sample(range(conversations), conversations)
        answers = await asyncio.gather(*(_ask(client, histories[each]) for each in order))
        for each, (tokens, prompt, cached, believed, ttft_s, instance) in zip(order, answers, strict=True):
            histories[each] += [*tokens, *_text(rng, text_tokens // 4)]
            told.instances.append(instance)
            if turn:
                told.prompt_tokens += prompt
                told.cached_tokens += cached
                told.believed_tokens += believed
                told.ttfts_s.append(ttft_s)
    return told


async def _ask(client: AsyncClient, prompt: list[int]) -> tuple[tuple[int, ...], int, int, int, float, str]:
    stream = client.generate(token_ids=prompt, temperature=0, max_tokens=16, ignore_eos=True)
    answer = await stream.result()
    ttft_s = answer.timings.time_to_first_token_s
    assert ttft_s is not None
    believed = answer.decisions[-1].cached_tokens
    used = answer.usage
    return answer.token_ids, used.prompt_tokens, used.cached_prompt_tokens, believed, ttft_s, answer.instance_id


def _text(rng: random.Random, tokens: int) -> list[int]:
    return [rng.choice(VOCABULARY) for _ in range(tokens)]

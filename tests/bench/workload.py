"""The requests of one run."""

from __future__ import annotations

import random
from dataclasses import dataclass

VOCABULARY = range(300, 500)  # token ids that are plain words in every engine used here


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """``streams`` requests at once, all of one size; greedy, and never ended by the model itself."""

    streams: int
    prompt_tokens: int  # each
    max_tokens: int  # each; also the output's length
    seed: int = 0  # other prompts for every run: a prefix cache would serve the same ones twice

    @property
    def output_tokens(self) -> int:
        """All streams together."""
        return self.streams * self.max_tokens

    def prompts(self) -> list[list[int]]:
        """Token ids, one list per stream."""
        draw = random.Random(self.seed)
        return [draw.choices(VOCABULARY, k=self.prompt_tokens) for _ in range(self.streams)]

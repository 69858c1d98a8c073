"""The requests of one run."""

from __future__ import annotations

import random
from dataclasses import dataclass

VOCABULARY = range(300, 500)  # token ids that are plain words in every engine used here


@dataclass(frozen=True, kw_only=True, slots=True)
class Workload:
    """``streams`` requests at once, all of one size; greedy, and never ended by the model itself.

    With ``turns`` above 1 each stream runs requests one after another, that many times ``max_tokens`` in all.  Its
    first one is cut short, and the rest of it comes last, so that streams end and begin at different times.
    """

    streams: int
    prompt_tokens: int  # each
    max_tokens: int  # each; also the output's length
    seed: int = 0  # other prompts for every run: a prefix cache would serve the same ones twice
    turns: int = 1

    @property
    def output_tokens(self) -> int:
        """All streams together."""
        return self.streams * self.max_tokens * self.turns

    def prompts(self) -> list[list[int]]:
        """Token ids, one list per stream."""
        draw = random.Random(self.seed)
        return [draw.choices(VOCABULARY, k=self.prompt_tokens) for _ in range(self.streams)]

    def requests(self) -> list[list[tuple[list[int], int]]]:
        """Prompt and output length of each stream's requests, in turn."""
        draw = random.Random(self.seed)
        return [
            [(draw.choices(VOCABULARY, k=self.prompt_tokens), length) for length in self._lengths(stream)]
            for stream in range(self.streams)
        ]

    def _lengths(self, stream: int) -> list[int]:
        first = (stream + 1) * self.max_tokens // self.streams
        if self.turns == 1 or first == self.max_tokens:
            return [self.max_tokens] * self.turns
        first = max(1, first)
        return [first, *[self.max_tokens] * (self.turns - 1), self.max_tokens - first]

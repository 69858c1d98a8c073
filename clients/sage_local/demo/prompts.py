"""Makes prompts of a given length in tokens, for any tokenizer."""

from __future__ import annotations

import random
from typing import Self

import sage_client as sage

SEED = 20_262
PROBE_WORDS = 200
TEXT = (
    "the meeting began with numbers of a quarter that nobody had seen before and went on to plans for next year which "
    "were long winded but clear in what they wanted from each team while rain fell on old roofs of our small harbour"
)
WORDS = TEXT.split()


class Prompts:
    """Makes prompts that all begin differently, so that no prefix cache shortens a prefill."""

    def __init__(self, tokens_per_word: float) -> None:
        self.tokens_per_word = tokens_per_word
        self._dice = random.Random(SEED)

    @classmethod
    async def measured(cls, client: sage.AsyncClient) -> Self:
        """Measure how many tokens a word has, with one request.

        Raises:
            SageError: the request failed.
        """
        words = " ".join(random.Random(SEED).choices(WORDS, k=PROBE_WORDS))
        done = await client.generate(words, max_tokens=1, deadline=300.0).result()
        return cls(done.usage.prompt_tokens / PROBE_WORDS)

    def of(self, tokens: int) -> str:
        """Return a text of about ``tokens`` tokens."""
        words = self._dice.choices(WORDS, k=max(1, round(tokens / self.tokens_per_word) - 1))
        return " ".join([str(self._dice.randrange(10**6)), *words])

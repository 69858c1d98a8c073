"""Made-up embeddings: texts with tokens in common have vectors that are close to each other."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Sequence
from functools import lru_cache

from executor_svc.runtime.engine_port import EmbeddingOptions


def embedding(prompt: Sequence[int], salt: int, dimensions: int, options: EmbeddingOptions) -> bytes:
    """Return the vector of a prompt as little-endian 32-bit floats.

    It is the mean of a random vector per token, which ``salt`` and the token decide, scaled to length 1 unless
    ``options.raw``; one that is shortened has length 1 only if ``options.normalize``, as real ones.
    """
    sums = [0.0] * dimensions
    for token in prompt:
        for place, value in enumerate(_of_token(token, salt, dimensions)):
            sums[place] += value
    vector = (sums if options.raw else _scaled(sums))[: options.dimensions]
    made = array("f", _scaled(vector) if options.normalize else vector)
    return made.tobytes()


def _scaled(vector: list[float]) -> list[float]:
    length = math.sqrt(sum(value * value for value in vector)) or 1.0
    return [value / length for value in vector]


@lru_cache(maxsize=8_192)
def _of_token(token: int, salt: int, dimensions: int) -> tuple[float, ...]:
    draw = random.Random(f"{salt}/{token}")
    return tuple(draw.gauss(0.0, 1.0) for _ in range(dimensions))

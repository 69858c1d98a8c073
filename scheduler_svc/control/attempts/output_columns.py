"""New output of many attempts, as columns: no object per token."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class OutputColumns(NamedTuple):
    """Entry i of the first four columns is one attempt's output.

    It takes the next ``counts[i]`` of ``token_ids`` and the next ``text_lengths[i]`` code points of ``text``.  The sums
    agree: the sender of a frame is not trusted, and ``transport`` checks them.
    """

    numbers: Sequence[int]  # of attempts
    first_indexes: Sequence[int]  # output positions, over all attempts of the request
    counts: Sequence[int]  # tokens per entry; empty: one each
    text_lengths: Sequence[int]  # per entry, in Unicode code points; empty: none has text
    token_ids: Sequence[int]
    text: str

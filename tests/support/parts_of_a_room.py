"""Divides a room's files among several runs of pytest, which go on beside each other."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable


def part_of(files: Iterable[str], number: int, parts: int) -> set[str]:
    """Return the files of part ``number`` of ``parts``, counted from 1.  ``files`` has a file once for each test.

    A file is in one part as a whole.  Each goes, the largest first, to the part that has the fewest tests so far.
    """
    shares: list[tuple[int, set[str]]] = [(0, set()) for _ in range(parts)]
    for file, tests in sorted(Counter(files).items(), key=lambda each: (-each[1], each[0])):
        smallest = min(range(parts), key=lambda index: shares[index][0])
        count, held = shares[smallest]
        shares[smallest] = (count + tests, held | {file})
    return shares[number - 1][1]


def number_and_parts(text: str) -> tuple[int, int]:
    """Read ``2/3``: the second of three parts.  Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if found is None or int(found[1]) > int(found[2]):
        raise ValueError(f"a part is written like 1/2 or 2/2, not {text!r}")
    return int(found[1]), int(found[2])

"""How one stream went, as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamEnd:
    """The end of one stream."""

    whole: bool  # all tokens arrived, and the end
    said_why: bool  # an error was sent before the end
    first_s: float  # from the request to its first token
    longest_gap_s: float  # between two tokens

"""How one stream went, as its client saw it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamEnd:
    """The end of one stream."""

    tokens: int  # that arrived
    whole: bool  # all of them did
    said_why: bool  # an error was sent before the end
    first_s: float  # from the request to its first token
    longest_gap_s: float  # between two tokens

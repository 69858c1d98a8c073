"""Finds stop strings in text that arrives in pieces, and holds back only text that may become a stop string."""

from __future__ import annotations

from collections.abc import Sequence


def _failure_links(pattern: str) -> list[int]:
    """Compute links[k], the length of the longest proper border of pattern[:k] (Knuth, Morris and Pratt)."""
    links = [0, 0]
    border = 0
    for position in range(1, len(pattern)):
        while border and pattern[position] != pattern[border]:
            border = links[border]
        if pattern[position] == pattern[border]:
            border += 1
        links.append(border)
    return links


class StopStrings:
    """Finds the first stop string that completes; of several that end at the same character, the longest.

    The result depends on the text alone, not on how it was cut into pieces.  Cost: one step per character and string,
    and nothing for a piece without any stop string's first character.
    """

    __slots__ = ("_firsts", "_held", "_include", "_links", "_longest", "_matched", "_stops")

    def __init__(self, stops: Sequence[str], *, include_in_output: bool) -> None:
        self._stops = tuple(stops)
        self._links = [_failure_links(stop) for stop in stops]
        self._matched = [0] * len(self._stops)  # characters of each string that the text so far ends with
        self._longest = 0
        self._firsts = frozenset(stop[0] for stop in stops)
        self._held = ""
        self._include = include_in_output

    def push(self, text: str, *, armed: bool) -> tuple[str, str | None]:
        """Add text.  Return the text that is certain now, and the stop string that completed, if any.

        ``armed``: whether a stop string that ends in this text counts.
        """
        if not self._longest and self._firsts.isdisjoint(text):
            return text, None
        for position, char in enumerate(text):
            completed = self._advance(char)
            if completed is not None and armed:
                return self._cut(text, position, completed), completed
        self._longest = max(self._matched)
        if self._include:
            return text, None
        whole = self._held + text
        certain = len(whole) - self._longest
        self._held = whole[certain:]
        return whole[:certain], None

    def _advance(self, char: str) -> str | None:
        """Move every automaton by one character.  Return the longest string that is complete now, if any."""
        completed: str | None = None
        for index, stop in enumerate(self._stops):
            links, length = self._links[index], self._matched[index]
            while length and stop[length] != char:
                length = links[length]
            if stop[length] == char:
                length += 1
            if length == len(stop):
                if completed is None or len(stop) > len(completed):
                    completed = stop
                length = links[length]
            self._matched[index] = length
        return completed

    def _cut(self, text: str, position: int, completed: str) -> str:
        end = len(self._held) + position + 1
        whole = self._held + text
        self._held = ""
        return whole[: end if self._include else end - len(completed)]

    def release(self) -> str:
        """Return the text that was held back.  Call at the end of the output."""
        held, self._held = self._held, ""
        return held

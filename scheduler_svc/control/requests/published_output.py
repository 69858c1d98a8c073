"""The part of an output that readers may have: of detached work, what the journal has."""

from __future__ import annotations

from array import array

from scheduler_svc.control.requests.output_log import OutputLog, TokenSlice


class PublishedOutput:
    """The first tokens of an ``OutputLog``, as many as were published; read as the log itself is."""

    __slots__ = ("_complete", "_log", "token_ids")

    def __init__(self, log: OutputLog) -> None:
        self._log = log
        self._complete = False
        self.token_ids = array("I")

    def publish(self, tokens: int, *, complete: bool = False) -> None:
        """Let readers have the first ``tokens`` tokens; ``complete``: and the text that was held back to the end."""
        self.token_ids.extend(self._log.token_ids[len(self.token_ids) : tokens])
        self._complete = self._complete or complete

    def __len__(self) -> int:
        return len(self.token_ids)

    @property
    def text_length(self) -> int:
        """The length of the published text in Unicode code points."""
        return self._log.text_length if self._complete else self._log.text_offset(len(self.token_ids))

    @property
    def tail(self) -> str:
        """The text that was held back until the end."""
        return self._log.tail if self._complete else ""

    def read(self, start: int, most: int | None = None) -> TokenSlice:
        """Return the published output from ``start`` on, as ``OutputLog.read`` does."""
        left = len(self.token_ids) - start
        return self._log.read(start, left if most is None else min(most, left))

    def text_of(self, start: int, end: int) -> str:
        """Return the text of the tokens from ``start`` to ``end``, of which there is one at least."""
        return self._log.text_of(start, end)

    def text_offset(self, position: int) -> int:
        """Return the length of the text before an output position, in Unicode code points."""
        return self._log.text_offset(position)

    def lacks_logprobs(self, start: int) -> bool:
        """Return whether a token from ``start`` on has no log probabilities although others have them."""
        return self._log.lacks_logprobs(start)

"""Checks that a replay repeats the delivered tokens, and skips them."""

from __future__ import annotations

from collections.abc import Sequence

from executor_svc.runtime.engine_port import EngineOutput, FinishReason


class ReplayDiverged(Exception):
    """The replay differs from the delivered tokens."""


class Replay:
    """Compares a replay with the delivered tokens, position by position.  Tokens after them pass through."""

    __slots__ = ("_at", "_delivered")

    def __init__(self, delivered: Sequence[int]) -> None:
        self._delivered = delivered
        self._at = 0

    @property
    def done(self) -> bool:
        """Whether every delivered token was compared."""
        return self._at == len(self._delivered)

    def strip(self, output: EngineOutput) -> None:
        """Take the tokens that were delivered before out of ``output``.  Raises ReplayDiverged."""
        skipped = self.skip(output.token_ids)
        if output.finish_reason is not None and output.finish_reason is not FinishReason.ABORTED:
            self.check_complete()
        if skipped:
            output.token_ids = output.token_ids[skipped:]
            if output.logprobs is not None:
                output.logprobs = output.logprobs[skipped:]

    def skip(self, token_ids: Sequence[int]) -> int:
        """Return how many of ``token_ids``, counted from the first, were delivered before.  Raises ReplayDiverged."""
        expected = self._delivered[self._at : self._at + len(token_ids)]
        for offset, token_id in enumerate(expected):
            if token_id != token_ids[offset]:
                raise ReplayDiverged(f"token {self._at + offset} differs from the one that was delivered")
        self._at += len(expected)
        return len(expected)

    def check_complete(self) -> None:
        """Raise ReplayDiverged if the replay, which has ended, is shorter than the delivered output."""
        if not self.done:
            raise ReplayDiverged(f"generation ended after {self._at} of {len(self._delivered)} delivered tokens")

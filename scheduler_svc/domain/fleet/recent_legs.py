"""Recent placements of a model while requests are split: how many were, or should have been, and how tight it was."""

from __future__ import annotations

from scheduler_svc.domain.prediction.fading_memory import FadingMemory

MEMORY_S = 30.0
"""Seconds after which a placement weighs 1/e of a new one."""
_FEW = 1.0  # placements: fewer count as so many


class RecentLegs:
    """Averages over recent placements; all fade."""

    __slots__ = ("_memory", "_placed", "_token", "_tokens", "_wait", "_waits", "_wanted")

    def __init__(self) -> None:
        self._memory = FadingMemory(MEMORY_S)
        self._placed = self._wanted = 0.0
        self._wait = self._waits = 0.0  # the sum, and the number of those with a TTFT target
        self._token = self._tokens = 0.0  # the same of those with a TPOT target

    def split(self, now: float, *, wait_share: float | None, token_share: float | None) -> None:
        """Count a request that is split.

        ``wait_share``: of its TTFT target, the predicted wait for the prefill instance.  ``token_share``: of what its
        TPOT target leaves above the time of an empty step, what the decode instance takes.  None: no target.
        """
        self._fade(now)
        self._placed += 1
        self._wanted += 1
        if wait_share is not None:
            self._wait += wait_share
            self._waits += 1
        if token_share is not None:
            self._token += token_share
            self._tokens += 1

    def whole(self, now: float, *, wanted: bool) -> None:
        """Count a request that runs whole.  ``wanted``: it should have been split, and there was no room for that."""
        self._fade(now)
        self._placed += 1
        self._wanted += wanted

    def wanted_share(self, now: float) -> float:
        """Return the share of placements that were, or should have been, split."""
        self._fade(now)
        return self._wanted / self._placed if self._placed else 0.0

    def wait_share(self, now: float) -> float:
        """Return the mean of ``wait_share``; it fades where no request with a target comes any more."""
        self._fade(now)
        return self._wait / max(self._waits, _FEW)

    def token_share(self, now: float) -> float:
        """Return the mean of ``token_share``; it fades likewise."""
        self._fade(now)
        return self._token / max(self._tokens, _FEW)

    def _fade(self, now: float) -> None:
        kept = self._memory.kept(now)
        self._placed *= kept
        self._wanted *= kept
        self._wait *= kept
        self._waits *= kept
        self._token *= kept
        self._tokens *= kept

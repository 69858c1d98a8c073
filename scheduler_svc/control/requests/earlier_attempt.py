"""Attempts of an earlier scheduler that this one goes on with."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class AdoptedAttempt:
    """An attempt that an earlier scheduler began."""

    epoch: int  # of that scheduler
    number: int  # in that epoch
    number_here: int = 0  # 0: it is not adopted yet
    tokens: int  # output positions that its executor held

    @property
    def name(self) -> tuple[int, int]:
        """Epoch and number: the later one of two attempts has the larger name."""
        return self.epoch, self.number


@dataclass(frozen=True, kw_only=True, slots=True)
class RestoredOutput:
    """Output that the journal had of a detached request when this scheduler began to go on with it."""

    tokens: int  # output positions
    epoch: int  # of the attempt that made the last of them
    number: int  # of that attempt, in that epoch

    @property
    def name(self) -> tuple[int, int]:
        """Epoch and number, as in ``AdoptedAttempt``."""
        return self.epoch, self.number


RESTORED_ATTEMPT = 0
"""The attempt number of restored output; attempts of this scheduler have larger ones."""

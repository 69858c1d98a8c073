"""The way to the scheduler that leads, as transports see it."""

from __future__ import annotations

from typing import Protocol

from sage_client._errors import SageError


class Route(Protocol):
    """Which scheduler calls go to; ``Channels`` decides it.

    Attributes:
        turn: counts the changes of the scheduler.
        epoch: the highest epoch of a leader that was seen; 0 before the first.
    """

    turn: int
    epoch: int

    @property
    def alone(self) -> bool:
        """Whether there is one address only."""
        ...

    @property
    def exhausted(self) -> bool:
        """Whether nobody answered at any address, one after the other."""
        ...

    async def connected(self, limit_s: float) -> None:
        """Wait at most ``limit_s`` seconds for a connection to come; all of them if there is one already."""
        ...

    def answered(self) -> None:
        """Note that the scheduler leads."""
        ...

    def failed(self, turn: int, failure: SageError, *, answered: bool = False) -> None:
        """Go to another scheduler if a call of this turn failed because of where it went.

        ``answered``: a scheduler ended the call, whatever the failure says.
        """
        ...

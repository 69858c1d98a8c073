"""What accounts tell whoever compares them."""

from __future__ import annotations

from enum import IntEnum


class Takes(IntEnum):
    """What prompts an instance takes now."""

    NONE = 0
    CRITICAL = 1  # of a request that may take its last free slot, where one is reserved for CRITICAL
    ANY = 2


class AccountWatch:
    """Which of several accounts changed, and which take a prompt now or soon; each is known by its row.

    The accounts enter themselves, so nobody has to look at all of them.
    """

    __slots__ = ("changed", "open", "roomy", "soon")

    def __init__(self) -> None:
        self.changed: set[int] = set()  # until somebody takes them out
        self.open: set[int] = set()  # that take a prompt, if only a CRITICAL one
        self.roomy: set[int] = set()  # of these, that take any
        self.soon: set[int] = set()  # with a free slot that prompts which are ahead keep further ones out of

    def enter(self, row: int, takes: Takes, *, soon: bool) -> None:
        """Note what prompts an account takes from now on.  ``soon``: it has a slot, once prompts are computed."""
        (self.open.add if takes else self.open.discard)(row)
        (self.roomy.add if takes is Takes.ANY else self.roomy.discard)(row)
        (self.soon.add if soon else self.soon.discard)(row)

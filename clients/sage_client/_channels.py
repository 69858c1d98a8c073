"""The channels to the schedulers of one fleet, and which of them is called: the one that leads, as far as is known."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from time import monotonic

from sage.controlplane.v1 import admin_pb2_grpc, inference_pb2_grpc
from sage_client._channel import Channel
from sage_client._connection import Connection, addresses_in
from sage_client._errors import NotLeaderError, SageError, WaitTimeoutError
from sage_client._status import is_transport_break


class Channels:
    """One channel for each address.  Belongs to the event loop of the first call.

    Calls go to one address until one of them shows that it is not the leader's, or that nobody answers there.

    Attributes:
        turn: counts the changes of the address; tells failures of an earlier one apart.
        epoch: the highest epoch of a leader that was seen; 0 before the first.
    """

    def __init__(self, connection: Connection, clock: Callable[[], float] = monotonic) -> None:
        """Check the settings; the first call opens a channel.  Raises as ``Connection.check``."""
        self.addresses = addresses_in(connection.address)
        alone = len(self.addresses) == 1
        self._all = [Channel(replace(connection, address=each, alone=alone), clock) for each in self.addresses]
        self._at = 0
        self._unreachable = 0  # addresses, one after the other, at which nobody answered
        self.turn = 0
        self.epoch = 0

    def check(self) -> None:
        """Raise UnavailableError if the channels were closed, or belong to another event loop."""
        self._all[self._at].check()

    @property
    def inference(self) -> inference_pb2_grpc.InferenceServiceAsyncStub:
        """The stub for a new call.  Raises as ``check``."""
        return self._all[self._at].inference

    @property
    def admin(self) -> admin_pb2_grpc.AdminServiceAsyncStub:
        """The stub for a new call.  Raises as ``check``."""
        return self._all[self._at].admin

    @property
    def alone(self) -> bool:
        """Whether there is one address only."""
        return len(self._all) == 1

    @property
    def exhausted(self) -> bool:
        """Whether nobody answered at any address, one after the other."""
        return self._unreachable >= len(self._all)

    def answered(self) -> None:
        """Note that the present address is that of a scheduler which leads."""
        self._unreachable = 0

    def failed(self, turn: int, failure: SageError, *, answered: bool = False) -> None:
        """Call another address from now on if a call of this turn failed because of its address.

        ``answered``: a scheduler ended the call, whatever the failure says.
        """
        if turn != self.turn:
            return
        if answered or isinstance(failure, NotLeaderError):
            self._unreachable = 0
            self._go_to(failure.leaders if isinstance(failure, NotLeaderError) else ())
        elif is_transport_break(failure) or isinstance(failure, WaitTimeoutError):
            self._unreachable += 1
            self._go_to(())

    def _go_to(self, wanted: tuple[str, ...]) -> None:
        """Go to one of the wanted addresses, as far as they are configured; else to the next one."""
        known = [self.addresses.index(each) for each in wanted if each in self.addresses]
        others = [each for each in known if each != self._at]
        self._at = others[0] if others else (self._at + 1) % len(self._all)
        self.turn += 1

    async def connected(self, limit_s: float) -> None:
        """Wait at most ``limit_s`` seconds for a connection to the present address; all of them if there is one."""
        await self._all[self._at].connected(limit_s)

    async def close(self) -> None:
        """Close the channels; open streams end."""
        for each in self._all:
            await each.close()

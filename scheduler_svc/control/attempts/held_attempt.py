"""An attempt that an executor still holds from an earlier session, as its registration names it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class HeldAttempt:
    """An attempt of an earlier session that the executor still holds."""

    epoch: int  # of the scheduler that sent it
    number: int
    tokens: int  # output positions filled, over all attempts of the request
    ended: bool
    record: bytes = b""  # of the request, as that scheduler made it
    adoption_proof: bytes = field(default=b"", repr=False)  # of the record

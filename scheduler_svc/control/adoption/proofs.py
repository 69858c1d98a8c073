"""The port to what shows that an attempt was begun by a scheduler of this fleet."""

from __future__ import annotations

from typing import Protocol


class Proofs(Protocol):
    """Proves records, and checks proofs.  An executor holds both and must not be able to make a proof."""

    def proof(self, instance_id: str, epoch: int, number: int, record: bytes) -> bytes:
        """Return the proof that a scheduler sent this record, with this attempt, to this instance."""
        ...

    def proves(self, proof: bytes, instance_id: str, epoch: int, number: int, record: bytes) -> bool:
        """Return whether a proof is of exactly this."""
        ...

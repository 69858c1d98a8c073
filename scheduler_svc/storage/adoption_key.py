"""Signs what executors hold for the next scheduler.

Only schedulers of one fleet sign and check, so they share one secret key: HMAC-SHA256, two microseconds a signature.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

KEY_BYTES = 32
PROOF_BYTES = 32

_CONTEXT = b"sage adoption 1\0"
_NUMBERS = struct.Struct("<QQH")


class AdoptionKey:
    """The secret of a fleet's schedulers.  Implements ``control.adoption.proofs.Proofs``."""

    def __init__(self, secret: bytes) -> None:
        """``secret``: KEY_BYTES random bytes."""
        self._start = hmac.new(secret, _CONTEXT, hashlib.sha256)

    def proof(self, instance_id: str, epoch: int, number: int, record: bytes) -> bytes:
        """Return the proof that a scheduler sent this record, with this attempt, to this instance."""
        name = instance_id.encode()
        signed = self._start.copy()
        signed.update(_NUMBERS.pack(epoch, number, len(name)))
        signed.update(name)
        signed.update(record)
        return signed.digest()

    def proves(self, proof: bytes, instance_id: str, epoch: int, number: int, record: bytes) -> bool:
        """Return whether a proof is of exactly this."""
        return hmac.compare_digest(proof, self.proof(instance_id, epoch, number, record))

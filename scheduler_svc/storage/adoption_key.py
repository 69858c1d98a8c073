"""Signs what executors hold for the next scheduler.

Only schedulers of one fleet sign and check, so they share one secret key: HMAC-SHA256.
"""

from __future__ import annotations

import hashlib
import hmac
import struct

KEY_BYTES = 32
PROOF_BYTES = 32

_CONTEXT = b"sage adoption 2\0"
_RECEIPT_CONTEXT = b"sage receipt 1\0"
_NUMBERS = struct.Struct("<QQH")


class AdoptionKey:
    """The secret of a fleet's schedulers.  Implements ``control.adoption.proofs.Proofs``, and signs receipts."""

    def __init__(self, secret: bytes) -> None:
        """``secret``: KEY_BYTES random bytes."""
        self._start = hmac.new(secret, _CONTEXT, hashlib.sha256)
        self._receipts = hmac.new(secret, _RECEIPT_CONTEXT, hashlib.sha256)

    def proof(self, instance_id: str, epoch: int, number: int, content: bytes) -> bytes:
        """Return the proof that a scheduler sent this content, as this attempt, to this instance."""
        name = instance_id.encode()
        signed = self._start.copy()
        signed.update(_NUMBERS.pack(epoch, number, len(name)))
        signed.update(name)
        signed.update(content)
        return signed.digest()

    def proves(self, proof: bytes, instance_id: str, epoch: int, number: int, content: bytes) -> bool:
        """Return whether a proof is of exactly this."""
        return hmac.compare_digest(proof, self.proof(instance_id, epoch, number, content))

    def receipt_signature(self, content: bytes) -> bytes:
        """Return the signature of a receipt, of PROOF_BYTES."""
        signed = self._receipts.copy()
        signed.update(content)
        return signed.digest()

    def signs_receipt(self, signature: bytes, content: bytes) -> bool:
        """Return whether a signature is of exactly this receipt."""
        return hmac.compare_digest(signature, self.receipt_signature(content))

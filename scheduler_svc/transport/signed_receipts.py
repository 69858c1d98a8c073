"""Receipts as bytes: a RequestReceipt behind its signature."""

from __future__ import annotations

from typing import Protocol

from google.protobuf.message import DecodeError

from sage.controlplane.v1 import record_pb2
from scheduler_svc.control.requests.receipts import Receipt
from scheduler_svc.domain.request import RequestKey
from scheduler_svc.transport.request_records import DIGEST_VERSION

SIGNATURE_BYTES = 32
NANOSECONDS = 1e9


class Signatures(Protocol):
    """Signs receipts with the secret of a fleet's schedulers; ``storage.adoption_key`` implements it."""

    def receipt_signature(self, content: bytes) -> bytes:
        """Return the signature of a receipt, of SIGNATURE_BYTES."""
        ...

    def signs_receipt(self, signature: bytes, content: bytes) -> bool:
        """Return whether a signature is of exactly this receipt."""
        ...


class SignedReceipts:
    """Implements ``control.requests.receipts.ReceiptSigner``."""

    def __init__(self, signatures: Signatures) -> None:
        self._signatures = signatures

    def write(self, receipt: Receipt) -> bytes:
        """Return a receipt, signed."""
        content = record_pb2.RequestReceipt(
            tenant=receipt.key.tenant,
            request_id=receipt.key.request_id,
            digest=receipt.digest,
            digest_version=DIGEST_VERSION,
            epoch=receipt.epoch,
            accepted_at_ns=max(0, int(receipt.accepted_at * NANOSECONDS)),
            deadline_at_ns=max(0, int(receipt.deadline_at * NANOSECONDS)),
        ).SerializeToString()
        return self._signatures.receipt_signature(content) + content

    def read(self, signed: bytes) -> Receipt | None:
        """Return a receipt; None if no scheduler of this fleet wrote it, or if its digest is made another way."""
        signature, content = signed[:SIGNATURE_BYTES], signed[SIGNATURE_BYTES:]
        if not self._signatures.signs_receipt(signature, content):
            return None
        try:
            wire = record_pb2.RequestReceipt.FromString(content)
        except DecodeError:
            return None
        if wire.digest_version != DIGEST_VERSION:
            return None
        return Receipt(
            key=RequestKey(tenant=wire.tenant, request_id=wire.request_id),
            digest=wire.digest,
            epoch=wire.epoch,
            accepted_at=wire.accepted_at_ns / NANOSECONDS,
            deadline_at=wire.deadline_at_ns / NANOSECONDS,
        )

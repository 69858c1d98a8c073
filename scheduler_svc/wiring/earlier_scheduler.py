"""What an earlier scheduler left for this one, and where this one leaves the same for the next."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from scheduler_svc.control.adoption.proofs import Proofs
from scheduler_svc.control.leadership.earlier_instance import EarlierInstance
from scheduler_svc.control.requests.receipts import ReceiptSigner
from scheduler_svc.storage.adoption_key import AdoptionKey
from scheduler_svc.storage.state import State
from scheduler_svc.transport.signed_receipts import SignedReceipts


@dataclass(frozen=True, kw_only=True, slots=True)
class EarlierScheduler:
    """What an earlier scheduler left, and what is left for the next one."""

    instances: Mapping[str, EarlierInstance] = field(default_factory=dict)  # that had a session
    proofs: Proofs | None = None  # None: executors hold nothing for the next scheduler
    receipts: ReceiptSigner | None = None  # None: clients hold nothing for the next scheduler
    wall: Callable[[], float] = time.time  # seconds since 1970, which receipts count in
    keep_instances: Callable[[Mapping[str, EarlierInstance]], None] = lambda instances: None
    """Told which instances have a session, whenever that changes."""


NO_EARLIER_SCHEDULER = EarlierScheduler()
"""Nothing is left, and nothing will be."""


def earlier_scheduler(state: State | None, proofs: AdoptionKey | None) -> EarlierScheduler:
    """Return what is in ``state``.  ``proofs``: checks what executors hold; None, as the state: nothing is kept."""
    if state is None or proofs is None:
        return NO_EARLIER_SCHEDULER
    return EarlierScheduler(
        instances=state.instances,
        proofs=proofs,
        receipts=SignedReceipts(proofs),
        keep_instances=state.keep_instances,
    )

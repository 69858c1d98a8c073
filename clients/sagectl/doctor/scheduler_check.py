"""What one scheduler answers: asks it alone, and times it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import sage_client as sage
from sagectl.doctor.certificate import Unknown, days_left
from sagectl.options.connection import Connector
from sagectl.output.sentences import sentence

ALONE_LIMIT_S = 3.0
"""How long each scheduler may take to answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What one address answered."""

    address: str
    error: str  # why it did not answer; empty if it did
    status: sage.SchedulerStatus | None
    took_s: float
    clock_off_s: float  # its clock less this machine's, to within half of ``took_s``
    certificate_days: float | None  # until it ends; None: it has none, or it is not known


def look(connector: Connector, address: str) -> Found:
    """Ask one scheduler what it is."""
    days = _certificate_days(connector, address)
    asked_at = time.time()
    try:
        with connector.client(address, limit_s=ALONE_LIMIT_S) as client:
            asked_at = time.time()
            status = client.get_scheduler()
    except sage.ConfigurationError:
        raise
    except sage.SageError as error:
        return Found(
            address=address,
            error=_why(error, connector),
            status=None,
            took_s=time.time() - asked_at,
            clock_off_s=0.0,
            certificate_days=days,
        )
    answered_at = time.time()
    return Found(
        address=address,
        error="",
        status=status,
        took_s=answered_at - asked_at,
        clock_off_s=status.clock.timestamp() - (asked_at + answered_at) / 2,
        certificate_days=days,
    )


def _why(error: sage.SageError, connector: Connector) -> str:
    if isinstance(error, sage.WaitTimeoutError) and not error.reason:
        return f"no answer within {min(connector.call_timeout, ALONE_LIMIT_S):g} s"
    return sentence(error, name_of=str)


def _certificate_days(connector: Connector, address: str) -> float | None:
    if not (connector.tls or connector.tls_ca or connector.tls_cert):
        return None
    try:
        return days_left(address, connector.tls_ca, connector.tls_cert, connector.tls_key, timeout_s=ALONE_LIMIT_S)
    except Unknown:
        return None


def leader_of(schedulers: Sequence[Found]) -> Found | None:
    """Return the scheduler that leads; of several that say so the one whose epoch counts."""
    leaders = [(each.status.epoch, each) for each in schedulers if each.status is not None and each.status.leads]
    return max(leaders, key=lambda pair: pair[0])[1] if leaders else None

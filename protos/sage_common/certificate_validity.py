"""From when until when a certificate is valid."""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

_PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

_TIME = rb"(?:\x17\x0d(\d{12})Z|\x18\x0f(\d{14})Z)"  # UTCTime until 2049, GeneralizedTime after it
_VALIDITY = re.compile(rb"\x30." + _TIME + _TIME, re.DOTALL)
"""The field of X.509 in DER: a sequence of two times.  No other part of a certificate holds two times in a row."""


@dataclass(frozen=True, slots=True)
class Validity:
    """The times of a certificate, with their time zone."""

    begin: datetime
    end: datetime

    def problem(self, now: datetime) -> str:
        """Say why the certificate does not count at ``now``; empty if it does."""
        if now > self.end:
            return f"it ended at {self.end:%Y-%m-%d %H:%M:%S} UTC"
        if now < self.begin:
            return f"it begins at {self.begin:%Y-%m-%d %H:%M:%S} UTC"
        return ""


def validity_of(pem: bytes) -> Validity | None:
    """Return that of the first certificate in a PEM file; None where it cannot be found out."""
    found = _PEM.search(pem)
    if found is None:
        return None
    try:
        times = _VALIDITY.search(ssl.PEM_cert_to_DER_cert(found.group().decode()))
        if times is None:
            return None
        short_begin, begin, short_end, end = (each.decode() if each else "" for each in times.groups())
        return Validity(_time(short_begin, begin), _time(short_end, end))
    except ValueError:
        return None


def _time(short: str, long: str) -> datetime:
    """Return a UTCTime or a GeneralizedTime.  A UTCTime's years are those from 1950 to 2049."""
    century = "" if long else "19" if short >= "50" else "20"
    return datetime.strptime(f"{century}{short or long}", "%Y%m%d%H%M%S").replace(tzinfo=UTC)

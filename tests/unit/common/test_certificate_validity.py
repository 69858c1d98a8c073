"""When a certificate begins and ends, read from its file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sage_common.certificate_validity import Validity, validity_of
from tests.support.authority import Authority, needs_openssl

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2026, 2, 1, tzinfo=UTC)


@needs_openssl
@pytest.mark.parametrize("days", [2, 20_000])  # the second ends after 2049, which is written in another way
def test_the_times_of_a_certificate(tmp_path: Path, days: int) -> None:
    now = datetime.now(UTC)
    certificate, key = Authority(tmp_path / "ca").issue("x", days=days)
    found = validity_of(certificate.read_bytes() + b"-----BEGIN CERTIFICATE-----\nno more\n-----END CERTIFICATE-----")
    assert found is not None
    assert abs(found.begin - now) < timedelta(minutes=5)
    assert found.end - found.begin == timedelta(days=days)
    assert validity_of(key.read_bytes()) is None


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN CERTIFICATE-----\n!\n-----END CERTIFICATE-----"])
def test_what_is_no_certificate_has_no_times(pem: bytes) -> None:
    assert validity_of(pem) is None


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        (BEGIN - timedelta(seconds=1), "it begins at 2026-01-01 00:00:00 UTC"),
        (BEGIN, ""),
        (END, ""),
        (END + timedelta(seconds=1), "it ended at 2026-02-01 00:00:00 UTC"),
    ],
)
def test_a_certificate_counts_between_its_times(now: datetime, problem: str) -> None:
    assert Validity(BEGIN, END).problem(now) == problem

"""What each tenant's files and batches count, and whether more fits."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.domain.errors import LimitReached, TenantLimitReached

RETRY_S = 60.0
"""After how many seconds a tenant at its limit is asked to try again: something is deleted by then, or is not."""


@dataclass(slots=True)
class _Use:
    files: int = 0
    batches: int = 0
    unfinished: int = 0
    bytes: int = 0


class Quotas:
    """Counts files, batches and bytes, by tenant and of all."""

    def __init__(self, settings: BatchSettings) -> None:
        self._settings = settings
        self._all = _Use()
        self._tenants: dict[str, _Use] = {}

    @property
    def bytes(self) -> int:
        """Bytes of all tenants."""
        return self._all.bytes

    def take(self, tenant: str, *, files: int = 0, batches: int = 0, unfinished: int = 0, size_bytes: int = 0) -> None:
        """Count something new, if it fits.  Raises TenantLimitReached, LimitReached; then nothing is counted."""
        use, total, settings = self._tenants.get(tenant, _Use()), self._all, self._settings
        checks = (
            ("files", files, use.files, settings.tenant_files, total.files, settings.files),
            ("batches", batches, use.batches, settings.tenant_batches, total.batches, settings.batches),
            (
                *("unfinished", unfinished, use.unfinished, settings.tenant_unfinished),
                *(total.unfinished, settings.unfinished),
            ),
            ("bytes", size_bytes, use.bytes, settings.tenant_bytes, total.bytes, settings.bytes),
        )
        for name, more, of_tenant, tenant_limit, of_all, limit in checks:
            if more and of_tenant + more > tenant_limit:
                raise TenantLimitReached(tenant, f"batches.tenant_{name}", tenant_limit, RETRY_S)
            if more and of_all + more > limit:
                raise LimitReached(f"batches.{name}", limit)
        self.add(tenant, files=files, batches=batches, unfinished=unfinished, size_bytes=size_bytes)

    def add(self, tenant: str, *, files: int = 0, batches: int = 0, unfinished: int = 0, size_bytes: int = 0) -> None:
        """Count something that is there already, or with negative numbers that is there no more."""
        use = self._tenants.setdefault(tenant, _Use())
        for each in (use, self._all):
            each.files += files
            each.batches += batches
            each.unfinished += unfinished
            each.bytes += size_bytes
        if use == _Use():
            del self._tenants[tenant]

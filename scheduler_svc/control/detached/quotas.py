"""What the journal keeps of each tenant's detached work, and whether more fits."""

from __future__ import annotations

from dataclasses import dataclass

from scheduler_svc.control.detached.settings import DetachedSettings
from scheduler_svc.domain.errors import LimitReached, TenantLimitReached
from scheduler_svc.domain.request import RequestKey

RETRY_S = 60.0
"""After how many seconds a tenant at its limit is asked to try again: results are deleted by then, or are not."""


@dataclass(slots=True)
class _Use:
    requests: int = 0
    size_bytes: int = 0


class Quotas:
    """Counts requests and bytes by tenant."""

    def __init__(self, settings: DetachedSettings) -> None:
        self._settings = settings
        self._sizes: dict[RequestKey, int] = {}
        self._tenants: dict[str, _Use] = {}

    def __len__(self) -> int:
        return len(self._sizes)

    def check(self, tenant: str, size_bytes: int) -> None:
        """Check that one more request of a tenant fits.  Raises TenantLimitReached, LimitReached."""
        use, settings = self._tenants.get(tenant, _Use()), self._settings
        if use.requests >= settings.tenant_requests:
            raise TenantLimitReached(tenant, "detached.tenant_requests", settings.tenant_requests, RETRY_S)
        if use.size_bytes + size_bytes > settings.tenant_bytes:
            raise TenantLimitReached(tenant, "detached.tenant_bytes", settings.tenant_bytes, RETRY_S)
        if len(self._sizes) >= settings.requests:
            raise LimitReached("detached requests", settings.requests)

    def add(self, key: RequestKey, size_bytes: int) -> None:
        """Count a request, or more bytes of one that is counted."""
        use = self._tenants.setdefault(key.tenant, _Use())
        use.requests += key not in self._sizes
        use.size_bytes += size_bytes
        self._sizes[key] = self._sizes.get(key, 0) + size_bytes

    def drop(self, key: RequestKey) -> None:
        """Count a request no more; nothing happens if it is not counted."""
        size = self._sizes.pop(key, None)
        if size is None:
            return
        use = self._tenants[key.tenant]
        use.requests -= 1
        use.size_bytes -= size
        if not use.requests:
            del self._tenants[key.tenant]

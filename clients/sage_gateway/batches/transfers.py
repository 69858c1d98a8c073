"""How many files are on their way at once in one process, in all and of one caller."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from sage_client import LimitReachedError, TenantLimitError

LIMIT = 64
"""Files of all callers, up or down."""

CALLER_LIMIT = 16
"""Files of one caller."""


class Transfers:
    """The files that are on their way, by caller."""

    def __init__(self) -> None:
        self._of_caller = Counter[str]()

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Count a file for as long as it is on its way.  Raises TenantLimitError, LimitReachedError."""
        if self._of_caller[caller] >= CALLER_LIMIT:
            what = f"{CALLER_LIMIT} files of this caller are on their way at this gateway"
            raise TenantLimitError(what, reason="TENANT_LIMIT")
        if self._of_caller.total() >= LIMIT:
            what = f"{LIMIT} files are on their way at this gateway"
            raise LimitReachedError(what, reason="LIMIT_REACHED")
        self._of_caller[caller] += 1
        try:
            yield
        finally:
            self._of_caller[caller] -= 1
            if not self._of_caller[caller]:
                del self._of_caller[caller]

"""Who owns the file or batch that a message is about, and which page of them it asks for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

from scheduler_svc.access.caller import caller
from scheduler_svc.control.journal.batches import OwnedId, StoredBatch, StoredFile
from scheduler_svc.domain.errors import BatchNotFound, FieldViolation, FileNotFound, InvalidRequest
from scheduler_svc.transport.request_limits import ID_CHARACTERS
from scheduler_svc.transport.submissions import DEFAULT_TENANT
from scheduler_svc.transport.violations import Violations

PAGE_SIZE = 100
PAGE_LIMIT = 1_000

T = TypeVar("T", StoredFile, StoredBatch)


def owner(named: str) -> str:
    """Return the tenant that something new belongs to, or whose things are listed.  Raises PermissionDenied."""
    return caller().tenant_for(named) or DEFAULT_TENANT


def file_seen(named: str, file_id: str) -> OwnedId:
    """Return the key of a file that a message names.  Raises FileNotFound if its tenant's are not to be seen."""
    tenant = caller().tenant_of(named)
    if tenant is None:
        raise FileNotFound(file_id)
    return OwnedId(tenant=tenant or DEFAULT_TENANT, id=file_id)


def batch_seen(named: str, batch_id: str) -> OwnedId:
    """Return the key of a batch that a message names.  Raises BatchNotFound if its tenant's are not to be seen."""
    tenant = caller().tenant_of(named)
    if tenant is None:
        raise BatchNotFound(batch_id)
    return OwnedId(tenant=tenant or DEFAULT_TENANT, id=batch_id)


def check_text(field: str, value: str, violations: Violations, most: int = ID_CHARACTERS) -> None:
    """Note what is wrong with an id or a name."""
    if len(value) > most:
        violations.add(field, f"has {len(value)} characters; the limit is {most}")
    elif not value.isprintable():
        violations.add(field, "holds characters that cannot be printed")


def raise_any(violations: Violations) -> None:
    """Raise InvalidRequest if there are violations."""
    if violations:
        raise InvalidRequest(violations)


def page(found: Iterable[T], size: int, after: str) -> tuple[list[T], str]:
    """Return some of what a tenant has, the latest first, and the token of the next page; empty: there is none.

    ``after``: id of the one before the first.  Raises InvalidRequest.
    """
    if size > PAGE_LIMIT:
        raise _invalid("page_size", f"is {size}; the limit is {PAGE_LIMIT}")
    ordered = sorted(found, key=lambda each: (each.created_at, each.key.id), reverse=True)
    start = 0
    if after:
        start = next((place + 1 for place, each in enumerate(ordered) if each.key.id == after), -1)
        if start < 0:
            raise _invalid("page_token", "is the id of nothing that the tenant has")
    end = start + (size or PAGE_SIZE)
    some = ordered[start:end]
    return some, some[-1].key.id if some and end < len(ordered) else ""


def _invalid(field: str, description: str) -> InvalidRequest:
    return InvalidRequest([FieldViolation(field=field, description=description)])

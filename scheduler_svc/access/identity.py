"""Who calls: a name and what is granted to it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sage_common.grants import Grant, Role, matched

SHOWN = 256
"""Characters that a refusal repeats of a name."""

SEES_EVERY_TENANT = frozenset({Role.OPERATOR, Role.OBSERVER})
"""Roles that may explain, cancel (if the table of RPCs lets them) and see the requests of every tenant."""


class Denied(Exception):
    """A call is refused for who its caller is; a sentence that tells nothing of other tenants."""


class Unauthenticated(Denied):
    """The caller does not prove who it is."""


class PermissionDenied(Denied):
    """The caller is known and may not do this."""

    def __init__(self, text: str, *, field: str = "") -> None:
        self.field = field  # of the message, where one field is at fault
        super().__init__(text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Proof:
    """The key that showed who a caller is: one of the keys file, or one that signed a token.  Both can be revoked."""

    source: Literal["key", "jwt"]
    key: str  # a hash of it: nothing that can be used


@dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A caller.  Without a grant it is anyone at all, who may do everything: no identities are configured."""

    name: str
    grant: Grant | None = None
    proof: Proof | None = field(default=None, compare=False)

    @property
    def role(self) -> Role | None:
        """The role; None if no identities are configured."""
        return self.grant.role if self.grant is not None else None

    @property
    def sees_every_tenant(self) -> bool:
        """Whether the requests of all tenants may be seen."""
        return self.role is None or self.role in SEES_EVERY_TENANT

    def tenant_for(self, named: str) -> str:
        """Return the tenant that a new request belongs to, where the message names ``named``; empty: the default one.

        Raises:
            PermissionDenied: this identity may not send requests as that tenant.
        """
        grant = self.grant
        if grant is None:
            return named
        if grant.role is Role.APPLICATION and named in ("", grant.tenant):
            return grant.tenant
        if grant.role is Role.GATEWAY and _in(grant.tenants, named):
            return named
        asked = f"as {named[:SHOWN]!r}" if named else "without a tenant"
        raise PermissionDenied(f"tenant: {self.name} may not send requests {asked}", field="tenant")

    def tenant_of(self, named: str) -> str | None:
        """Return the tenant of an earlier request that the message names; None if its requests are not to be seen."""
        if self.sees_every_tenant:
            return named
        try:
            return self.tenant_for(named)
        except PermissionDenied:
            return None

    def check_instance(self, instance_id: str) -> None:
        """Check that this identity may register an instance.  Raises PermissionDenied."""
        if self.grant is not None and not _in(self.grant.instances, instance_id):
            raise PermissionDenied(f"instance_id: {self.name} may not register {instance_id!r}", field="instance_id")


ANYONE = Identity(name="anyone")
"""Every caller, where no identities are configured."""


def _in(patterns: tuple[str, ...], name: str) -> bool:
    return any(matched(pattern, name) is not None for pattern in patterns)

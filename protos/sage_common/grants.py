"""What an identity may do: its role, and the tenants or instances that the role is bound to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Role(Enum):
    """What an identity is to the scheduler; the table of RPCs says what each role may call."""

    APPLICATION = "application"  # sends requests as its one tenant
    GATEWAY = "gateway"  # sends requests as tenants from a list
    OPERATOR = "operator"  # sees and changes how the control plane works
    OBSERVER = "observer"  # sees how the control plane works
    EXECUTOR = "executor"  # offers instances


@dataclass(frozen=True, kw_only=True, slots=True)
class Grant:
    """A role and what it is bound to.  Names in ``tenants`` and ``instances`` may hold one ``*``."""

    role: Role
    tenant: str = ""  # of an application
    tenants: tuple[str, ...] = ()  # that a gateway may name
    instances: tuple[str, ...] = ()  # ids that an executor may register

    def __post_init__(self) -> None:
        """Check that the role has what it needs, and nothing else.

        Raises:
            ValueError: a sentence that names the field at fault.
        """
        for field, role in (
            ("tenant", Role.APPLICATION),
            ("tenants", Role.GATEWAY),
            ("instances", Role.EXECUTOR),
        ):
            given = getattr(self, field)
            if self.role is role and not given:
                raise ValueError(f"{field}: the role {role.value} needs it")
            if self.role is not role and given:
                raise ValueError(f"{field}: only the role {role.value} has it, not {self.role.value}")
        if not self.tenant.isprintable():
            raise ValueError("tenant: holds characters that cannot be printed")
        for pattern in (*self.tenants, *self.instances):
            check_pattern(pattern)


def role_of(name: str) -> Role:
    """Return the role of this name.  Raises ValueError that lists the roles."""
    try:
        return Role(name)
    except ValueError:
        there_are = ", ".join(role.value for role in Role)
        raise ValueError(f"role: {name!r} is not a role; there are: {there_are}") from None


def check_pattern(pattern: str) -> None:
    """Check that ``pattern`` is not empty and has at most one ``*``.  Raises ValueError."""
    if not pattern or pattern.count("*") > 1:
        raise ValueError(f"{pattern!r}: a name, with at most one *")


def matched(pattern: str, name: str) -> str | None:
    """Return what the ``*`` of ``pattern`` stands for in ``name``; None if they do not match.

    A pattern without ``*`` matches itself alone, and gives the empty string.  A ``*`` stands for one character or more.
    """
    start, star, end = pattern.partition("*")
    if not star:
        return "" if name == pattern else None
    found = name.removeprefix(start).removesuffix(end)
    return found if found and name == start + found + end else None

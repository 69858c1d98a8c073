"""Errors of fleets."""

from __future__ import annotations


class FleetError(Exception):
    """A fleet cannot be read or run as it is described: one sentence that names the field or what failed."""


class SpecificationError(FleetError):
    """The specification is wrong: one sentence that names the field."""

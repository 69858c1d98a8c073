"""The names of a fleet and its groups: labels of DNS, because Kubernetes names pods by them."""

from __future__ import annotations

from typing import Annotated

from pydantic import StringConstraints

Name = Annotated[str, StringConstraints(pattern=r"^[a-z]([a-z0-9-]*[a-z0-9])?$", max_length=40)]
"""Small letters, digits and inner hyphens, beginning with a letter; at most 40."""

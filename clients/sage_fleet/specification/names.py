"""The names of a fleet and its groups: labels of DNS, because Kubernetes names pods by them."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, StringConstraints

_PATTERN = re.compile(r"[a-z]([a-z0-9-]*[a-z0-9])?")


def _is_a_label(name: str) -> str:
    if not _PATTERN.fullmatch(name):
        raise ValueError(f"{name!r} is not a name: small letters, digits and inner hyphens, a letter first")
    return name


Name = Annotated[str, StringConstraints(max_length=40), AfterValidator(_is_a_label)]
"""Small letters, digits and inner hyphens, beginning with a letter; at most 40."""

"""The operator's sampling defaults, fitted to an engine's vocabulary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_IDS = ("stop_token_ids", "allowed_token_ids")
"""Defaults that name token ids."""


def within_vocabulary(defaults: Mapping[str, Any], vocab_size: int) -> tuple[Mapping[str, Any], frozenset[str]]:
    """Return the defaults without token ids that the vocabulary does not have, and the fields that lost some."""
    outside = frozenset(name for name in _IDS if any(each >= vocab_size for each in defaults.get(name, ())))
    if not outside:
        return defaults, outside
    fitting = {name: tuple(each for each in defaults[name] if each < vocab_size) for name in outside}
    return {**defaults, **fitting}, outside

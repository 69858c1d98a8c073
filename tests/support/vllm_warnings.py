"""Lets vLLM and PyTorch warn about themselves in the tests that import them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest


def let_vllm_warn(items: Iterable[pytest.Item], room: Path) -> None:
    """Have warnings about our code stay errors, and no other, in the tests below ``room``."""
    for item in items:
        if item.path.is_relative_to(room):
            item.add_marker(pytest.mark.filterwarnings("error:::executor_svc"))
            item.add_marker(pytest.mark.filterwarnings("default"))

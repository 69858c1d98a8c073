"""Two engines with prefix caching, made once; schedulers come and go beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_svc.engine.tiny_model import make_tiny_model
from tests.vllm.prefixes.prefix_fleet import PrefixFleet

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def prefix_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefixFleet]:
    model = ROOT / ".cache" / "tiny-model-float32"
    make_tiny_model(model, "float32")
    fleet = PrefixFleet(tmp_path_factory.mktemp("prefixes"), model)
    try:
        asyncio.run(fleet.start())
        yield fleet
    finally:
        asyncio.run(fleet.leave())

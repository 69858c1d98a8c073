"""A tiny model that takes images, and pictures that differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from tests.support.vllm_warnings import let_vllm_warn
from tests.vllm.images.pictures import PICTURES
from tests.vllm.images.vision_model import make_vision_model

ROOM = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    let_vllm_warn(items, ROOM)


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_vision_model(folder / "text", folder / "vision")
    return folder / "vision"


@pytest.fixture(scope="session")
def encode(vision_model: Path) -> Callable[[str], list[int]]:
    """The model's own tokenizer."""
    tokenizer = Tokenizer.from_file(str(vision_model / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """By name."""
    return {name: made() for name, made in PICTURES.items()}

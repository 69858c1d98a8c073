"""Tiny models that take images and audio, pictures and sounds that differ."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer

from tests.support.sounds import tone
from tests.support.vllm_warnings import let_vllm_warn
from tests.vllm.media.audio_model import RATE_HZ, make_audio_model
from tests.vllm.media.pictures import PICTURES
from tests.vllm.media.vision_model import make_vision_model

ROOM = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    let_vllm_warn(items, ROOM)


def encoder_of(model: Path) -> Callable[[str], list[int]]:
    """Return what makes token ids of text, as the model's own tokenizer does."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return lambda text: list(tokenizer.encode(text, add_special_tokens=False).ids)


@pytest.fixture(scope="session")
def vision_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_vision_model(folder / "text", folder / "vision")
    return folder / "vision"


@pytest.fixture(scope="session")
def encode(vision_model: Path) -> Callable[[str], list[int]]:
    """The tokenizer of the model that takes images."""
    return encoder_of(vision_model)


@pytest.fixture(scope="session")
def audio_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    make_audio_model(folder / "text", folder / "audio")
    return folder / "audio"


@pytest.fixture(scope="session")
def encode_for_audio(audio_model: Path) -> Callable[[str], list[int]]:
    """The tokenizer of the model that takes audio."""
    return encoder_of(audio_model)


@pytest.fixture(scope="session")
def sounds() -> dict[str, Any]:
    """Samples by name, at the rate of the model that takes audio."""
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, RATE_HZ).astype(np.float32)
    return {"low": tone(220), "high": tone(880), "long": tone(440, 1.5), "noise": noise}


@pytest.fixture(scope="session")
def pictures() -> dict[str, bytes]:
    """By name."""
    return {name: made() for name, made in PICTURES.items()}

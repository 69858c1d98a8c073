"""An adapter of the hub is downloaded in a bounded number of bytes.  Without vLLM."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_svc.engine.vllm.adapter_download import download
from executor_svc.runtime.engine_port import AdapterSource, ModelError
from tests.unit.engine.vllm.fake_hub import MODEL, FakeHub, serving

CONFIG = json.dumps({"r": 8}).encode()
WEIGHTS = b"weights" * 100
LIMIT = len(CONFIG) + len(WEIGHTS)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS, "README.md": b"x" * LIMIT}
    hub = FakeHub(files)
    with serving(hub, monkeypatch):
        yield hub


def fetch(cache: Path, limit: int = LIMIT, name: str = MODEL) -> dict[str, bytes]:
    path = download(AdapterSource(name="legal", source=name), cache, limit)
    return {file.name: file.read_bytes() for file in Path(path).iterdir()}


def test_what_fits_is_downloaded_and_nothing_else(hub: FakeHub, tmp_path: Path) -> None:
    assert fetch(tmp_path) == {"adapter_config.json": CONFIG, "adapter_model.safetensors": WEIGHTS}


def test_weights_of_two_kinds_are_downloaded_once(hub: FakeHub, tmp_path: Path) -> None:
    hub.files["adapter_model.bin"] = WEIGHTS
    assert "adapter_model.bin" not in fetch(tmp_path)
    del hub.files["adapter_model.safetensors"]
    assert "adapter_model.bin" in fetch(tmp_path / "other")


def test_files_that_are_too_large_together_are_refused_before_any_is_fetched(hub: FakeHub, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=rf"{MODEL} has {LIMIT} bytes; vllm.adapter_bytes allows {LIMIT - 1}"):
        fetch(tmp_path, LIMIT - 1)
    assert hub.fetched == []


def test_a_file_whose_size_the_hub_does_not_tell_is_refused(hub: FakeHub, tmp_path: Path) -> None:
    hub.told_sizes["adapter_model.safetensors"] = None
    with pytest.raises(ModelError, match=r"does not say how large adapter_model\.safetensors"):
        fetch(tmp_path)
    assert hub.fetched == []


def test_a_download_that_grows_beyond_what_the_hub_said_is_ended(hub: FakeHub, tmp_path: Path) -> None:
    hub.told_sizes["adapter_model.safetensors"] = 1
    with pytest.raises(ModelError, match=f"more bytes of {MODEL} came than the hub said"):
        fetch(tmp_path, LIMIT - 1)
    blobs = [file for file in tmp_path.rglob("blobs/*") if file.is_file()]
    assert sum(file.stat().st_size for file in blobs) < LIMIT

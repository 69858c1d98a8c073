"""Where the files of an added adapter are found, and why some are refused.  Without vLLM."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm import adapter_download, adapter_files
from executor_svc.engine.vllm.adapter_files import find_adapter
from executor_svc.engine.vllm.arguments import engine_arguments
from executor_svc.engine.vllm.settings import VllmSettings
from executor_svc.runtime.engine_port import AdapterSource, ModelError


def directory(path: Path, *, weights: bytes = b"weights", **config: Any) -> str:
    path.mkdir(exist_ok=True)
    (path / "adapter_config.json").write_text(json.dumps({"r": 8, **config}))
    (path / "adapter_model.safetensors").write_bytes(weights)
    return str(path)


def found(source: str, **more: Any) -> adapter_files.AdapterFiles:
    wanted = AdapterSource(name="legal", source=source, **more)
    return find_adapter(wanted, rank_limit=16, bytes_limit=1_000, cache_dir=None)


def test_a_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    path = directory(tmp_path / "one")
    files = found(path)
    assert (files.path, files.rank) == (path, 8)
    assert files.weights == found(directory(tmp_path / "copy")).weights
    assert files.weights != found(directory(tmp_path / "other", weights=b"others")).weights


def test_the_largest_rank_counts(tmp_path: Path) -> None:
    assert found(directory(tmp_path / "a", rank_pattern={"q_proj": 16})).rank == 16
    with pytest.raises(ModelError, match="has rank 32; this engine allows 16"):
        found(directory(tmp_path / "b", rank_pattern={"q_proj": 32}))
    with pytest.raises(ModelError, match="has rank 8; the registry allows 4"):
        found(directory(tmp_path / "c"), max_rank=4)


def test_a_source_that_is_too_long_for_a_directory_is_refused() -> None:
    with pytest.raises(ModelError, match="cannot be read"):
        found("/" + "a" * 300)


def test_what_is_missing_or_broken_is_said(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with pytest.raises(ModelError, match=f"there is no directory {path}"):
        found(str(path))
    path.mkdir()
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        found(str(path))
    for content, why in (
        ("{", "cannot be read"),
        ("[]", "holds no JSON object"),
        (" " * (adapter_files.CONFIG_BYTES + 1), "holds no JSON object of at most 1048576 bytes"),
        ("{}", "states no rank"),
        ('{"r": 0}', "states no rank"),
        ('{"r": "8"}', "states no rank"),
        ('{"r": 8}', "holds no weights"),
    ):
        (path / "adapter_config.json").write_text(content)
        with pytest.raises(ModelError, match=why):
            found(str(path))
    with pytest.raises(ModelError, match="revision is for adapters of the hub"):
        found(directory(path), revision="v1")


def test_the_cache_serves_where_the_hub_is_out_of_reach(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory(tmp_path / "cached")

    def fetch(source: AdapterSource, cache_dir: Path | None, bytes_limit: int) -> str:
        raise OSError("no route to host")

    def snapshot(source: AdapterSource, *arguments: Any, **options: Any) -> str:
        if source.source == "org/unknown":
            raise OSError("not in the cache")
        return path

    monkeypatch.setattr(adapter_download, "_fetch", fetch)
    monkeypatch.setattr(adapter_download, "_snapshot", snapshot)
    assert found("org/legal", revision="v1").path == path
    with pytest.raises(ModelError, match="org/unknown is not in the cache and the hub cannot be reached: OSError"):
        found("org/unknown")


def arguments(**settings: Any) -> dict[str, Any]:
    made = engine_arguments(ModelSettings(model="m"), VllmSettings(**settings), "/m")
    return {name: value for name, value in made.items() if "lora" in name}


def test_an_engine_has_room_in_memory_for_all_that_it_holds() -> None:
    assert arguments() == {"enable_lora": False}
    assert arguments(adapters={"a": "/a"}) == {"enable_lora": True}
    assert arguments(adapter_slots=2) == {"enable_lora": True, "max_loras": 2, "max_cpu_loras": 2}
    many = arguments(adapters={"a": "/a"}, adapter_slots=20)
    assert many == {"enable_lora": True, "max_loras": 4, "max_cpu_loras": 21}
    chosen = arguments(adapter_slots=2, engine_args={"max_loras": 8})
    assert chosen == {"enable_lora": True, "max_loras": 8, "max_cpu_loras": 8}

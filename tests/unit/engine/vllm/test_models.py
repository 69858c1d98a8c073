"""Models: local directories and hub snapshots, and a clear word about what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.vllm import models
from executor_svc.engine.vllm.models import ResolvedModel, adapter_fingerprint, resolve_model
from executor_svc.runtime.engine_port import EngineState, ModelError
from tests.unit.engine.vllm.fake_hub import COMMIT, MODEL, FakeHub, serving

FILES = {
    "config.json": b'{"model_type": "small"}',
    "model.safetensors": b"weights" * 1000,
    "tokenizer.json": b"{}",
}


class Progress:
    def __init__(self) -> None:
        self.fractions: list[float | None] = []
        self.messages: list[str] = []

    def __call__(self, state: EngineState, fraction: float | None, message: str) -> None:
        assert state is EngineState.DOWNLOADING
        self.fractions.append(fraction)
        self.messages.append(message)


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    directory.mkdir()
    for name, content in FILES.items():
        (directory / name).write_bytes(content)
    return directory


def resolve(progress: Progress, model: object, **settings: object) -> ResolvedModel:
    return resolve_model(ModelSettings(model=str(model), **settings), progress)  # type: ignore[arg-type]


# --- local ----------------------------------------------------------------------------------------------------


def test_a_local_directory_is_used_as_it_is(local: Path, progress: Progress) -> None:
    resolved = resolve(progress, local)
    assert resolved.path == str(local)
    assert resolved.revision is None
    assert progress.fractions == [1.0]


def test_a_chat_template_file_replaces_the_models_own(local: Path, tmp_path: Path, progress: Progress) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    assert resolve(progress, local, chat_template=template).chat_template == "{{ messages }}"


def test_a_chat_template_file_that_is_not_there_is_named(local: Path, tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(ModelError, match=r"chat_template.*missing\.jinja"):
        resolve(progress, local, chat_template=tmp_path / "missing.jinja")


def test_a_local_directory_has_no_revision(local: Path, progress: Progress) -> None:
    with pytest.raises(ModelError, match="local directory"):
        resolve(progress, local, revision="main")


@pytest.mark.parametrize("name", ["/no/such/model", "./here", "a/b/c"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(name: str, progress: Progress) -> None:
    with pytest.raises(ModelError, match=f"no directory {name}"):
        resolve(progress, name)


def test_a_file_is_not_a_model(local: Path, progress: Progress) -> None:
    with pytest.raises(ModelError, match="not a directory"):
        resolve(progress, local / "config.json")


def test_a_directory_without_config_is_not_a_model(local: Path, progress: Progress) -> None:
    (local / "config.json").unlink()
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(progress, local)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json"])
@pytest.mark.parametrize("content", [b"{half", b"\xff\xfe", b"[]"])
def test_unreadable_json_is_named(local: Path, progress: Progress, name: str, content: bytes) -> None:
    (local / name).write_bytes(content)
    with pytest.raises(ModelError, match=name):
        resolve(progress, local)


def test_a_directory_without_weights_is_not_a_model(local: Path, progress: Progress) -> None:
    (local / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="no weights"):
        resolve(progress, local)


def test_empty_weights_are_incomplete(local: Path, progress: Progress) -> None:
    (local / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="incomplete"):
        resolve(progress, local)


def test_a_missing_shard_is_named(local: Path, progress: Progress) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-00002.safetensors"}}
    (local / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"lacks model-00002\.safetensors"):
        resolve(progress, local)


# --- the hub --------------------------------------------------------------------------------------------------


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    hub = FakeHub(dict(FILES))
    with serving(hub, monkeypatch):
        yield hub


def test_a_hub_model_is_downloaded_at_its_commit(hub: FakeHub, tmp_path: Path, progress: Progress) -> None:
    resolved = resolve(progress, MODEL, cache_dir=tmp_path)
    assert resolved.revision == COMMIT
    assert Path(resolved.path).is_relative_to(tmp_path)
    assert {file.name: file.read_bytes() for file in Path(resolved.path).iterdir()} == FILES
    assert progress.fractions[0] is None
    assert progress.fractions[-1] == 1.0


def test_a_second_start_downloads_nothing(hub: FakeHub, tmp_path: Path, progress: Progress) -> None:
    resolve(progress, MODEL, cache_dir=tmp_path)
    hub.fetched.clear()
    assert resolve(progress, MODEL, cache_dir=tmp_path, revision=COMMIT).revision == COMMIT
    assert hub.fetched == []


def test_other_frameworks_and_doubled_weights_are_not_downloaded(
    hub: FakeHub, tmp_path: Path, progress: Progress
) -> None:
    hub.files |= {"pytorch_model.bin": b"x", "model.onnx": b"x", "original/weights.pth": b"x"}
    resolve(progress, MODEL, cache_dir=tmp_path)
    assert sorted(hub.fetched) == sorted(FILES)


def test_weights_in_the_old_format_are_downloaded_when_there_are_no_others(
    hub: FakeHub, tmp_path: Path, progress: Progress
) -> None:
    hub.files["pytorch_model.bin"] = hub.files.pop("model.safetensors")
    resolve(progress, MODEL, cache_dir=tmp_path)
    assert "pytorch_model.bin" in hub.fetched


def test_a_download_shows_how_far_it_is(
    hub: FakeHub, tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    class File:
        rfilename, size, blob_id, lfs = "model.safetensors", 100, "abc", None

    monkeypatch.setattr(models, "WATCH_PERIOD_S", 0.001)
    seen: list[float | None] = []
    (tmp_path / "abc.incomplete").write_bytes(b"x" * 25)
    (tmp_path / "of-an-older-revision").write_bytes(b"x" * 1000)
    with models._DownloadProgress(tmp_path, [File()], lambda fraction, text: seen.append(fraction)):
        while not seen:
            pass
    assert seen[0] == 0.25


def test_a_model_the_hub_does_not_have(hub: FakeHub, tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(ModelError, match="no model 'someone/else'"):
        resolve(progress, "someone/else", cache_dir=tmp_path)


def test_a_revision_the_model_does_not_have(hub: FakeHub, tmp_path: Path, progress: Progress) -> None:
    with pytest.raises(ModelError, match="no revision 'v9'"):
        resolve(progress, MODEL, cache_dir=tmp_path, revision="v9")


def test_a_gated_model_says_what_to_do(hub: FakeHub, tmp_path: Path, progress: Progress) -> None:
    hub.gated = True
    with pytest.raises(ModelError, match="HF_TOKEN"):
        resolve(progress, MODEL, cache_dir=tmp_path)


def test_a_broken_model_of_the_hub_is_as_broken_as_a_local_one(
    hub: FakeHub, tmp_path: Path, progress: Progress
) -> None:
    del hub.files["config.json"]
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(progress, MODEL, cache_dir=tmp_path)


def test_an_id_that_is_none(progress: Progress) -> None:
    with pytest.raises(ModelError, match="neither a directory nor a hub id"):
        resolve(progress, "not an id!")


def test_without_the_hub_the_cache_serves(tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, serving(hub := FakeHub(dict(FILES)), patch):
        there = resolve(progress, MODEL, cache_dir=tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.url)  # nobody listens there any more
    assert resolve(progress, MODEL, cache_dir=tmp_path) == there
    assert "cannot be reached" in progress.messages[-1]


def test_without_the_hub_and_the_cache_there_is_no_model(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(ModelError, match="hub cannot be reached"):
        resolve(progress, MODEL, cache_dir=tmp_path)


def test_an_adapters_fingerprint_tells_its_weights_apart(tmp_path: Path) -> None:
    found = set()
    for name, weights in (("a", b"one"), ("b", b"two"), ("c", b"one")):
        path = tmp_path / name
        path.mkdir()
        (path / "adapter_config.json").write_text("{}")
        (path / "adapter_model.safetensors").write_bytes(weights)
        found.add(adapter_fingerprint(str(path)))
    assert len(found) == 2, "the directory's name does not count"


def test_an_adapter_of_a_hub_is_known_by_its_id() -> None:
    assert adapter_fingerprint("org/adapter") == "org/adapter"

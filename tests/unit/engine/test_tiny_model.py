"""The tiny model is made whole, the same each time, once; and nothing but it is ever replaced."""

from __future__ import annotations

import json
import struct
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tokenizers import Tokenizer, models

from executor_svc.engine import tiny_model
from executor_svc.engine.tiny_model import make_tiny_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("models") / "tiny"
    assert make_tiny_model(directory)
    return directory


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the files' contents do not matter, they take no time to make."""
    monkeypatch.setattr(tiny_model, "_train_tokenizer", lambda: Tokenizer(models.BPE()))
    monkeypatch.setattr(tiny_model, "_write_weights", lambda path, dtype: path.write_bytes(b"weights"))


def contents(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_made_twice_it_is_the_same_to_the_byte(model: Path, tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "again")
    assert contents(tmp_path / "again") == contents(model)


def test_a_complete_one_is_left_alone(model: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in model.iterdir()}
    assert not make_tiny_model(model)
    assert {path: path.stat().st_mtime_ns for path in model.iterdir()} == before


@pytest.mark.usefixtures("quick")
def test_one_of_another_recipe_is_made_anew(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "tiny", "bfloat16")
    assert make_tiny_model(tmp_path / "tiny", "float32")
    assert json.loads((tmp_path / "tiny" / "config.json").read_text())["torch_dtype"] == "float32"


@pytest.mark.usefixtures("quick")
def test_somebody_elses_directory_is_refused_and_untouched(tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="not a tiny model"):
        make_tiny_model(tmp_path)
    assert contents(tmp_path) == {"precious.txt": b"mine"}


@pytest.mark.usefixtures("quick")
def test_a_failure_on_the_way_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path, dtype: str) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(tiny_model, "_write_weights", fail)
    with pytest.raises(OSError, match="disk full"):
        make_tiny_model(tmp_path / "tiny")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("quick")
def test_several_may_make_it_at_once(tmp_path: Path) -> None:
    make_tiny_model(tmp_path / "alone")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(make_tiny_model, [tmp_path / "crowd" / "tiny"] * 8))
    assert contents(tmp_path / "crowd" / "tiny") == contents(tmp_path / "alone")
    assert [path.name for path in (tmp_path / "crowd").iterdir()] == ["tiny"]


def test_the_tokenizer_has_every_id_the_config_says_and_loses_no_byte(model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    config = json.loads((model / "config.json").read_text())
    text = "The cat sat.\n\tnaïve — 猫 🐈 \x00"
    assert tokenizer.get_vocab_size() == config["vocab_size"] == 4096
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    assert tokenizer.token_to_id("<|im_end|>") == config["eos_token_id"]


def test_prose_takes_fewer_tokens_than_half_its_letters(model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    text = "The quick brown fox jumps over the lazy dog while the others are looking at it."
    assert len(tokenizer.encode(text).ids) < len(text) / 2


def test_the_weights_file_says_what_it_holds(model: Path) -> None:
    raw = (model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    tensors = json.loads(raw[8 : 8 + length])
    tensors.pop("__metadata__")
    assert tensors["lm_head.weight"]["shape"] == [4096, 256]
    assert max(tensor["data_offsets"][1] for tensor in tensors.values()) == len(raw) - 8 - length


@pytest.mark.usefixtures("quick")
def test_the_command_says_what_it_did(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert tiny_model.main(["--out", str(model)]) == 0
    assert "found" in capsys.readouterr().out
    (tmp_path / "precious.txt").write_text("mine")
    assert tiny_model.main(["--out", str(tmp_path)]) == 1
    assert str(tmp_path) in capsys.readouterr().err

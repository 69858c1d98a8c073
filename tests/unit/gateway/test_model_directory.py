"""A model's files, as vLLM looks for them."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from sage_client import ModelFiles
from sage_gateway.model_directory import UnusableFiles, write_model
from tests.unit.gateway.fleet_of_models import ListedModels, model


@pytest.fixture
async def files() -> ModelFiles:
    return await ListedModels(model()).get_model_files("m")


def with_tokenizer(files: ModelFiles, tokenizer: bytes) -> ModelFiles:
    its_hash = hashlib.sha256(tokenizer).hexdigest()
    return replace(files, tokenizer=tokenizer, model=replace(files.model, tokenizer_hash=its_hash))


def test_the_files_have_their_names(files: ModelFiles, tmp_path: Path) -> None:
    write_model(replace(files, generation_config_json='{"top_k": 3}'), tmp_path)
    assert {each.name for each in tmp_path.iterdir()} == {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert (config["eos_token"], config["chat_template"], config["model_max_length"]) == ("</s>", "T", 100)


def test_a_processor_has_the_template_of_the_executors(files: ModelFiles, tmp_path: Path) -> None:
    write_model(replace(files, processor_files={"processor_config.json": "{}"}), tmp_path)
    assert (tmp_path / "processor_config.json").read_text() == "{}"
    assert (tmp_path / "chat_template.jinja").read_text() == "T"


def test_a_model_needs_no_generation_config(files: ModelFiles, tmp_path: Path) -> None:
    write_model(files, tmp_path)
    assert not (tmp_path / "generation_config.json").exists()


def test_without_a_configuration_there_is_no_front_end(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(UnusableFiles, match=r"no config\.json"):
        write_model(replace(files, config_json=""), tmp_path)


@pytest.mark.parametrize("tokenizer", [b"", b"[]", b"{}", b"\xff"])
def test_a_tokenizer_that_is_none_is_refused(files: ModelFiles, tmp_path: Path, tokenizer: bytes) -> None:
    with pytest.raises(UnusableFiles, match="tokenizer"):
        write_model(with_tokenizer(files, tokenizer), tmp_path)


def test_a_tokenizer_that_the_executors_do_not_have_is_refused(files: ModelFiles, tmp_path: Path) -> None:
    with pytest.raises(UnusableFiles, match="executors have"):
        write_model(replace(files, tokenizer=files.tokenizer + b" "), tmp_path)
    assert not list(tmp_path.iterdir())


def test_quantized_weights_are_not_spoken_of(files: ModelFiles, tmp_path: Path) -> None:
    config = '{"model_type": "qwen3", "quantization_config": {"quant_method": "fp8"}}'
    write_model(replace(files, config_json=config), tmp_path)
    assert json.loads((tmp_path / "config.json").read_text()) == {"model_type": "qwen3"}


@pytest.mark.parametrize("config", ["{", "[]"])
def test_a_configuration_that_is_none_is_refused(files: ModelFiles, tmp_path: Path, config: str) -> None:
    with pytest.raises(UnusableFiles, match=r"config\.json"):
        write_model(replace(files, config_json=config), tmp_path)


def test_files_that_images_are_processed_with_are_written_and_no_others(files: ModelFiles, tmp_path: Path) -> None:
    found = {"processor_config.json": "{}", "../outside.json": "{}"}
    directory = tmp_path / "model"
    directory.mkdir()
    write_model(replace(files, processor_files=found), directory)
    assert (directory / "processor_config.json").read_text() == "{}"
    assert not (tmp_path / "outside.json").exists()

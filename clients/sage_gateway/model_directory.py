"""Writes a model's files where vLLM looks for them."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from sage_client import ModelFiles
from sage_wire.protocol import PROCESSOR_FILES

TOKENIZER = "tokenizer.json"


class UnusableFiles(Exception):
    """The files of a model do not suffice for a front end; ``str()`` says what is missing."""


def write_model(files: ModelFiles, directory: Path) -> None:
    """Write the files of a model, without weights.

    Raises:
        UnusableFiles: there is no configuration, or the tokenizer is none, or not the one that the executors have.
    """
    found = hashlib.sha256(files.tokenizer).hexdigest()
    if found != files.model.tokenizer_hash:
        raise UnusableFiles(f"the tokenizer came as {found[:12]}; executors have {files.model.tokenizer_hash[:12]}")
    if not files.config_json:
        raise UnusableFiles("the model's executors send no config.json; they may be of an earlier version")
    try:
        document = json.loads(files.tokenizer)
        tokenizer_json = document["tokenizer_json"]
    except (ValueError, KeyError, TypeError) as error:
        raise UnusableFiles(f"the tokenizer cannot be read: {error}") from None
    (directory / "config.json").write_text(_without_quantization(files.config_json), encoding="utf-8")
    if files.generation_config_json:
        (directory / "generation_config.json").write_text(files.generation_config_json, encoding="utf-8")
    for name in PROCESSOR_FILES:
        if name in files.processor_files:
            (directory / name).write_text(files.processor_files[name], encoding="utf-8")
    (directory / TOKENIZER).write_text(tokenizer_json, encoding="utf-8")
    config = _tokenizer_config(document, files.model.max_model_len)
    (directory / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    if files.processor_files and "chat_template" in config:
        # vLLM's server prefers the template of a processor, and some processors bring one: this file is theirs, too.
        (directory / "chat_template.jinja").write_text(config["chat_template"], encoding="utf-8")


def _without_quantization(config_json: str) -> str:
    """Return a configuration that says nothing of quantized weights.

    They are not loaded here, and vLLM's build for this machine may refuse a quantization that the executors' can.
    """
    try:
        config = json.loads(config_json)
    except ValueError as error:
        raise UnusableFiles(f"config.json cannot be read: {error}") from None
    if not isinstance(config, dict):
        raise UnusableFiles("config.json is not a JSON object")
    config.pop("quantization_config", None)
    return json.dumps(config)


def _tokenizer_config(document: dict[str, Any], max_model_len: int | None) -> dict[str, Any]:
    special = {name: token for name, token in (document.get("special_tokens") or {}).items() if isinstance(token, str)}
    config: dict[str, Any] = {
        **special,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
    }
    if max_model_len:
        config["model_max_length"] = max_model_len
    if document.get("chat_template"):
        config["chat_template"] = document["chat_template"]
    return config

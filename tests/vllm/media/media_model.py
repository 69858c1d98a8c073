"""What the tiny models that take images or audio are made of: the tiny text model's files, and weights of a tower."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from executor_svc.engine.tiny_model import make_tiny_model


def write_json(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def chat_template(kind: str, placeholder: str) -> str:
    """A template whose messages have parts; ``kind``: the type of those that ``placeholder`` stands for."""
    return (
        "{% for message in messages %}"
        "<|im_start|>{{ message['role'] }}\n"
        "{% for part in message['content'] %}"
        "{% if part['type'] == '" + kind + "' %}" + placeholder + "{% else %}{{ part['text'] }}{% endif %}"
        "{% endfor %}<|im_end|>\n"
        "{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )


def write_text_side(
    text_model: Path, directory: Path, special: Sequence[str], template: str
) -> tuple[dict[str, Any], dict[str, int]]:
    """Write the tokenizer of a tiny model, which ``text_model`` has or gets, with further special tokens.

    Returns the text model's configuration, and the ids of the special tokens, which follow the vocabulary.
    """
    make_tiny_model(text_model)
    directory.mkdir()
    tokenizer = json.loads((text_model / "tokenizer.json").read_text())
    first = len(tokenizer["model"]["vocab"])
    ids = {name: first + index for index, name in enumerate(special)}
    whole = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": id_, "content": name, **whole} for name, id_ in ids.items()]
    write_json(directory / "tokenizer.json", tokenizer)
    settings = json.loads((text_model / "tokenizer_config.json").read_text())
    write_json(directory / "tokenizer_config.json", settings | {"chat_template": template})
    config = json.loads((text_model / "config.json").read_text())
    write_json(directory / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    return config | {"vocab_size": first + len(special)}, ids


class Weights:
    """A model's weights: those of a tiny model, without the norms of queries and keys, and random ones of a tower."""

    def __init__(self, text_model: Path, special: int, prefix: str) -> None:
        """``special``: tokens that the vocabulary has more.  ``prefix``: of the names of what is no output head."""
        import torch
        from safetensors.torch import load_file

        self._generator = torch.Generator().manual_seed(1)
        self._found = {}
        for name, tensor in load_file(text_model / "model.safetensors").items():
            if "q_norm" in name or "k_norm" in name:
                continue
            if name in ("model.embed_tokens.weight", "lm_head.weight"):
                tensor = torch.cat([tensor, torch.zeros(special, tensor.shape[1])])
            self._found[name.replace("model.", prefix)] = tensor

    def rename(self, before: str, after: str) -> None:
        self._found[after] = self._found.pop(before)

    def add(self, name: str, *shape: int, deviation: float) -> None:
        import torch

        self._found[name] = (torch.rand(shape, generator=self._generator) * 2 - 1) * deviation * 3**0.5

    def add_zeros(self, name: str, *shape: int) -> None:
        import torch

        self._found[name] = torch.zeros(shape)

    def add_norm(self, name: str, width: int) -> None:
        import torch

        self._found[f"{name}.weight"], self._found[f"{name}.bias"] = torch.ones(width), torch.zeros(width)

    def add_linear(self, name: str, inputs: int, outputs: int) -> None:
        self.add(f"{name}.weight", outputs, inputs, deviation=inputs**-0.5)
        self.add(f"{name}.bias", outputs, deviation=0.02)

    def write(self, directory: Path) -> None:
        from safetensors.torch import save_file

        save_file(self._found, directory / "model.safetensors", metadata={"format": "pt"})

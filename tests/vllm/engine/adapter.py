"""Makes a LoRA adapter for the tiny model, strong enough to change what it says."""

from __future__ import annotations

import json
from pathlib import Path

RANK = 8


def make_adapter(model: Path, directory: Path, *, seed: int = 1) -> Path:
    """Write a PEFT adapter on the query projections of every layer; returns its directory."""
    import torch
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text())
    generator = torch.Generator().manual_seed(seed)
    width = config["num_attention_heads"] * config["head_dim"]
    tensors = {}
    for layer in range(config["num_hidden_layers"]):
        name = f"base_model.model.model.layers.{layer}.self_attn.q_proj"
        tensors[f"{name}.lora_A.weight"] = torch.randn(RANK, config["hidden_size"], generator=generator)
        tensors[f"{name}.lora_B.weight"] = torch.randn(width, RANK, generator=generator)
    directory.mkdir()
    save_file(tensors, directory / "adapter_model.safetensors")
    peft = {"peft_type": "LORA", "r": RANK, "lora_alpha": RANK, "target_modules": ["q_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(peft))
    return directory

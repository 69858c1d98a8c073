"""A model of 1.4 B parameters with made-up weights, for a GPU that reaches no model hub.

The tiny model's tokenizer and shape, made wider and deeper.  Greedy outputs are noise but varied: a wrong KV block
changes them.

    python -m tests.bench.pd.wide_model --out DIR
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
from pathlib import Path
from typing import Any

from executor_svc.engine.tiny_model import make_tiny_model

HIDDEN, INTERMEDIATE, LAYERS, HEADS, KV_HEADS, HEAD_DIM = 2_048, 6_144, 28, 16, 8, 128
BODY_STD, HEAD_STD = 0.02, 0.1  # the head's is what makes neighbouring tokens differ
SEED = 7


def make(out: Path) -> int:
    """Writes a directory that vLLM loads, unless it is there.  Returns its parameters."""
    if not (out / "model.safetensors").exists():
        make_tiny_model(out / "tiny", "bfloat16")
        config = json.loads((out / "tiny" / "config.json").read_text()) | {
            "hidden_size": HIDDEN,
            "intermediate_size": INTERMEDIATE,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": HEADS,
            "num_key_value_heads": KV_HEADS,
            "head_dim": HEAD_DIM,
        }
        for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
            shutil.copy(out / "tiny" / name, out)
        (out / "config.json").write_text(json.dumps(config, indent=2))
        _write_weights(out / "model.safetensors", config["vocab_size"])
    return _parameters(json.loads((out / "config.json").read_text())["vocab_size"])


def _shapes(vocabulary: int) -> dict[str, tuple[tuple[int, ...], float]]:
    """Name → shape and standard deviation; deviation 0: all ones."""
    shapes: dict[str, tuple[tuple[int, ...], float]] = {
        "model.embed_tokens.weight": ((vocabulary, HIDDEN), BODY_STD),
        "model.norm.weight": ((HIDDEN,), 0.0),
        "lm_head.weight": ((vocabulary, HIDDEN), HEAD_STD),
    }
    for layer in range(LAYERS):
        for name, shape, std in (
            ("input_layernorm", (HIDDEN,), 0.0),
            ("self_attn.q_proj", (HEADS * HEAD_DIM, HIDDEN), BODY_STD),
            ("self_attn.k_proj", (KV_HEADS * HEAD_DIM, HIDDEN), BODY_STD),
            ("self_attn.v_proj", (KV_HEADS * HEAD_DIM, HIDDEN), BODY_STD),
            ("self_attn.o_proj", (HIDDEN, HEADS * HEAD_DIM), BODY_STD),
            ("self_attn.q_norm", (HEAD_DIM,), 0.0),
            ("self_attn.k_norm", (HEAD_DIM,), 0.0),
            ("post_attention_layernorm", (HIDDEN,), 0.0),
            ("mlp.gate_proj", (INTERMEDIATE, HIDDEN), BODY_STD),
            ("mlp.up_proj", (INTERMEDIATE, HIDDEN), BODY_STD),
            ("mlp.down_proj", (HIDDEN, INTERMEDIATE), BODY_STD),
        ):
            shapes[f"model.layers.{layer}.{name}.weight"] = (shape, std)
    return shapes


def _write_weights(path: Path, vocabulary: int) -> None:
    import torch
    from safetensors.torch import save_file

    device = "cuda" if torch.cuda.is_available() else "cpu"
    draw = torch.Generator(device=device).manual_seed(SEED)
    tensors: dict[str, Any] = {}
    for name, (shape, std) in _shapes(vocabulary).items():
        values = torch.ones(shape) if std == 0.0 else torch.randn(shape, generator=draw, device=device) * std
        tensors[name] = values.to(torch.bfloat16).cpu()
    save_file(tensors, str(path), metadata={"format": "pt"})


def _parameters(vocabulary: int) -> int:
    return sum(math.prod(shape) for shape, _ in _shapes(vocabulary).values())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.pd.wide_model")
    parser.add_argument("--out", type=Path, required=True)
    print(f"{make(parser.parse_args().out) / 1e9:.2f} B parameters")

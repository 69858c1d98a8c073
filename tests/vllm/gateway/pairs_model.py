"""The tiny model made to score pairs of texts, as rerankers do: one class, by a head of its own."""

from __future__ import annotations

import json
from pathlib import Path

from executor_svc.engine.tiny_model import HIDDEN, make_tiny_model


def make_pairs_model(path: Path) -> None:
    """Make the model at ``path``."""
    import torch
    from safetensors.torch import load_file, save_file

    make_tiny_model(path, "float32")
    weights = load_file(path / "model.safetensors")
    del weights["lm_head.weight"]
    head = torch.Generator().manual_seed(1)
    weights["score.weight"] = torch.randn((1, HIDDEN), generator=head) * 0.1
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((path / "config.json").read_text())
    config["architectures"] = ["Qwen3ForSequenceClassification"]
    config["id2label"], config["label2id"] = {"0": "fits"}, {"fits": 0}
    (path / "config.json").write_text(json.dumps(config))

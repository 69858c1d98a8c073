"""Makes a tiny model that takes images: the tiny model's layers behind a vision tower of Idefics3's shape.

An image takes 19 tokens: 16 of its own, between a few that say where it begins and ends.  The weights are large enough
that another image gives other tokens.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from executor_svc.engine.tiny_model import make_tiny_model

IMAGE = "<image>"
SPECIAL = (IMAGE, "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
IMAGE_TOKENS = 19  # that an image takes
SIDE, PATCH, WIDTH, INNER, LAYERS, SHUFFLE = 32, 4, 64, 128, 2, 2

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_vision_model(text_model: Path, directory: Path) -> int:
    """Write the model to ``directory``, from a tiny model in float32 that ``text_model`` has or gets.

    Returns the id of the token that stands for an image.
    """
    make_tiny_model(text_model)
    directory.mkdir()
    tokenizer = json.loads((text_model / "tokenizer.json").read_text())
    first = len(tokenizer["model"]["vocab"])
    ids = {name: first + index for index, name in enumerate(SPECIAL)}
    whole = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    tokenizer["added_tokens"] += [{"id": id_, "content": name, **whole} for name, id_ in ids.items()]
    _write(directory / "tokenizer.json", tokenizer)
    settings = json.loads((text_model / "tokenizer_config.json").read_text())
    _write(directory / "tokenizer_config.json", settings | {"chat_template": CHAT_TEMPLATE})
    config = json.loads((text_model / "config.json").read_text())
    _write(directory / "config.json", _config(config, ids[IMAGE], first + len(SPECIAL)))
    _write(directory / "generation_config.json", {"eos_token_id": config["eos_token_id"]})
    _write(directory / "preprocessor_config.json", _preprocessing())
    tokens = (SIDE // PATCH // SHUFFLE) ** 2
    _write(directory / "processor_config.json", {"processor_class": "Idefics3Processor", "image_seq_len": tokens})
    _write_weights(text_model, directory, config["hidden_size"])
    return ids[IMAGE]


def _write(path: Path, content: object) -> None:
    path.write_text(json.dumps(content))


def _config(text: dict[str, Any], image_token_id: int, vocab_size: int) -> dict[str, Any]:
    text = {name: value for name, value in text.items() if name != "use_sliding_window"}
    return {
        "architectures": ["Idefics3ForConditionalGeneration"],
        "model_type": "idefics3",
        "text_config": text
        | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False, "vocab_size": vocab_size},
        "vision_config": {
            "model_type": "idefics3_vision",
            "hidden_size": WIDTH,
            "intermediate_size": INNER,
            "num_hidden_layers": LAYERS,
            "num_attention_heads": 2,
            "image_size": SIDE,
            "patch_size": PATCH,
            "num_channels": 3,
            "hidden_act": "gelu_pytorch_tanh",
            "layer_norm_eps": 1e-6,
            "attention_dropout": 0.0,
        },
        "image_token_id": image_token_id,
        "scale_factor": SHUFFLE,
        "torch_dtype": "float32",
        "eos_token_id": text["eos_token_id"],
        "pad_token_id": text["pad_token_id"],
        "tie_word_embeddings": False,
    }


def _preprocessing() -> dict[str, Any]:
    switches = dict.fromkeys(("do_resize", "do_normalize", "do_rescale", "do_convert_rgb", "do_pad"), True)
    return {
        **switches,
        "image_processor_type": "Idefics3ImageProcessor",
        "do_image_splitting": False,
        "size": {"longest_edge": SIDE},
        "max_image_size": {"longest_edge": SIDE},
        "image_mean": [0.5] * 3,
        "image_std": [0.5] * 3,
        "resample": 3,
    }


def _write_weights(text_model: Path, directory: Path, hidden: int) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    generator = torch.Generator().manual_seed(1)
    found = {}
    for name, tensor in load_file(text_model / "model.safetensors").items():
        if "q_norm" in name or "k_norm" in name:
            continue  # Llama has none
        if name in ("model.embed_tokens.weight", "lm_head.weight"):
            tensor = torch.cat([tensor, torch.zeros(len(SPECIAL), tensor.shape[1])])
        found[name.replace("model.", "model.text_model.")] = tensor

    def add(name: str, *shape: int, deviation: float) -> None:
        found[name] = (torch.rand(shape, generator=generator) * 2 - 1) * deviation * 3**0.5

    def add_norm(name: str) -> None:
        found[f"{name}.weight"], found[f"{name}.bias"] = torch.ones(WIDTH), torch.zeros(WIDTH)

    def add_linear(name: str, inputs: int, outputs: int) -> None:
        add(f"{name}.weight", outputs, inputs, deviation=inputs**-0.5)
        add(f"{name}.bias", outputs, deviation=0.02)

    tower = "model.vision_model"
    add(f"{tower}.embeddings.patch_embedding.weight", WIDTH, 3, PATCH, PATCH, deviation=0.15)
    add(f"{tower}.embeddings.patch_embedding.bias", WIDTH, deviation=0.02)
    add(f"{tower}.embeddings.position_embedding.weight", (SIDE // PATCH) ** 2, WIDTH, deviation=0.1)
    for layer in range(LAYERS):
        at = f"{tower}.encoder.layers.{layer}"
        for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
            add_linear(f"{at}.self_attn.{each}", WIDTH, WIDTH)
        add_linear(f"{at}.mlp.fc1", WIDTH, INNER)
        add_linear(f"{at}.mlp.fc2", INNER, WIDTH)
        add_norm(f"{at}.layer_norm1")
        add_norm(f"{at}.layer_norm2")
    add_norm(f"{tower}.post_layernorm")
    add("model.connector.modality_projection.proj.weight", hidden, WIDTH * SHUFFLE**2, deviation=0.06)
    save_file(found, directory / "model.safetensors", metadata={"format": "pt"})

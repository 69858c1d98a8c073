"""Makes a tiny model that takes images: the tiny model's layers behind a vision tower of Idefics3's shape.

An image takes 19 tokens: 16 of its own, between a few that say where it begins and ends.  The weights are large enough
that another image gives other tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vllm.media.media_model import Weights, chat_template, write_json, write_text_side

IMAGE = "<image>"
SPECIAL = (IMAGE, "<fake_token_around_image>", "<global-img>", "<end_of_utterance>")
IMAGE_TOKENS = 19  # that an image takes
SIDE, PATCH, WIDTH, INNER, LAYERS, SHUFFLE = 32, 4, 64, 128, 2, 2


def make_vision_model(text_model: Path, directory: Path) -> int:
    """Write the model to ``directory``, from a tiny model in float32 that ``text_model`` has or gets.

    Returns the id of the token that stands for an image.
    """
    config, ids = write_text_side(text_model, directory, SPECIAL, chat_template("image", IMAGE))
    write_json(directory / "config.json", _config(config, ids[IMAGE]))
    write_json(directory / "preprocessor_config.json", _preprocessing())
    tokens = (SIDE // PATCH // SHUFFLE) ** 2
    write_json(directory / "processor_config.json", {"processor_class": "Idefics3Processor", "image_seq_len": tokens})
    _weights(text_model, config["hidden_size"]).write(directory)
    return ids[IMAGE]


def _config(text: dict[str, Any], image_token_id: int) -> dict[str, Any]:
    text = {name: value for name, value in text.items() if name != "use_sliding_window"}
    return {
        "architectures": ["Idefics3ForConditionalGeneration"],
        "model_type": "idefics3",
        "text_config": text | {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "mlp_bias": False},
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


def _weights(text_model: Path, hidden: int) -> Weights:
    made = Weights(text_model, len(SPECIAL), "model.text_model.")
    tower = "model.vision_model"
    made.add(f"{tower}.embeddings.patch_embedding.weight", WIDTH, 3, PATCH, PATCH, deviation=0.15)
    made.add(f"{tower}.embeddings.patch_embedding.bias", WIDTH, deviation=0.02)
    made.add(f"{tower}.embeddings.position_embedding.weight", (SIDE // PATCH) ** 2, WIDTH, deviation=0.1)
    for layer in range(LAYERS):
        at = f"{tower}.encoder.layers.{layer}"
        for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made.add_linear(f"{at}.self_attn.{each}", WIDTH, WIDTH)
        made.add_linear(f"{at}.mlp.fc1", WIDTH, INNER)
        made.add_linear(f"{at}.mlp.fc2", INNER, WIDTH)
        made.add_norm(f"{at}.layer_norm1", WIDTH)
        made.add_norm(f"{at}.layer_norm2", WIDTH)
    made.add_norm(f"{tower}.post_layernorm", WIDTH)
    made.add("model.connector.modality_projection.proj.weight", hidden, WIDTH * SHUFFLE**2, deviation=0.06)
    return made

"""Makes a tiny model that takes audio: the tiny model's layers behind an encoder of Qwen2-Audio's shape.

A clip takes a token for each 40 ms, up to 750 for the longest one.  The weights are large enough that another sound
gives other tokens.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.vllm.media.media_model import Weights, chat_template, write_json, write_text_side

AUDIO = "<|AUDIO|>"
SPECIAL = (AUDIO, "<|audio_bos|>", "<|audio_eos|>")
TEMPLATE = chat_template("audio", AUDIO)
SECONDS = 30  # of the longest clip: vLLM takes no other for this architecture
RATE_HZ = 16_000
TOKENS_A_SECOND = 25
MELS, WIDTH, INNER, LAYERS = 32, 64, 128, 2
POSITIONS = SECONDS * TOKENS_A_SECOND * 2
MOST_TOKENS = SECONDS * TOKENS_A_SECOND


def clip_tokens(seconds: float) -> int:
    """How many tokens a clip takes."""
    frames = int(seconds * 100)  # of 10 ms; two convolutions make one of two, a pool one of two
    return ((frames - 1) // 2 + 1 - 2) // 2 + 1


def make_audio_model(text_model: Path, directory: Path) -> int:
    """Write the model to ``directory``, from a tiny model in float32 that ``text_model`` has or gets.

    Returns the id of the token that stands for a clip.
    """
    config, ids = write_text_side(text_model, directory, SPECIAL, TEMPLATE)
    (directory / "chat_template.jinja").write_text(TEMPLATE)  # the processor's, too, which has another by itself
    write_json(directory / "config.json", _config(config, ids[AUDIO]))
    write_json(directory / "preprocessor_config.json", _preprocessing())
    write_json(directory / "processor_config.json", {"processor_class": "Qwen2AudioProcessor"})
    _weights(text_model, config).write(directory)
    return ids[AUDIO]


def _config(text: dict[str, Any], audio_token_id: int) -> dict[str, Any]:
    text = {name: value for name, value in text.items() if name not in ("use_sliding_window", "head_dim")}
    return {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "text_config": text | {"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2"},
        "audio_config": {
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": MELS,
            "d_model": WIDTH,
            "encoder_layers": LAYERS,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": INNER,
            "max_source_positions": POSITIONS,
            "activation_function": "gelu",
        },
        "audio_token_index": audio_token_id,
        "torch_dtype": "float32",
        "eos_token_id": text["eos_token_id"],
        "pad_token_id": text["pad_token_id"],
        "tie_word_embeddings": False,
    }


def _preprocessing() -> dict[str, Any]:
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "Qwen2AudioProcessor",
        "feature_size": MELS,
        "sampling_rate": RATE_HZ,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": SECONDS,
        "padding_side": "right",
        "padding_value": 0.0,
        "return_attention_mask": True,
    }


def _weights(text_model: Path, text: dict[str, Any]) -> Weights:
    made = Weights(text_model, len(SPECIAL), "language_model.model.")
    made.rename("lm_head.weight", "language_model.lm_head.weight")
    hidden, heads = text["hidden_size"], text["num_attention_heads"]
    for layer in range(text["num_hidden_layers"]):  # Qwen2 has these, the tiny model has none
        for each, count in (("q", heads), ("k", text["num_key_value_heads"]), ("v", text["num_key_value_heads"])):
            made.add_zeros(f"language_model.model.layers.{layer}.self_attn.{each}_proj.bias", hidden // heads * count)
    tower = "audio_tower"
    made.add(f"{tower}.conv1.weight", WIDTH, MELS, 3, deviation=(MELS * 3) ** -0.5)
    made.add(f"{tower}.conv1.bias", WIDTH, deviation=0.02)
    made.add(f"{tower}.conv2.weight", WIDTH, WIDTH, 3, deviation=(WIDTH * 3) ** -0.5)
    made.add(f"{tower}.conv2.bias", WIDTH, deviation=0.02)
    made.add(f"{tower}.embed_positions.weight", POSITIONS, WIDTH, deviation=0.1)
    for layer in range(LAYERS):
        at = f"{tower}.layers.{layer}"
        for each in ("q_proj", "k_proj", "v_proj", "out_proj"):
            made.add_linear(f"{at}.self_attn.{each}", WIDTH, WIDTH)
        made.add_linear(f"{at}.fc1", WIDTH, INNER)
        made.add_linear(f"{at}.fc2", INNER, WIDTH)
        made.add_norm(f"{at}.self_attn_layer_norm", WIDTH)
        made.add_norm(f"{at}.final_layer_norm", WIDTH)
    made.add_norm(f"{tower}.layer_norm", WIDTH)
    made.add_linear("multi_modal_projector.linear", WIDTH, hidden)
    return made

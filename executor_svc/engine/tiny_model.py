"""Makes a tiny Qwen3-shaped model with tokenizer and chat template, for tests and demonstrations without a download.

    python -m executor_svc.engine.tiny_model --out DIR [--dtype float32|bfloat16]

The output has no meaning but suits tests: greedy decoding is deterministic, varied, and depends on the whole
context, so that a token lost, doubled or computed on wrong KV blocks changes the tokens after it.  Two choices
make it so: an output head of its own with a large spread (a tied or small one repeats one to three tokens), and
float32 (in bfloat16, decode and prefill sometimes disagree about the best token).  Special tokens are never the
best ones, so greedy output runs to its max_tokens.

The tokenizer is trained on the language reference that every Python has for its `help()`: English prose and
code, the same within one Python release.  The weights come from Python's own random generator and are the same
on every machine.  Only the `tokenizers` package is needed, not PyTorch.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import struct
import sys
import tempfile
from array import array
from collections.abc import Iterator
from pathlib import Path
from pydoc_data.topics import topics
from typing import Final, Literal, get_args

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

Dtype = Literal["float32", "bfloat16"]

RECIPE: Final = 1  # raise it when the files made here change: an older directory is then replaced
RECIPE_FILE: Final = "tiny_model.json"

VOCAB_SIZE: Final = 4096
HIDDEN: Final = 256
INTERMEDIATE: Final = 512
LAYERS: Final = 4
HEADS: Final = 4
KV_HEADS: Final = 2
HEAD_DIM: Final = 64
MAX_POSITIONS: Final = 4096  # tokens, prompt and output together

SAFETENSORS_DTYPE: Final[dict[Dtype, str]] = {"float32": "F32", "bfloat16": "BF16"}

HEAD_STD: Final = 0.1
BODY_STD: Final = 0.06  # about 1/sqrt(HIDDEN): each layer, and so the context, changes the output
SEED: Final = 20_26

END_OF_TEXT: Final = "<|endoftext|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
SPECIAL_TOKENS: Final = (END_OF_TEXT, TURN_START, TURN_END)  # their ids are 0, 1, 2

CHAT_TEMPLATE: Final = (
    "{% for message in messages %}"
    "<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def make_tiny_model(out: Path, dtype: Dtype = "float32") -> bool:
    """Make the model in `out`.  Return False if the same model is there already.

    `out` appears complete or not at all, also when several processes make it at the same time.
    Raises FileExistsError if `out` holds anything that was not made here.
    """
    if is_complete(out, dtype):
        return False
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as scratch:
        fresh = Path(scratch) / "model"
        fresh.mkdir()
        _write_files(fresh, dtype)
        _move_into_place(fresh, out, dtype, stale=Path(scratch) / "stale")
    return True


def is_complete(directory: Path, dtype: Dtype) -> bool:
    """Whether `directory` holds this recipe's model, made by this Python release."""
    try:
        found: object = json.loads((directory / RECIPE_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return False
    return found == _recipe(dtype)


def _recipe(dtype: Dtype) -> dict[str, object]:
    return {"recipe": RECIPE, "dtype": dtype, "python": f"{sys.version_info.major}.{sys.version_info.minor}"}


def _move_into_place(fresh: Path, out: Path, dtype: Dtype, *, stale: Path) -> None:
    try:
        if out.exists() and not is_complete(out, dtype):
            _refuse_unless_ours(out)
            out.rename(stale)
        fresh.rename(out)
    except OSError:
        if not is_complete(out, dtype):  # else another process was faster, with the same files
            raise


def _refuse_unless_ours(out: Path) -> None:
    if not (out / RECIPE_FILE).exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} holds files that are not a tiny model; name another directory")


def _write_files(directory: Path, dtype: Dtype) -> None:
    _train_tokenizer().save(str(directory / "tokenizer.json"))
    _write_json(directory / "tokenizer_config.json", _tokenizer_config())
    _write_json(directory / "config.json", _model_config(dtype))
    _write_json(directory / "generation_config.json", {"eos_token_id": SPECIAL_TOKENS.index(TURN_END)})
    _write_weights(directory / "model.safetensors", dtype)
    _write_json(directory / RECIPE_FILE, _recipe(dtype))


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")


# ---------------------------------------------------------------- tokenizer


def _train_tokenizer() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator((topics[name] for name in sorted(topics)), trainer)
    if tokenizer.get_vocab_size() != VOCAB_SIZE:
        raise RuntimeError(f"the text gave {tokenizer.get_vocab_size()} tokens instead of {VOCAB_SIZE}")
    return tokenizer


def _tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "model_max_length": MAX_POSITIONS,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }


# ---------------------------------------------------------------- model


def _model_config(dtype: Dtype) -> dict[str, object]:
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCAB_SIZE,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rope_theta": 10_000.0,
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "use_sliding_window": False,
        "bos_token_id": None,
        "eos_token_id": SPECIAL_TOKENS.index(TURN_END),
        "pad_token_id": SPECIAL_TOKENS.index(END_OF_TEXT),
        "torch_dtype": dtype,
    }


def _tensors() -> Iterator[tuple[str, tuple[int, ...], float]]:
    """Yield name, shape and standard deviation of each tensor, in file order; deviation 0 means all ones."""
    yield "model.embed_tokens.weight", (VOCAB_SIZE, HIDDEN), BODY_STD
    for layer in range(LAYERS):
        at = f"model.layers.{layer}"
        yield f"{at}.input_layernorm.weight", (HIDDEN,), 0.0
        yield f"{at}.self_attn.q_proj.weight", (HEADS * HEAD_DIM, HIDDEN), BODY_STD
        yield f"{at}.self_attn.k_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN), BODY_STD
        yield f"{at}.self_attn.v_proj.weight", (KV_HEADS * HEAD_DIM, HIDDEN), BODY_STD
        yield f"{at}.self_attn.o_proj.weight", (HIDDEN, HEADS * HEAD_DIM), BODY_STD
        yield f"{at}.self_attn.q_norm.weight", (HEAD_DIM,), 0.0
        yield f"{at}.self_attn.k_norm.weight", (HEAD_DIM,), 0.0
        yield f"{at}.post_attention_layernorm.weight", (HIDDEN,), 0.0
        yield f"{at}.mlp.gate_proj.weight", (INTERMEDIATE, HIDDEN), BODY_STD
        yield f"{at}.mlp.up_proj.weight", (INTERMEDIATE, HIDDEN), BODY_STD
        yield f"{at}.mlp.down_proj.weight", (HIDDEN, INTERMEDIATE), BODY_STD
    yield "model.norm.weight", (HIDDEN,), 0.0
    yield "lm_head.weight", (VOCAB_SIZE, HIDDEN), HEAD_STD


def _write_weights(path: Path, dtype: Dtype) -> None:
    """Write a safetensors file: the header's length (8 bytes), the header (JSON), tensor after tensor."""
    width = 4 if dtype == "float32" else 2
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape, _ in _tensors():
        start, end = end, end + math.prod(shape) * width
        header[name] = {"dtype": SAFETENSORS_DTYPE[dtype], "shape": shape, "data_offsets": [start, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    rng = random.Random(SEED)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for name, shape, std in _tensors():
            values = _values(rng, math.prod(shape), std)
            if name == "lm_head.weight":
                _silence_special_tokens(values)
            file.write(_encode(values, dtype))


def _values(rng: random.Random, count: int, std: float) -> array[float]:
    """Draw values uniformly around zero, which unlike a normal distribution gives the same ones on every machine."""
    if std == 0.0:
        return array("f", [1.0]) * count
    half_width = std * math.sqrt(3)
    draw = rng.random
    return array("f", [(2.0 * draw() - 1.0) * half_width for _ in range(count)])


def _silence_special_tokens(head: array[float]) -> None:
    for index in range(len(SPECIAL_TOKENS) * HIDDEN):
        head[index] = 0.0


def _encode(values: array[float], dtype: Dtype) -> bytes:
    if sys.byteorder != "little":
        values.byteswap()
    raw = values.tobytes()
    if dtype == "float32":
        return raw
    upper_halves = bytearray(len(raw) // 2)  # bfloat16 is a float32's upper half
    upper_halves[0::2], upper_halves[1::2] = raw[2::4], raw[3::4]
    return bytes(upper_halves)


def main(arguments: list[str] | None = None) -> int:
    """Make a model as the command line says."""
    parser = argparse.ArgumentParser(prog="python -m executor_svc.engine.tiny_model")
    parser.add_argument(
        "--out", type=Path, required=True, help="directory to make; unchanged if it holds this model already"
    )
    parser.add_argument("--dtype", choices=get_args(Dtype), default="float32", help="default: %(default)s")
    options = parser.parse_args(arguments)
    try:
        made = make_tiny_model(options.out, options.dtype)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"{'made' if made else 'found'} the tiny model in {options.out}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

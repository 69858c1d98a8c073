"""Tokenizers like those of SentencePiece models, trained on a few texts: Metaspace, byte fallback, a stripped space."""

from __future__ import annotations

import json
from functools import cache

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

TEXTS = (
    "Once upon a time there was a scheduler that asked an executor for a token.",
    "  Two leading spaces, a tab\t, a line\nbreak\n\n and  double  spaces inside .",
    'def main() -> None:\n    for i in range(10):\n        print(f"{i}: {i ** 2}")\n',
    "Grüße aus Köln! Ça va? Señor, ¿qué tal? Zażółć gęślą jaźń.",
    "東京は夜の七時。 我们今天讨论调度器。 서울의 밤은 아름답다.",
    "Привет, как дела? Здравствуйте!  Καλημέρα κόσμε. שלום עולם، مرحبا بالعالم",
    "Emoji: 👩‍👩‍👧‍👦 🇩🇪 👍🏽 and a flag 🏴󠁧󠁢󠁳󠁣󠁴󠁿; math ∑ᵢ xᵢ² ≤ ∞; a € sign.",
    '{"name": "Ada", "tags": ["a", "b"], "n": 12345.678e-9}',
    "| a | b |\n|---|---|\n| 1 | 2 |\n\n- [ ] to do\n- [x] done\n",
    "don't can't it's we're 'quoted' \"double\" (parenthesis) [bracket] ... -- end.",
    "A replacement character \ufffd that was really written, and \ufffd\ufffd two more.",
)
"""Texts as models read and write them."""

SPECIAL = ("<unk>", "<s>", "</s>")


@cache
def llama_like() -> Tokenizer:
    """As Llama 2: a space put before the text and taken away from what is decoded."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return _trained(tokenizer)


@cache
def mistral_like() -> Tokenizer:
    """As newer conversions: Metaspace both ways."""
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(replacement="▁", prepend_scheme="first"), decoders.Fuse()]
    )
    return _trained(tokenizer)


def _trained(tokenizer: Tokenizer) -> Tokenizer:
    """Train on ASCII texts alone, so that other letters fall back to bytes."""
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=[*SPECIAL, *bytes_], show_progress=False, limit_alphabet=100
    )
    final = tokenizer.pre_tokenizer
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")  # words, not sentences
    tokenizer.train_from_iterator([text for text in TEXTS if text.isascii()] * 3, trainer)
    document = json.loads(tokenizer.to_str())
    # All bytes were special only to be in the vocabulary.
    document["added_tokens"] = [each for each in document["added_tokens"] if each["content"] in SPECIAL]
    trained: Tokenizer = Tokenizer.from_str(json.dumps(document))
    trained.pre_tokenizer = final
    return trained

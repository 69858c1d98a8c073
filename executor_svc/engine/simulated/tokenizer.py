"""The simulated engine's vocabulary: every byte, three special tokens, and made-up words.

Ids: 0-255 are bytes, then the special tokens, then words of two or three syllables with a leading
space.  Text goes to ids and back without loss.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import product

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from executor_svc.runtime.engine_port import TokenizerFiles

PAD, MESSAGE_START, MESSAGE_END = "<|pad|>", "<|im_start|>", "<|im_end|>"
SPECIAL_TOKENS = (PAD, MESSAGE_START, MESSAGE_END)
EOS_ID = 256 + SPECIAL_TOKENS.index(MESSAGE_END)
FIRST_WORD_ID = 256 + len(SPECIAL_TOKENS)
LEAD_BYTE_ID = 0xC3  # with one of the 64 continuation bytes it encodes the letters from À to ÿ
CONTINUATION_FIRST_ID = 0x80

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)

_SYLLABLES = ["".join(pair) for pair in product("bdfghjklmnprstvwxz", "aeiou")]


def _byte_symbols() -> list[str]:
    """Return the printable character that byte-level BPE uses for each byte, by byte value (GPT-2's convention)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in printable]
    symbols = {byte: chr(byte) for byte in printable}
    symbols.update({byte: chr(256 + index) for index, byte in enumerate(hidden)})
    return [symbols[byte] for byte in range(256)]


def _words(count: int) -> list[str]:
    syllables = len(_SYLLABLES)
    words = []
    for number in range(count):
        word = _SYLLABLES[number // syllables % syllables] + _SYLLABLES[number % syllables]
        if number >= syllables * syllables:
            word = _SYLLABLES[number // (syllables * syllables) - 1] + word
        words.append(word)
    return words


def _build(vocab_size: int) -> Tokenizer:
    symbols = _byte_symbols()
    space = symbols[ord(" ")]
    words = [space + word for word in _words(vocab_size - FIRST_WORD_ID)]
    vocabulary = {token: index for index, token in enumerate([*symbols, *SPECIAL_TOKENS, *words])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[], ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS])
    return tokenizer


@lru_cache(maxsize=4)
def tokenizer_for(vocab_size: int) -> Tokenizer:
    """Return the tokenizer with ids in [0, ``vocab_size``).  It can be shared, because it is never changed."""
    return _build(vocab_size)


def tokenizer_files(vocab_size: int) -> TokenizerFiles:
    """Return the files of that tokenizer for the scheduler."""
    return TokenizerFiles(
        tokenizer_json=tokenizer_for(vocab_size).to_str(),
        chat_template=CHAT_TEMPLATE,
        special_tokens={"eos_token": MESSAGE_END, "pad_token": PAD},
    )

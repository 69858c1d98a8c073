"""Whether vLLM's server tokenizes as the executors do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from sage_gateway.model_directory import UnusableFiles

TEXTS = ("The quick  brown fox, 1 234.5 €\n\tümläut 日本語 🙂", " leading and trailing ", "def f(x):\n    return x\n")


def check_tokenizer(tokenizer: Any, file: Path) -> None:
    """Compare vLLM's tokenizer with the executors' own file.

    Raises:
        UnusableFiles: they make other tokens of the same text, so that models would read another prompt.
    """
    own = Tokenizer.from_file(str(file))
    for text in TEXTS:
        for special in (False, True):
            found = tokenizer.encode(text, add_special_tokens=special)
            wanted = own.encode(text, add_special_tokens=special).ids
            if list(found) != list(wanted):
                raise UnusableFiles(f"vLLM tokenizes {text!r} to {list(found)[:8]}, the executors to {wanted[:8]}")

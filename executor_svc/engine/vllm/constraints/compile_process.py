"""The trial process: compiles constraints with xgrammar.  ``python -m`` starts it; see ``trial_server``.

The first line that it reads is the tokenizer as xgrammar writes it.
"""

from __future__ import annotations

import json
import os
from typing import Any

from executor_svc.engine.vllm.constraints.trial_server import Attempt, Lines, TrialServer
from sage_common.garbage import start_and_end_fast


def compiler_of(xgrammar: Any, tokenizer: str) -> Attempt:
    """Return what compiles one ``compile_call``, and looks at the first token as the engine does."""
    info = xgrammar.TokenizerInfo.deserialize_json(tokenizer)
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    mask = xgrammar.allocate_token_bitmask(1, info.vocab_size)

    def attempt(call: dict[str, Any]) -> None:
        compiled = getattr(compiler, call["method"])(call["text"], **call["options"])
        xgrammar.GrammarMatcher(compiled).fill_next_token_bitmask(mask, 0)

    return attempt


def main() -> None:
    """Serve trials on standard input and output.  Ends if no first message comes."""
    start_and_end_fast()
    answers = os.dup(1)
    os.dup2(2, 1)  # what a library prints is no answer
    import xgrammar  # takes seconds: while the engine loads, if this process was started with it

    requests = Lines(0)
    try:
        tokenizer = json.loads(requests.first())
    except EOFError:
        return
    TrialServer(compiler_of(xgrammar, tokenizer), requests, answers).serve()


if __name__ == "__main__":
    main()

"""What the engines are asked: the same of vLLM itself and through the control plane."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

STREAMS = 32
LONG = 200  # tokens of a greedy answer: more than a second on any CPU
SHORT = 48  # tokens that are compared where nothing has to last
CHAT_RENDERED = (
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nWhat is a lambda?<|im_end|>\n<|im_start|>assistant\n"
)
TOPICS = ("classes", "loops", "lists", "strings", "exceptions", "modules", "numbers", "names")


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    prompt: str
    sampling: Mapping[str, Any]  # options of ``sage_client`` that vLLM calls the same
    regex: str = ""  # constrains the output; empty: nothing does

    def options(self) -> dict[str, Any]:
        """For the SDK's ``generate``."""
        return {**self.sampling, **({"regex": self.regex} if self.regex else {})}


@dataclass(frozen=True, kw_only=True, slots=True)
class Reference:
    """What vLLM itself answers."""

    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[dict[int, float], ...]  # one per token when asked for


def _prompt(number: int) -> str:
    return f"{number}. What the language says of {TOPICS[number % len(TOPICS)]}, in {number + 2} words:"


GREEDY = {
    f"greedy {n}": Case(prompt=_prompt(n), sampling={"temperature": 0, "max_tokens": LONG}) for n in range(STREAMS)
}
REPLAYED = {
    "seeded 1": Case(prompt=_prompt(40), sampling={"temperature": 0.8, "seed": 7, "max_tokens": LONG}),
    "seeded 2": Case(prompt=_prompt(41), sampling={"temperature": 1.0, "top_p": 0.9, "seed": 8, "max_tokens": LONG}),
    "penalised": Case(prompt=_prompt(42), sampling={"temperature": 0, "frequency_penalty": 0.7, "max_tokens": LONG}),
    "constrained": Case(
        prompt=_prompt(43), sampling={"temperature": 0, "max_tokens": LONG}, regex="([a-z]{1,8} ){60}[a-z]{400}"
    ),
}
OTHERS = {
    "chat": Case(prompt=CHAT_RENDERED, sampling={"temperature": 0, "max_tokens": SHORT}),
    "logprobs": Case(prompt=_prompt(50), sampling={"temperature": 0, "max_tokens": 16, "logprobs": 3}),
}
CASES = {**GREEDY, **REPLAYED, **OTHERS}

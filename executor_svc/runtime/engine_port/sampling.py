"""How an engine chooses tokens."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum


class StructuredKind(Enum):
    """The kinds of constraint that structured output has."""

    JSON_SCHEMA = "json_schema"
    JSON_OBJECT = "json_object"  # any JSON object; value is empty
    REGEX = "regex"
    CHOICE = "choice"  # value is a JSON array of strings
    GRAMMAR = "grammar"  # EBNF
    STRUCTURAL_TAG = "structural_tag"  # JSON object of xgrammar's form, with "format"


@dataclass(frozen=True, kw_only=True, slots=True)
class StructuredOutput:
    """A constraint that the whole output satisfies, or what follows its reasoning."""

    kind: StructuredKind
    value: str
    reasoning_ended: bool | None = None  # whether the prompt ends after the reasoning; None: the engine finds out
    reasoning_arguments: str = ""  # of the engine's reasoning parser, a JSON object; empty: none


@dataclass(frozen=True, kw_only=True, slots=True)
class Sampling:
    """Sampling options that every engine understands, with defaults applied.

    Ranges are checked before a request reaches an engine.
    """

    temperature: float = 1.0  # [0, 2]; 0 = greedy
    top_p: float = 1.0  # (0, 1]
    top_k: int = 0  # 0 = all
    min_p: float = 0.0  # [0, 1]
    presence_penalty: float = 0.0  # [-2, 2]
    frequency_penalty: float = 0.0  # [-2, 2]
    repetition_penalty: float = 1.0  # > 0
    seed: int | None = None
    stop_token_ids: tuple[int, ...] = ()
    bad_words: tuple[str, ...] = ()
    min_tokens: int = 0
    max_tokens: int = 16
    logprobs: int | None = None  # top logprobs per output token; 0 = the chosen one only
    prompt_logprobs: int | None = None
    ignore_eos: bool = False
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    allowed_token_ids: tuple[int, ...] = ()
    structured_output: StructuredOutput | None = None
    cache_salt: str | None = None  # the prompt's KV is shared only with prompts of the same salt
    engine_options: Mapping[str, str] = field(default_factory=dict)  # the engine's own names to JSON values

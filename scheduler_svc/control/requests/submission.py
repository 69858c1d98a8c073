"""What a caller submits, converted but not yet checked against any model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from scheduler_svc.control.requests.read_from import ReadFrom
from scheduler_svc.control.requests.tokenizers import Conversation
from scheduler_svc.domain.errors import FieldViolation
from scheduler_svc.domain.media import Media
from scheduler_svc.domain.request import Embedding, Priority, RequestKey, ResumeMode

TOKEN_ID = "I"
"""Type code of the arrays that hold token ids: four bytes each, and never negative."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TextPrompt:
    """A prompt as text, to be tokenized with the model's tokenizer."""

    text: str
    special_tokens: bool = True  # let the model's tokenizer add its own


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenPrompt:
    """A prompt as token ids."""

    token_ids: Sequence[int]
    largest: int = -1  # of the ids; found here if it is not given

    def __post_init__(self) -> None:
        if self.largest < 0:
            object.__setattr__(self, "largest", max(self.token_ids, default=0))


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatPrompt:
    """A prompt as a conversation, to be rendered with the model's chat template."""

    conversation: Conversation


Prompt = TextPrompt | TokenPrompt | ChatPrompt


@dataclass(frozen=True, kw_only=True, slots=True)
class Submission:
    """A request as its caller sent it.

    ``violations`` were found while it was converted; they are reported together with those found later.
    """

    key: RequestKey
    digest: bytes  # of the content: model, prompt, sampling, targets
    model: str  # empty: the only one that does what is wanted, generate or embed
    prompt: Prompt | None  # None if it is at fault; then ``violations`` say why
    media: tuple[Media, ...] = ()  # images and audio of the prompt, in its order
    sampling: Mapping[str, Any]  # the fields of the domain's Sampling that the caller set
    choices: int = 1  # outputs of the prompt
    priority: Priority = Priority.NORMAL
    deadline_s: float | None = None
    deadline_is_target: bool = True  # False: it only bounds how long the request waits and runs
    ttft_target_s: float | None = None
    tpot_target_s: float | None = None
    cost_budget: float | None = None
    session: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    preferred_instance: str = ""
    adapter: str = ""
    wait_for_instance: bool = False
    resume_mode: ResumeMode = ResumeMode.STRICT
    detached: bool = False
    keep_result_s: float | None = None  # of detached work: how long its result is kept; None: the default
    fresh: bool = False  # no earlier scheduler can know its id
    receipt: bytes = b""  # of the acceptance by an earlier scheduler
    after_token: int = 0
    after_attempt: tuple[int, int] | None = None  # epoch and number of the attempt that made the last token it has
    after: Sequence[ReadFrom] = ()  # where further choices are read from; one that is not named: from its start
    takes_choices: bool = False  # its reader tells choices apart
    trace_headers: Mapping[str, str] = field(default_factory=dict)
    embedding: Embedding | None = None  # a vector of the prompt is wanted, and nothing is generated
    violations: tuple[FieldViolation, ...] = ()

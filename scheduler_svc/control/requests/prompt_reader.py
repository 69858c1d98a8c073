"""A prompt as token ids: given as such, or made by the tokenizer of an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from sage_common.clock import Clock
from scheduler_svc.control.requests.submission import ChatPrompt, Submission, TextPrompt, TokenPrompt
from scheduler_svc.control.requests.tokenizers import PromptError, Tokenizers, TokenizingLimits
from scheduler_svc.control.timing.time_limit import TimeLimit
from scheduler_svc.domain.errors import FieldViolation, NoInstance


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptTokens:
    """A prompt as token ids."""

    token_ids: Sequence[int]
    tokenizer_hash: str = ""  # of the tokenizer that made them; empty for a caller's own
    largest_token_id: int = 0  # of a caller's own; 0 where the tokenizer says which engines can read the ids
    violations: list[FieldViolation] = field(default_factory=list)  # why it could not be made


class PromptReader:
    """Turns the prompts of submissions into token ids."""

    def __init__(self, tokenizers: Tokenizers, clock: Clock) -> None:
        self._tokenizers = tokenizers
        self._clock = clock

    async def read(
        self, submission: Submission, tokenizer_hash: str, limits: TokenizingLimits, until: float
    ) -> PromptTokens:
        """Turn the prompt into token ids.

        Raises NoInstance if the tokenizer is not here, and DeadlineExceeded at ``until``: a chat template is a program
        of the model's author and may never end.
        """
        if isinstance(submission.prompt, TokenPrompt):
            return PromptTokens(token_ids=submission.prompt.token_ids, largest_token_id=submission.prompt.largest)
        violations: list[FieldViolation] = []
        made = await self._token_ids(submission, tokenizer_hash, limits, violations, until)
        return PromptTokens(token_ids=made, tokenizer_hash=tokenizer_hash, violations=violations)

    async def _token_ids(
        self,
        submission: Submission,
        known: str,
        limits: TokenizingLimits,
        violations: list[FieldViolation],
        until: float,
    ) -> Sequence[int]:
        """Return the prompt's token ids; none if the prompt is at fault, and then ``violations`` say why."""
        prompt = submission.prompt
        if not self._tokenizers.has(known):  # since the model was resolved, it had to make room for others
            raise NoInstance(submission.model, "its tokenizer is not here just now")
        try:
            async with TimeLimit(self._clock, until, "while its prompt was tokenized"):
                if isinstance(prompt, TextPrompt):
                    special = prompt.special_tokens
                    return await self._tokenizers.encode(known, prompt.text, limits, special_tokens=special)
                if isinstance(prompt, ChatPrompt):
                    return await self._tokenizers.encode_chat(known, prompt.conversation, limits)
        except PromptError as error:
            field_name = "spec.chat" if isinstance(prompt, ChatPrompt) else "spec.text"
            violations.append(FieldViolation(field=field_name, description=str(error)))
        return ()

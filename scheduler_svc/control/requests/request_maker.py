"""Makes the request of a submission, as some engine of its model can serve it."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sage_common.clock import Clock
from sage_common.prefix_hashes import common_block_tokens, prefix_hashes
from sage_media.kinds import input_of
from scheduler_svc.control.requests.intake_settings import IntakeSettings
from scheduler_svc.control.requests.model_directory import Facts, ModelDirectory
from scheduler_svc.control.requests.own_seed import with_own_seed
from scheduler_svc.control.requests.prompt_reader import PromptReader, PromptTokens
from scheduler_svc.control.requests.read_from import outside
from scheduler_svc.control.requests.recovery import Recovery
from scheduler_svc.control.requests.sampling_defaults import within_vocabulary
from scheduler_svc.control.requests.submission import Submission
from scheduler_svc.control.requests.tokenizers import Tokenizers, TokenizingLimits
from scheduler_svc.domain import admission
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import DeadlineExceeded, FieldViolation, InvalidRequest, NoInstance, UnknownModel
from scheduler_svc.domain.media import kinds_of, tokens_of
from scheduler_svc.domain.request import Request, Sampling
from scheduler_svc.domain.scheduler import Scheduler

log = logging.getLogger(__name__)

FACTS_TRIED = 8
"""Engines of one tokenizer that differ in what they can serve, by which a request is judged at most."""

TOKENIZERS_TRIED = 4
"""Different tokenizers under one model's name by which a prompt is judged at most."""

EMBEDDING_SAMPLING = Sampling(temperature=0.0, max_tokens=1, ignore_eos=True)
"""Of a request that is embedded: nothing is sampled, and the engine takes the time of one token."""

PROMPT_FIELDS = ("spec.prompt", "spec.text", "spec.tokens", "spec.chat", "spec.images", "spec.audio")
"""Fields that a violation of the prompt names.  After one of them the prompt's length and ids are not checked."""


class RequestMaker:
    """Validates submissions and tokenizes their prompts."""

    def __init__(
        self,
        scheduler: Scheduler,
        clock: Clock,
        tokenizers: Tokenizers,
        models: ModelDirectory,
        recovery: Recovery,
        settings: IntakeSettings,
        *,
        detached_deadline_s: float | None,
    ) -> None:
        """``detached_deadline_s``: default of detached work; None: the one of all requests."""
        self._scheduler = scheduler
        self._models = models
        self._recovery = recovery
        self._settings = settings
        self._detached_deadline_s = detached_deadline_s
        self._prompts = PromptReader(tokenizers, clock)
        self._told: dict[str, frozenset[str]] = {}  # defaults that were said to name ids outside a vocabulary, by model

    async def request(self, submission: Submission, arrived_at: float) -> tuple[Request, tuple[str, ...]]:
        """Return the request and its warnings.

        Raises InvalidRequest, UnknownModel, NoInstance, DeadlineExceeded, Recovering.
        """
        deadline_s = (
            submission.deadline_s if submission.deadline_s is not None else self._default_deadline_s(submission)
        )
        violations = [*submission.violations, *self._choices_at_fault(submission)]
        if deadline_s <= 0 and not violations:
            raise DeadlineExceeded("before it arrived")
        try:
            model, facts = await self._models.resolve(
                submission.model,
                wait=submission.wait_for_instance and not violations,
                until=arrived_at + deadline_s,
                embeds=submission.embedding is not None,
            )
        except (UnknownModel, NoInstance):
            self._recovery.check_model(submission.model)  # its instances may still come back
            raise
        if submission.media:
            facts = _taking(facts, submission, model, violations)
        choices = _Choices(facts)
        for tokenizer_hash in choices.tokenizers:
            limits = TokenizingLimits(tenant=submission.key.tenant, most_tokens=choices.longest(tokenizer_hash))
            prompt = await self._prompts.read(submission, tokenizer_hash, limits, arrived_at + max(deadline_s, 0.0))
            for each in choices.of(tokenizer_hash):
                request = self._made(submission, model, each, prompt, arrived_at, deadline_s)
                found = [*violations, *prompt.violations]
                self._check(request, each, found, has_prompt=submission.prompt is not None)
                if not found:
                    return self._hashed(request, each), admission.warnings(request, each)
                choices.note(found)
        raise InvalidRequest(_first_per_field(choices.fewest))

    def _choices_at_fault(self, submission: Submission) -> Iterator[FieldViolation]:
        """Say what is wrong with the number of choices, and with the positions in them."""
        yield from outside(submission.after, submission.choices)
        wanted, limit = submission.choices, self._settings.choices_limit
        if not 1 <= wanted <= limit:
            yield FieldViolation(field="spec.sampling.n", description=f"is {wanted}; it must be from 1 to {limit}")
        elif wanted > 1 and not submission.takes_choices:
            what = f"is {wanted}; the client does not say that it reads several choices (takes_choices)"
            yield FieldViolation(field="spec.sampling.n", description=what)

    def _default_deadline_s(self, submission: Submission) -> float:
        if submission.detached and self._detached_deadline_s is not None:
            return self._detached_deadline_s
        return self._settings.default_deadline_s

    def _made(
        self,
        submission: Submission,
        model: str,
        facts: EngineFacts,
        prompt: PromptTokens,
        arrived_at: float,
        deadline_s: float,
    ) -> Request:
        """Make the request as an engine with these facts would serve it: the default of ``max_tokens`` is its own."""
        chosen = EMBEDDING_SAMPLING
        if submission.embedding is None:
            defaults = self._defaults(model, facts, submission.sampling)
            room = facts.max_model_len - len(prompt.token_ids) - tokens_of(submission.media, facts.media)
            chosen = _completed(submission.sampling, defaults, room=max(1, room))
            chosen = with_own_seed(chosen, submission.key, submission.digest, self._engines(model))
        return Request(
            key=submission.key,
            model=model,
            prompt_token_ids=prompt.token_ids,
            tokenizer_hash=prompt.tokenizer_hash,
            largest_token_id=max(prompt.largest_token_id, admission.largest_id(chosen)),
            sampling=chosen,
            priority=submission.priority,
            arrived_at=arrived_at,
            deadline_at=arrived_at + deadline_s,
            deadline_stated=submission.deadline_s is not None and submission.deadline_is_target,
            ttft_target_s=submission.ttft_target_s,
            tpot_target_s=submission.tpot_target_s,
            cost_budget=submission.cost_budget,
            session=submission.session,
            preferred_instance=submission.preferred_instance,
            adapter=submission.adapter,
            wait_for_instance=submission.wait_for_instance,
            resume_mode=submission.resume_mode,
            tags=submission.tags,
            trace_headers=submission.trace_headers,
            embedding=submission.embedding,
            choices=submission.choices,
            media=submission.media,
            media_tokens=tokens_of(submission.media, facts.media),
        )

    def _engines(self, model: str) -> Iterator[EngineFacts]:
        """Yield the facts of the model's engines that are known."""
        for instance in self._scheduler.instances(model):
            if instance.facts is not None:
                yield instance.facts

    def _defaults(self, model: str, facts: EngineFacts, stated: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the operator's sampling defaults as far as they mean something to an engine with these facts.

        Raises NoInstance where the allowed ids are all outside its vocabulary: then nothing could be generated.
        """
        defaults = self._settings.sampling_defaults.get(model, {})
        known, outside = within_vocabulary(defaults, facts.vocab_size)
        if not outside:
            return defaults
        for name in outside - self._told.get(model, frozenset()):
            log.warning(
                "models.%s.sampling.%s: ids outside the model's vocabulary of %d have no effect",
                *(model, name, facts.vocab_size),
            )
        self._told[model] = self._told.get(model, frozenset()) | outside
        if "allowed_token_ids" in outside - stated.keys() and not known["allowed_token_ids"]:
            raise NoInstance(model, "the operator's default of allowed_token_ids names no token of its vocabulary")
        return known

    def _hashed(self, request: Request, facts: EngineFacts) -> Request:
        """Return the request with its prompt's prefix hashes, if placement follows prefix caches."""
        if not (self._settings.prefix_aware and facts.prefix_caching):
            return request
        block = common_block_tokens(self._scheduler.kv_block_sizes(request.model) or (facts.kv_block_size,))
        # Engines compute a prompt whole for its log probabilities, and do not tell what they hold of salted ones.
        if request.sampling.prompt_logprobs is not None or request.sampling.cache_salt is not None:
            return replace(request, prefix_block_tokens=block)
        prompt = _before_media(request, facts)
        found = prefix_hashes(prompt, block, model=request.model, adapter=request.adapter)
        return replace(request, prefix_hashes=found, prefix_block_tokens=block)

    def _check(self, request: Request, facts: EngineFacts, found: list[FieldViolation], *, has_prompt: bool) -> None:
        """Add to ``found`` what is wrong with a request for an engine with these facts."""
        prompt_is_at_fault = any(v.field.startswith(PROMPT_FIELDS) or v.field == "spec" for v in found)
        found += admission.check(request, facts, prompt_known=has_prompt and not prompt_is_at_fault)


class _Choices:
    """The facts by which a request may be judged: it is valid if some live instance serves it."""

    def __init__(self, facts: Facts) -> None:
        self._facts = facts
        self.tokenizers = list(dict.fromkeys(each.tokenizer_hash for each in facts))[:TOKENIZERS_TRIED]
        self.fewest: list[FieldViolation] = []

    def of(self, tokenizer_hash: str) -> list[EngineFacts]:
        """Return the facts of the engines with this tokenizer, the longest model length first."""
        return [each for each in self._facts if each.tokenizer_hash == tokenizer_hash][:FACTS_TRIED]

    def longest(self, tokenizer_hash: str) -> int:
        """Return the model length of the engine with this tokenizer that serves the most tokens."""
        return max(each.max_model_len for each in self.of(tokenizer_hash))

    def note(self, violations: list[FieldViolation]) -> None:
        """Keep the violations of the engine for which there are fewest; among equals, the first one."""
        if not self.fewest or len(violations) < len(self.fewest):
            self.fewest = violations


def _taking(facts: Facts, submission: Submission, model: str, violations: list[FieldViolation]) -> Facts:
    """Return the facts of the engines that take all kinds of media that the prompt has.

    Raises InvalidRequest where there are none: then the model's chat template would be the one to complain.
    """
    kinds = kinds_of(submission.media)
    found = tuple(each for each in facts if all(input_of(each.media, kind) is not None for kind in kinds))
    if not found:
        most = max(facts, key=lambda each: len(each.media))
        faults = admission.not_taken(submission.media, most.media, model)
        raise InvalidRequest(_first_per_field([*violations, *faults]))
    return found


def _before_media(request: Request, facts: EngineFacts) -> Sequence[int]:
    """Return the prompt up to its first image or audio clip: engines do not tell what they hold from there on."""
    prompt = request.prompt_token_ids
    kinds = kinds_of(request.media)
    placeholders = {each.placeholder_token_id for each in facts.media if each.kind in kinds}
    if not placeholders:
        return prompt
    return prompt[: next((at for at, each in enumerate(prompt) if each in placeholders), len(prompt))]


def _completed(stated: Mapping[str, Any], defaults: Mapping[str, Any], *, room: int) -> Sampling:
    """Fill what the caller left open with the operator's defaults, as far as they fit what the caller stated.

    ``room``: output tokens that the model's length leaves; the default of ``max_tokens``.
    """
    sampling = {**defaults, **stated}
    if "max_tokens" not in stated:
        sampling["max_tokens"] = min(defaults.get("max_tokens", room), room)
    if "min_tokens" not in stated and "min_tokens" in defaults:
        sampling["min_tokens"] = min(defaults["min_tokens"], sampling["max_tokens"])
    return Sampling(**sampling)


def _first_per_field(violations: list[FieldViolation]) -> list[FieldViolation]:
    """Keep one violation per field: the first, which is the most basic."""
    found: dict[str, FieldViolation] = {}
    for violation in violations:
        found.setdefault(violation.field, violation)
    return list(found.values())

"""Checks a request before it may wait: against the ranges of sampling and the facts of its model.

All violations are found at once, each with its path in the contract.  ``Scheduler.admit`` then checks whether an
instance can serve the request.
"""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterator, Mapping, Sequence

from sage_media.kinds import MediaInput, input_of, taken
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.errors import FieldViolation
from scheduler_svc.domain.media import Media, kinds_of, of_kind
from scheduler_svc.domain.request import Request, Sampling, StructuredOutput

_HOTTEST = 2.0  # temperature: what vLLM accepts
_PENALTY = 2.0
_BIAS = 100.0
_SEED_BITS = 63
_MAX_STOPS = 64
_SHOWN = 4  # offending ids shown
_ROW_BYTES, _CANDIDATE_BYTES = 4, 19  # most of one position's log probabilities on the wire, and of each in it

PROMPT_LOGPROBS_BYTES = 2 * 2**20
"""Most bytes of the log probabilities of a prompt: clients take messages of 4 MiB by default."""


def check(request: Request, facts: EngineFacts, *, prompt_known: bool = True) -> list[FieldViolation]:
    """Return every violation; empty if there is none.

    ``prompt_known``: False if the prompt could not be turned into token ids; then the prompt is not checked.
    """
    found = list(_targets(request))
    found += _task(request, facts)
    if prompt_known:
        found += _prompt(request, facts)
        found += _media(request, facts)
    found += _lengths(request, facts, prompt_known=prompt_known)
    if request.embedding is None:
        found += check_sampling(request.sampling, facts.vocab_size)
        found += _seeds(request)
        found += _prompt_logprobs(request)
    found += _adapter(request.adapter, facts)
    found += _supported(request.sampling.structured_output, facts)
    return found


def largest_id(sampling: Sampling) -> int:
    """Return the largest token id that the sampling names; 0 if it names none."""
    return max((*sampling.stop_token_ids, *sampling.allowed_token_ids, *sampling.logit_bias), default=0)


def check_sampling(sampling: Sampling, vocab_size: int) -> list[FieldViolation]:
    """Return numbers out of range, token ids outside the vocabulary, and strings that cannot be used."""
    found = [_at(f"spec.sampling.{name}", problem) for name, problem in _out_of_range(sampling)]
    found += _ids("stop_token_ids", sampling.stop_token_ids, vocab_size)
    found += _ids("allowed_token_ids", sampling.allowed_token_ids, vocab_size)
    found += _ids("logit_bias", sampling.logit_bias, vocab_size)
    found += _strings("stop", sampling.stop)
    found += _strings("bad_words", sampling.bad_words)
    found += _blank("bad_words", sampling.bad_words)
    if sampling.cache_salt == "":
        found.append(_at("spec.sampling.cache_salt", "is empty"))
    found += _engine_options(sampling.engine_options)
    if sampling.structured_output is not None:
        found += _structured(sampling.structured_output)
    return found


def warnings(request: Request, facts: EngineFacts) -> tuple[str, ...]:
    """Name the options that are accepted and have no effect here, in words."""
    found = []
    sampling = request.sampling
    if sampling.temperature == 0:
        idle = [
            name
            for name, set_ in (
                ("top_p", sampling.top_p != 1),
                ("top_k", sampling.top_k != 0),
                ("min_p", sampling.min_p != 0),
                ("seed", sampling.seed is not None),
            )
            if set_
        ]
        found += [f"sampling.{name} has no effect: temperature 0 takes the most likely token" for name in idle]
    if sampling.include_stop_in_output and not sampling.stop:
        found.append("sampling.include_stop_in_output has no effect: there are no stop strings")
    if request.choices > 1 and sampling.temperature == 0:
        found.append("sampling.n: all choices are alike: temperature 0 takes the most likely token")
    return tuple(found)


def _at(field: str, description: str) -> FieldViolation:
    return FieldViolation(field=field, description=description)


# --- the request ----------------------------------------------------------------------------------


def _targets(request: Request) -> Iterator[FieldViolation]:
    for name, value in (("ttft_target", request.ttft_target_s), ("tpot_target", request.tpot_target_s)):
        if value is not None and not (math.isfinite(value) and value > 0):
            yield _at(f"spec.{name}", f"is {value:g} s; it must be positive")
    if request.deadline_at is not None and not request.deadline_at > request.arrived_at:
        yield _at("spec.deadline", f"is {request.deadline_at - request.arrived_at:g} s; it must be positive")
    budget = request.cost_budget
    if budget is not None and not (math.isfinite(budget) and budget >= 0):
        yield _at("spec.cost_budget", f"is {budget:g}; it must be a number >= 0")


def _task(request: Request, facts: EngineFacts) -> Iterator[FieldViolation]:
    """Check that the model does what is asked: it generates, or it makes vectors."""
    most, wanted = facts.embedding_dimensions, request.embedding
    if wanted is None and most:
        yield _at("spec.model", f"{request.model!r} embeds; it does not generate")
    elif wanted is not None and not most:
        yield _at("spec.model", f"{request.model!r} generates; it does not embed")
    elif wanted is not None and wanted.dimensions is not None and facts.classifies:
        yield _at("spec.dimensions", f"is {wanted.dimensions}; {request.model!r} classifies: it has {most} classes")
    elif wanted is not None and wanted.dimensions is not None and not 1 <= wanted.dimensions <= most:
        yield _at("spec.dimensions", f"is {wanted.dimensions}; the model's vectors have {most} numbers")


def _adapter(name: str, facts: EngineFacts) -> Iterator[FieldViolation]:
    """Check that the engine serves the adapter, or can load it, and that nobody removes it."""
    if name in facts.run_time.leaving:
        yield _at("spec.adapter", f"{name!r} is being removed: new requests cannot use it")
    elif name and name not in facts.adapters and name not in facts.run_time.loadable:
        there_are = ", ".join(sorted(facts.adapters | facts.run_time.loadable)) or "none"
        yield _at("spec.adapter", f"{name!r} is not one of the model's adapters: {there_are}")


def _prompt(request: Request, facts: EngineFacts) -> Iterator[FieldViolation]:
    ids = request.prompt_token_ids
    if not ids:
        yield _at("spec.prompt", "is empty")
    elif request.total_tokens > facts.max_model_len:
        return  # ``_lengths`` says so; looking at millions of ids would hold up everybody else
    elif request.largest_token_id >= facts.vocab_size and max(ids) >= facts.vocab_size:
        outside = [(i, t) for i, t in enumerate(ids) if t >= facts.vocab_size]
        where = ", ".join(f"{t} at {i}" for i, t in outside[:_SHOWN])
        yield _at("spec.tokens.ids", f"{len(outside)} outside the vocabulary of {facts.vocab_size}: {where}")


def _media(request: Request, facts: EngineFacts) -> Iterator[FieldViolation]:
    """Check that the model takes the images and audio, and that the prompt has a placeholder for each and no other."""
    yield from not_taken(request.media, facts.media, request.model)
    for kind in kinds_of(request.media):
        takes = input_of(facts.media, kind)
        if takes is not None:
            yield from _places(request, takes, of_kind(request.media, kind))
    if request.media and request.sampling.prompt_logprobs is not None:
        yield _at("spec.sampling.prompt_logprobs", "is not supported for a prompt with images or audio")


def _places(request: Request, takes: MediaInput, found: Sequence[Media]) -> Iterator[FieldViolation]:
    """Check number and placeholders of one kind; where there is none, text may hold what stands for it elsewhere."""
    count, noun = len(found), takes.kind.noun
    if count > takes.most:
        yield _at(found[takes.most].field, f"is {noun} {count}; the model takes {takes.most}")
        return
    places = sum(each == takes.placeholder_token_id for each in request.prompt_token_ids)
    if places != count:
        what = f"has {places} placeholders (token {takes.placeholder_token_id}) for {count} {noun}s"
        yield _at("spec.prompt", what)


def not_taken(media: Sequence[Media], inputs: Sequence[MediaInput], model: str) -> Iterator[FieldViolation]:
    """Say of each image and audio clip of a kind that the model does not take that it takes none."""
    for each in media:
        if input_of(inputs, each.kind) is None:
            yield _at(
                each.field, f"is an {each.kind.noun}; model {model!r} takes {taken(each.kind for each in inputs)}"
            )


def _lengths(request: Request, facts: EngineFacts, *, prompt_known: bool) -> Iterator[FieldViolation]:
    """Check prompt and output against the model's length; a violation names both figures."""
    limit, output = facts.max_model_len, request.sampling.max_tokens
    prompt = request.prompt_tokens if prompt_known else 0
    if request.embedding is not None:
        if prompt > limit:
            yield _at("spec.prompt", f"has {prompt} tokens; the model takes {limit}")
    elif prompt >= limit:
        yield _at("spec.prompt", f"has {prompt} tokens; the model serves {limit} tokens of prompt and output")
    elif prompt + output > limit:
        yield _at(
            "spec.sampling.max_tokens",
            f"prompt of {prompt} and max_tokens of {output} are {prompt + output} tokens; the model serves {limit}",
        )


def _seeds(request: Request) -> Iterator[FieldViolation]:
    """Check that the seed of each further choice, which is one more than that before it, is one, too."""
    seed, more = request.sampling.seed, request.choices - 1
    if more and seed is not None and seed < 2**_SEED_BITS <= seed + more:
        yield _at("spec.sampling.seed", f"is {seed}; those of {more} further choices exceed a signed 64-bit integer")


def _prompt_logprobs(request: Request) -> Iterator[FieldViolation]:
    """Check that the log probabilities of a prompt fit into one message."""
    top = request.sampling.prompt_logprobs
    if top is None or top < 0:
        return
    size = request.prompt_tokens * (_ROW_BYTES + _CANDIDATE_BYTES * (top + 1))
    if size > PROMPT_LOGPROBS_BYTES:
        what = f"{top + 1} of each of {request.prompt_tokens} tokens take up to {size} bytes"
        yield _at("spec.sampling.prompt_logprobs", f"{what}; the limit is {PROMPT_LOGPROBS_BYTES}")


def _supported(wanted: StructuredOutput | None, facts: EngineFacts) -> Iterator[FieldViolation]:
    if wanted is not None and wanted.kind not in facts.structured_output_kinds:
        kinds = ", ".join(sorted(facts.structured_output_kinds)) or "none"
        yield _at(_structured_field(wanted), f"is not supported by the model's engine (supported: {kinds})")


# --- sampling -------------------------------------------------------------------------------------


def _out_of_range(s: Sampling) -> Iterator[tuple[str, str]]:
    """Yield field and problem of each number out of range.

    Each check states what must hold, because every comparison with NaN is false.
    """
    checks = (
        ("temperature", s.temperature, 0 <= s.temperature <= _HOTTEST, "from 0 to 2"),
        ("top_p", s.top_p, 0 < s.top_p <= 1, "above 0 and at most 1"),
        ("top_k", s.top_k, s.top_k >= 0, ">= 0 (0 considers all tokens)"),
        ("min_p", s.min_p, 0 <= s.min_p <= 1, "from 0 to 1"),
        ("presence_penalty", s.presence_penalty, abs(s.presence_penalty) <= _PENALTY, "from -2 to 2"),
        ("frequency_penalty", s.frequency_penalty, abs(s.frequency_penalty) <= _PENALTY, "from -2 to 2"),
        ("repetition_penalty", s.repetition_penalty, 0 < s.repetition_penalty <= _PENALTY, "above 0 and at most 2"),
        ("max_tokens", s.max_tokens, s.max_tokens >= 1, "at least 1"),
        ("min_tokens", s.min_tokens, 0 <= s.min_tokens <= s.max_tokens, f"from 0 to max_tokens ({s.max_tokens})"),
        ("logprobs", s.logprobs, s.logprobs is None or s.logprobs >= 0, ">= 0"),
        ("prompt_logprobs", s.prompt_logprobs, s.prompt_logprobs is None or s.prompt_logprobs >= 0, ">= 0"),
        ("seed", s.seed, s.seed is None or -(2**_SEED_BITS) <= s.seed < 2**_SEED_BITS, "a signed 64-bit integer"),
    )
    for name, value, holds, wanted in checks:
        if not holds:
            yield name, f"is {value}; it must be {wanted}"
    bad = [(t, b) for t, b in s.logit_bias.items() if not abs(b) <= _BIAS]
    if bad:
        yield "logit_bias", f"{len(bad)} of its values are not from -100 to 100: {bad[0][1]} for token {bad[0][0]}"


def _ids(name: str, ids: Collection[int], vocab_size: int) -> Iterator[FieldViolation]:
    if ids and (min(ids) < 0 or max(ids) >= vocab_size):
        outside = [t for t in ids if not 0 <= t < vocab_size]
        shown = ", ".join(map(str, outside[:_SHOWN]))
        yield _at(
            f"spec.sampling.{name}", f"{len(outside)} of its ids are outside the vocabulary of {vocab_size}: {shown}"
        )


def _strings(name: str, strings: Sequence[str]) -> Iterator[FieldViolation]:
    if len(strings) > _MAX_STOPS:
        yield _at(f"spec.sampling.{name}", f"has {len(strings)} strings; the limit is {_MAX_STOPS}")
    if not all(strings):
        yield _at(f"spec.sampling.{name}", "holds an empty string")


def _blank(name: str, strings: Sequence[str]) -> Iterator[FieldViolation]:
    """Refuse white space alone: engines spell a word without the white space before it, which leaves no token."""
    if any(text and not text.strip() for text in strings):
        yield _at(f"spec.sampling.{name}", "holds a string of white space alone")


def _engine_options(options: Mapping[str, str]) -> Iterator[FieldViolation]:
    for name, value in options.items():
        try:
            json.loads(value)
        except (ValueError, RecursionError) as error:
            yield _at(f"spec.sampling.engine_options[{name!r}]", f"is not JSON: {error}")


def _structured_field(wanted: StructuredOutput) -> str:
    return f"spec.sampling.structured_output.{wanted.kind}"


def _structured(wanted: StructuredOutput) -> Iterator[FieldViolation]:
    """Check what needs no grammar compiler; the engine may still refuse the constraint."""
    field = _structured_field(wanted)
    if wanted.reasoning_arguments and not isinstance(_parsed(wanted.reasoning_arguments), dict):
        yield _at("spec.sampling.structured_output.reasoning_arguments", "is not a JSON object")
    if wanted.kind == "json_schema":
        yield from _json_schema(field, wanted.value)
    elif wanted.kind == "structural_tag":
        yield from _structural_tag(field, wanted.value)
    elif wanted.kind == "choice":
        choices = _parsed(wanted.value)
        if not (isinstance(choices, list) and choices and all(isinstance(c, str) and c for c in choices)):
            yield _at(field, "must hold at least one string, none of them empty")
    elif wanted.kind in ("regex", "grammar") and not wanted.value.strip():
        yield _at(field, "is empty")


def _json_schema(field: str, value: str) -> Iterator[FieldViolation]:
    try:
        schema = json.loads(value)
    except (ValueError, RecursionError) as error:
        yield _at(field, f"is not JSON: {error}")
        return
    if not isinstance(schema, dict):
        yield _at(field, f"is a JSON {type(schema).__name__}; a schema is an object")


def _structural_tag(field: str, value: str) -> Iterator[FieldViolation]:
    tag = _parsed(value)
    if not isinstance(tag, dict) or not isinstance(tag.get("format"), dict):
        yield _at(field, 'is not a JSON object with an object "format"')


def _parsed(value: str) -> object:
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return None

"""Bounds of a request in counts and bytes, checked before anything of it is converted.

A message's own bound (16 MiB) is far above what any field needs: a megabyte in a field that is copied, logged, sent to
every executor or compiled would be paid for by everybody else.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized

from sage.controlplane.v1 import common_pb2, inference_pb2
from sage_wire.protocol import PROMPT_LIMIT_BYTES
from scheduler_svc.transport import media
from scheduler_svc.transport.clipping import size_of
from scheduler_svc.transport.violations import Violations

PROMPT_LIMIT_TOKENS = 2 * 1024 * 1024
MESSAGES_LIMIT = 4_096  # of a chat
PARTS_LIMIT = 8_192  # of all its messages' content together
TEMPLATE_ARGUMENTS_BYTES = 64 * 1024

ID_CHARACTERS = 256  # of a request id, and of a tenant
NAME_BYTES = 1_024  # of a model, an adapter, a session, an instance
RECEIPT_BYTES = 4_096
TAGS_LIMIT = 16  # entries
TAG_BYTES = 256  # key and value of an entry together

STRINGS_LIMIT = 64  # stop strings; words that are forbidden
STRING_BYTES = 1_024
STOP_IDS_LIMIT = 1_024
BIASES_LIMIT = 4_096
ALLOWED_IDS_LIMIT = 256 * 1024  # as many as the largest vocabularies hold
CHOICES_LIMIT = 1_024
POSITIONS_LIMIT = 1_024  # of choices that a reader goes on with
CONSTRAINT_BYTES = 64 * 1024  # of a schema, pattern or grammar, and of all choices together
REASONING_ARGUMENTS_BYTES = 16 * 1024
SALT_BYTES = 256
ENGINE_OPTIONS_LIMIT = 32  # entries
ENGINE_OPTION_BYTES = 4_096  # name and value of an entry together


def check(request: inference_pb2.GenerateRequest | inference_pb2.SubmitRequest, violations: Violations) -> bool:
    """Add a violation for every bound that is exceeded; return whether there is none and conversion may begin.

    Counts come before the sizes of what was counted, so that the work is bounded too.
    """
    before = len(violations)
    spec = request.spec
    for name in ("model", "adapter", "session", "preferred_instance"):
        _bytes(getattr(spec, name), f"spec.{name}", NAME_BYTES, violations)
    if isinstance(request, inference_pb2.GenerateRequest):
        _count(request.receipt, "receipt", "bytes", RECEIPT_BYTES, violations)
        _count(request.after, "after", "positions", POSITIONS_LIMIT, violations)
    _count(spec.tags, "spec.tags", "entries", TAGS_LIMIT, violations)
    _prompt(spec, violations)
    _sampling(spec.sampling, violations)
    return len(violations) == before


def check_labels(request: inference_pb2.GenerateRequest | inference_pb2.SubmitRequest, violations: Violations) -> None:
    """Add the violations of ids, tenant and tags, of which there may be no more than TAGS_LIMIT."""
    _id(request.request_id, "request_id", violations)
    _id(request.tenant, "tenant", violations)
    for key, value in request.spec.tags.items():
        if size_of(key) + size_of(value) > TAG_BYTES:
            violations.add(f"spec.tags[{key[:32]!r}]", f"key and value are longer than {TAG_BYTES} bytes")


def _id(value: str, field: str, violations: Violations) -> None:
    if len(value) > ID_CHARACTERS:
        violations.add(field, f"has {len(value)} characters; the limit is {ID_CHARACTERS}")
    elif not value.isprintable():
        violations.add(field, "holds characters that cannot be printed")


def _prompt(spec: inference_pb2.GenerationSpec, violations: Violations) -> None:
    before = len(violations)
    kind = spec.WhichOneof("prompt")
    if kind == "text":
        _bytes(spec.text, "spec.text", PROMPT_LIMIT_BYTES, violations)
    elif kind == "tokens":
        _count(spec.tokens.ids, "spec.tokens.ids", "tokens", PROMPT_LIMIT_TOKENS, violations)
    elif kind == "chat":
        _chat(spec.chat, violations)
    if len(violations) == before:
        media.check(spec, violations)


def _chat(chat: inference_pb2.Chat, violations: Violations) -> None:
    field = "spec.chat.messages"
    _bytes(chat.template_arguments_json, "spec.chat.template_arguments_json", TEMPLATE_ARGUMENTS_BYTES, violations)
    if not _count(chat.messages, field, "messages", MESSAGES_LIMIT, violations):
        return
    parts = sum(len(message.content) for message in chat.messages)
    if parts > PARTS_LIMIT:
        violations.add(field, f"have {parts} content parts; the limit is {PARTS_LIMIT}")
        return
    characters = 0
    for index, message in enumerate(chat.messages):
        if 4 * (len(message.role) + len(message.name)) > NAME_BYTES:
            _bytes(message.role, f"{field}[{index}].role", NAME_BYTES, violations)
            _bytes(message.name, f"{field}[{index}].name", NAME_BYTES, violations)
        if message.template_fields_json:
            _bytes(
                message.template_fields_json,
                f"{field}[{index}].template_fields_json",
                TEMPLATE_ARGUMENTS_BYTES,
                violations,
            )
            characters += len(message.template_fields_json)
        for part in message.content:
            characters += len(part.text)
    if 4 * characters > PROMPT_LIMIT_BYTES:
        size = sum(size_of(part.text) for message in chat.messages for part in message.content)
        size += sum(size_of(message.template_fields_json) for message in chat.messages)
        if size > PROMPT_LIMIT_BYTES:
            violations.add(field, f"have {size} bytes; the limit is {PROMPT_LIMIT_BYTES}")


def _sampling(sampling: common_pb2.SamplingParams, violations: Violations) -> None:
    field = "spec.sampling"
    for name, strings in (("stop", sampling.stop), ("bad_words", sampling.bad_words)):
        if _count(strings, f"{field}.{name}", "strings", STRINGS_LIMIT, violations):
            _each(strings, f"{field}.{name}", STRING_BYTES, violations)
    _count(sampling.stop_token_ids, f"{field}.stop_token_ids", "ids", STOP_IDS_LIMIT, violations)
    _count(sampling.allowed_token_ids, f"{field}.allowed_token_ids", "ids", ALLOWED_IDS_LIMIT, violations)
    _count(sampling.logit_bias, f"{field}.logit_bias", "entries", BIASES_LIMIT, violations)
    _bytes(sampling.cache_salt, f"{field}.cache_salt", SALT_BYTES, violations)
    _engine_options(sampling.engine_options, f"{field}.engine_options", violations)
    _constraint(sampling.structured_output, f"{field}.structured_output", violations)


def _engine_options(options: Mapping[str, str], field: str, violations: Violations) -> None:
    if not _count(options, field, "entries", ENGINE_OPTIONS_LIMIT, violations):
        return
    for name, value in options.items():
        if (size := size_of(name) + size_of(value)) > ENGINE_OPTION_BYTES:
            violations.add(f"{field}[{name[:32]!r}]", f"has {size} bytes; the limit is {ENGINE_OPTION_BYTES}")


def _constraint(wanted: common_pb2.StructuredOutput, field: str, violations: Violations) -> None:
    kind = wanted.WhichOneof("kind")
    arguments = f"{field}.reasoning_arguments"
    _bytes(wanted.reasoning_arguments, arguments, REASONING_ARGUMENTS_BYTES, violations)
    if kind == "choice":
        choices = wanted.choice.choices
        if _count(choices, f"{field}.choice", "choices", CHOICES_LIMIT, violations):
            size = sum(map(size_of, choices))
            if size > CONSTRAINT_BYTES:
                violations.add(f"{field}.choice", f"has {size} bytes; the limit is {CONSTRAINT_BYTES}")
    elif kind in ("json_schema", "regex", "grammar", "structural_tag"):
        _bytes(getattr(wanted, kind), f"{field}.{kind}", CONSTRAINT_BYTES, violations)


def _count(found: Sized, field: str, what: str, limit: int, violations: Violations) -> bool:
    if len(found) <= limit:
        return True
    violations.add(field, f"has {len(found)} {what}; the limit is {limit}")
    return False


def _bytes(text: str, field: str, limit: int, violations: Violations) -> None:
    # A character takes at most four bytes, so most texts need not be encoded.
    if 4 * len(text) > limit and (size := size_of(text)) > limit:
        violations.add(field, f"has {size} bytes; the limit is {limit}")


def _each(strings: Sequence[str], field: str, limit: int, violations: Violations) -> None:
    longest = max(map(size_of, strings), default=0)
    if longest > limit:
        violations.add(field, f"holds a string of {longest} bytes; the limit is {limit}")

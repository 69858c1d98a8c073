"""Translates a constraint to the call of xgrammar's compiler that vLLM makes for it."""

from __future__ import annotations

from typing import Any

from executor_svc.engine.structured import choices_of, structural_tag_of
from executor_svc.runtime.engine_port import StructuredKind, StructuredOutput


def compile_call(constraint: StructuredOutput, *, any_whitespace: bool) -> dict[str, Any] | None:
    """Return the method's name, its text and options; None if vLLM always has the result at once.

    ``any_whitespace``: whether JSON may have blanks anywhere.  Raises InvalidRequestError for broken choices and tags.
    """
    match constraint.kind:
        case StructuredKind.JSON_SCHEMA:
            return _call("compile_json_schema", constraint.value, any_whitespace=any_whitespace)
        case StructuredKind.REGEX:
            return _call("compile_regex", constraint.value)
        case StructuredKind.CHOICE:
            from vllm.v1.structured_output.utils import choice_as_grammar

            return _call("compile_grammar", choice_as_grammar(choices_of(constraint)))
        case StructuredKind.GRAMMAR:
            return _grammar_call(constraint.value)
        case StructuredKind.STRUCTURAL_TAG:
            return _call("compile_structural_tag", structural_tag_of(constraint))
        case StructuredKind.JSON_OBJECT:
            return None


def _grammar_call(grammar: str) -> dict[str, Any] | None:
    from vllm.v1.structured_output import utils

    if not utils.grammar_is_likely_lark(grammar):
        return _call("compile_grammar", grammar)
    convert = getattr(utils, "convert_lark_to_ebnf", None)  # until xgrammar read Lark itself
    if convert is None:
        return _call("compile_lark", grammar)
    try:
        return _call("compile_grammar", convert(grammar))
    except ValueError:
        return None  # vLLM refuses it in its own words


def _call(method: str, text: str, **options: object) -> dict[str, Any]:
    return {"method": method, "text": text, "options": options}

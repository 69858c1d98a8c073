"""Output in the form of a class: its JSON Schema constrains the generation, and the text is parsed into it."""

from __future__ import annotations

from typing import Any, Protocol

from sage_client._enums import FinishReason
from sage_client._errors import OutputInvalidError


class ResponseFormat(Protocol):
    """An instance of a class that describes and parses JSON, such as a pydantic model."""

    @classmethod
    def model_json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of the class."""

    @classmethod
    def model_validate_json(cls, json_data: str, /) -> Any:
        """Return an instance; raise ValueError for a text that is none."""


def schema_of(form: type[ResponseFormat]) -> dict[str, Any]:
    """Return the JSON Schema of a class.

    Raises:
        TypeError: it is no class with a schema.
    """
    if not (hasattr(form, "model_json_schema") and hasattr(form, "model_validate_json")):
        raise TypeError("must be a pydantic model, or a class with its model_json_schema and model_validate_json")
    return form.model_json_schema()


def parse(form: type[ResponseFormat], text: str, finish_reason: FinishReason) -> Any:
    """Return the instance that a finished request's text describes.

    Raises:
        OutputInvalidError: the text ends too early, or does not fit the class.
    """
    try:
        return form.model_validate_json(text)
    except ValueError as error:
        cut = "; max_tokens ended it" if finish_reason is FinishReason.LENGTH else ""
        raise OutputInvalidError(f"response_format: the output is no {form.__name__}{cut}: {error}") from error

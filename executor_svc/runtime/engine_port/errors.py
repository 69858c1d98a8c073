"""Errors that engines raise."""

from __future__ import annotations


class EngineError(Exception):
    """The engine failed this request; another instance may succeed."""


class EngineDeadError(EngineError):
    """The engine is gone for good; the process must exit and be started again."""


class InvalidRequestError(Exception):
    """The engine found the caller's request invalid.  Never retried, never counted against the instance's health."""

    def __init__(self, field_name: str, message: str) -> None:
        super().__init__(message)
        self.field_name = field_name  # contract path, e.g. "sampling.structured_output.json_schema"
        self.message = message


class ModelError(Exception):
    """The model is missing, broken or does not fit; the message says which model and what to do."""

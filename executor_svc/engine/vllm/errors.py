"""Translates vLLM's exceptions, which differ between its versions, to the engine port's."""

from __future__ import annotations

from collections.abc import Sequence

from executor_svc.engine.vllm.sampling import invalid_request
from executor_svc.runtime.engine_port import EngineDeadError, EngineError, EngineMedia, Sampling


class VllmErrors:
    """Translates exceptions with the classes of the installed vLLM.  Make it only after vLLM was imported."""

    def __init__(self) -> None:
        from vllm.v1.engine import exceptions

        self.dead: type[Exception] = exceptions.EngineDeadError
        self._wrapper: type[Exception] = exceptions.EngineGenerateError
        self._client = _client_errors()
        self.invalid_params: tuple[type[Exception], ...] = (ValueError, TypeError, *self._client)

    def translated(
        self, error: Exception, sampling: Sampling, *, started: bool, media: Sequence[EngineMedia] = ()
    ) -> Exception:
        """Return the port's error for ``error``, which vLLM raised about a request.

        ``started``: whether the request had an output.  vLLM finds an invalid request before the first output, so a
        ValueError counts as the caller's fault only until then.  ``media``: of the request.
        """
        if isinstance(error, self.dead):
            return EngineDeadError(first_line(error))
        if isinstance(error, self._wrapper) and isinstance(error.__cause__, Exception):
            error = error.__cause__
        if isinstance(error, self._client) or (isinstance(error, ValueError) and not started):
            return invalid_request(error, sampling, media)
        return EngineError(f"{type(error).__name__}: {first_line(error)}")


def _client_errors() -> tuple[type[Exception], ...]:
    """Return the classes that vLLM raises for a caller's fault: they have one base in 0.32 and none in 0.26."""
    from vllm import exceptions

    names = ("VLLMClientError", "VLLMValidationError", "VLLMNotFoundError")
    return tuple(getattr(exceptions, name) for name in names if hasattr(exceptions, name))


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its class name if it has none."""
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


def start_failure(error: BaseException) -> str:
    """Return in one line why vLLM did not start.  An error of pydantic has the reason in its second line."""
    lines = str(error).strip().splitlines()
    if len(lines) > 1 and "validation error" in lines[0]:
        return lines[1].strip().partition(" [type=")[0]
    if "Engine core initialization failed" in str(error):
        return "its engine core failed; the log lines before this one say why"
    return first_line(error)

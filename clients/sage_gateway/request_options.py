"""The options of a request that are ours: in headers ``x-sage-...``, or in the field ``sage`` of its JSON body."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from sage_client import GenerateOptions, NoInstance, Priority, ResumeMode

HEADER_PREFIX = "x-sage-"
BODY_FIELD = "sage"


class OptionError(Exception):
    """An option cannot be used.

    Attributes:
        name: where it was given: a header, or a path in the body.
    """

    def __init__(self, name: str, what: str) -> None:
        self.name = name
        super().__init__(f"{name}: {what}")


@dataclass(frozen=True, kw_only=True, slots=True)
class RequestOptions:
    """What a caller asked for beyond OpenAI's fields; None or empty: not given."""

    priority: Priority | None = None
    deadline: float | None = None  # seconds from acceptance
    ttft_target: float | None = None  # seconds from acceptance to the first token
    tpot_target: float | None = None  # seconds per output token after the first
    cost_budget: float | None = None  # in the currency of the instances' prices
    session: str = ""  # conversation id
    request_id: str = ""
    tenant: str = ""
    resume_mode: ResumeMode | None = None
    no_instance: NoInstance | None = None
    preferred_instance: str = ""
    report: bool = False  # say at the end what it took and cost

    def for_sdk(self) -> GenerateOptions:
        """Return what the SDK's ``generate`` takes of them; the request id is not among them."""
        options = GenerateOptions()
        for name in _PASSED_ON:
            value = getattr(self, name)
            if value is not None and value != "":
                options[name] = value  # type: ignore[literal-required]
        return options


def read_options(headers: Mapping[str, str], body: Mapping[str, Any] | None = None) -> RequestOptions:
    """Return the options of a request.  An option in the body counts before the same one in a header.

    Args:
        headers: the HTTP headers, by names in lower case.
        body: the JSON object of the request's body, if it has one.

    Raises:
        OptionError: an option has a value that it cannot have, or the body names one that does not exist.
    """
    given: dict[str, Any] = {}
    for header, value in headers.items():
        name = header.removeprefix(HEADER_PREFIX).replace("-", "_")
        if header.startswith(HEADER_PREFIX) and name in _READERS:
            given[name] = _read(header, name, value)
    for name, value in _object(body).items():
        if name not in _READERS:
            raise OptionError(f"{BODY_FIELD}.{name}", f"is not an option; there are: {', '.join(_READERS)}")
        given[name] = _read(f"{BODY_FIELD}.{name}", name, value)
    if not given.get("request_id") and headers.get("x-request-id"):
        given["request_id"] = _read("x-request-id", "request_id", headers["x-request-id"])
    return RequestOptions(**given)


def _object(body: Mapping[str, Any] | None) -> Mapping[str, Any]:
    value = (body or {}).get(BODY_FIELD)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise OptionError(BODY_FIELD, "is not an object")
    return value


def _read(where: str, name: str, value: Any) -> Any:
    try:
        return _READERS[name](value)
    except (ValueError, TypeError) as error:
        raise OptionError(where, str(error)) from None


def _priority(value: Any) -> Priority:
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    return Priority.parse(value.strip() if isinstance(value, str) else value)


def _number(value: Any) -> float:
    """Return a positive number, or zero.  Raises ValueError."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):  # too large a whole number for a float
        raise ValueError(f"{_shown(value)} is not a number") from None
    if isinstance(value, bool) or not math.isfinite(number) or number < 0:
        raise ValueError(f"{_shown(value)} is not a number of at least 0")
    return number


def _switch(value: Any) -> bool:
    chosen = {True: True, False: False, "true": True, "1": True, "false": False, "0": False}
    key = value.strip().lower() if isinstance(value, str) else value
    if not isinstance(key, str | bool) or key not in chosen:
        raise ValueError(f"{_shown(value)} is neither true nor false")
    return chosen[key]


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"{_shown(value)} is not a text")
    return value


def _one_of(kind: type[ResumeMode] | type[NoInstance]) -> Callable[[Any], Any]:
    def read(value: Any) -> Any:
        try:
            return kind(value.lower() if isinstance(value, str) else value)
        except ValueError:
            raise ValueError(f"{_shown(value)} is none of {', '.join(each.value for each in kind)}") from None

    return read


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_READERS: dict[str, Callable[[Any], Any]] = {
    "priority": _priority,
    "deadline": _number,
    "ttft_target": _number,
    "tpot_target": _number,
    "cost_budget": _number,
    "session": _text,
    "request_id": _text,
    "tenant": _text,
    "resume_mode": _one_of(ResumeMode),
    "no_instance": _one_of(NoInstance),
    "preferred_instance": _text,
    "report": _switch,
}
_PASSED_ON = tuple(name for name in _READERS if name not in ("request_id", "report"))

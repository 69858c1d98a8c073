"""The fields of requests about files and batches, in OpenAI's form, as arguments of the SDK."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs

from sage_client import Priority
from sage_gateway.error_answers import Refused, invalid
from sage_gateway.json_body import json_object
from sage_gateway.request_options import OptionError, RequestOptions, read_options

BATCH = "batch"
"""The only purpose that files are uploaded for."""

WINDOW = "24h"
"""The time that a batch is given where its request does not say; OpenAI's API knows no other."""

_KNOWN = frozenset({"input_file_id", "endpoint", "completion_window", "metadata", "output_expires_after", "sage"})
_OPTIONS = frozenset({"priority", "tenant", "request_id"})
_LIST_LIMIT = 100
_LISTS = frozenset({"limit", "after", "order", "purpose"})


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchFields:
    """What a request for a batch asks for."""

    input_file_id: str
    endpoint: str
    window: str  # such as "24h"
    metadata: Mapping[str, str] = field(default_factory=dict)
    keep_s: float | None = None  # how long its files are kept; None: not given
    priority: Priority | None = None
    tenant: str | None = None
    batch_id: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ListFields:
    """Which part of a list is asked for."""

    limit: int  # most entries
    after: str  # id of the last entry of the part before; empty: from the start
    purpose: str  # of files; empty: all


def batch_fields(body: bytes, headers: Mapping[str, str]) -> BatchFields:
    """Return what a body asks for; the scheduler checks the values.  Raises Refused."""
    fields = _object(body)
    for name in fields:
        if name not in _KNOWN:
            raise Refused(invalid(f"{name}: is not supported by this server", name))
    options = own_options(headers, fields)
    return BatchFields(
        input_file_id=_text(fields, "input_file_id"),
        endpoint=_text(fields, "endpoint", ""),
        window=_text(fields, "completion_window", WINDOW),
        metadata=_metadata(fields.get("metadata")),
        keep_s=_keep_s(fields.get("output_expires_after"), "output_expires_after"),
        priority=options.priority,
        tenant=options.tenant or None,
        batch_id=options.request_id or None,
    )


def own_options(headers: Mapping[str, str], fields: Mapping[str, Any] | None = None) -> RequestOptions:
    """Return the options that are ours; batches and files have few.  Raises Refused."""
    try:
        options = read_options(headers, fields)
    except OptionError as error:
        raise Refused(invalid(str(error), error.name)) from None
    for each in dataclasses.fields(options):
        if each.name not in _OPTIONS and getattr(options, each.name) != each.default:
            name = f"sage.{each.name}"
            raise Refused(invalid(f"{name}: is not an option of batches and files", name))
    return options


def file_keep_s(form: Mapping[str, str]) -> float | None:
    """Return how long a file is to be kept, in seconds, as its form says; None if it does not.  Raises Refused."""
    prefix = "expires_after["
    given = {name.removeprefix(prefix).rstrip("]"): value for name, value in form.items() if name.startswith(prefix)}
    return _keep_s(given or None, "expires_after")


def list_fields(query: bytes, limit: int) -> ListFields:
    """Return which part of a list a query string asks for; ``limit``: most entries there may be.  Raises Refused."""
    given = {name: values[-1] for name, values in parse_qs(query.decode("latin-1"), keep_blank_values=True).items()}
    for name in given:
        if name not in _LISTS:
            raise Refused(invalid(f"{name}: is not supported by this server", name))
    if given.get("order", "desc") != "desc":
        raise Refused(invalid("order: lists have the latest first (desc)", "order"))
    wanted = given.get("limit") or str(min(_LIST_LIMIT, limit))
    if not (wanted.isascii() and wanted.isdecimal() and 1 <= int(wanted[:9]) <= limit):
        raise Refused(invalid(f"limit: is not a whole number from 1 to {limit}", "limit"))
    return ListFields(limit=int(wanted), after=given.get("after", ""), purpose=given.get("purpose", ""))


def _object(body: bytes) -> Mapping[str, Any]:
    fields = json_object(body)
    if fields is None:
        raise Refused(invalid("the body is not a JSON object"))
    return fields


def _text(fields: Mapping[str, Any], name: str, default: str | None = None) -> str:
    value = fields.get(name)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or (not value and default is None):
        raise Refused(invalid(f"{name}: is missing" if value in (None, "") else f"{name}: is not a text", name))
    return value


def _metadata(given: Any) -> Mapping[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(value, str) for value in given.values()):
        raise Refused(invalid("metadata: is not an object of texts", "metadata"))
    return given


def _keep_s(given: Any, name: str) -> float | None:
    """Return the seconds of an object such as {"anchor": "created_at", "seconds": 3600}."""
    if given is None:
        return None
    if not isinstance(given, dict) or given.get("anchor", "created_at") != "created_at":
        raise Refused(invalid(f"{name}: is not an object with the anchor created_at", name))
    seconds = given.get("seconds")
    if isinstance(seconds, str) and seconds.isascii() and seconds.isdecimal() and len(seconds) < 12:
        seconds = int(seconds)
    if type(seconds) is not int or seconds < 1:
        raise Refused(invalid(f"{name}: its seconds are not a whole number of at least 1", name))
    return float(seconds)

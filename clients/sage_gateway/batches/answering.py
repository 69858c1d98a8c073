"""What the routes have in common that the gateway answers by the scheduler's word alone, without a model."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from sage_client import InvalidRequestError, SageError
from sage_gateway.asgi import BodyTooLarge, ClientGone, Receive, Scope, Send, answer_error, read_body
from sage_gateway.batches.fields import own_options
from sage_gateway.caller_clients import unusable_token
from sage_gateway.error_answers import HttpError, Refused, http_error, unauthenticated
from sage_gateway.http_headers import HttpHeaders

_T = TypeVar("_T")

BODY_LIMIT_BYTES = 64 * 1024
"""Largest body of a request that is no file."""

BODY_TIMEOUT_S = 60.0
"""Seconds that such a body may take to arrive."""

PAGE = 1_000
"""Most entries of a list that the scheduler is asked for at once."""


async def answering(work: Coroutine[Any, Any, None], send: Send, names: Mapping[str, str]) -> None:
    """Do the work that answers a request, and answer with its error if it raises one before it answered.

    ``names``: the names that callers gave to fields of the contract.
    """
    try:
        await work
    except Refused as refused:
        await answer_error(send, refused.error)
    except SageError as error:
        found = http_error(error)
        violations = error.violations if isinstance(error, InvalidRequestError) else ()
        param = names.get(violations[0].field, found.param) if violations else found.param
        await answer_error(send, replace(found, param=param))
    except ClientGone:
        return


def token_of(scope: Scope) -> str:
    """Return the caller's bearer token; empty if there is none.  Raises Refused if it cannot be one."""
    token = HttpHeaders(scope["headers"]).token()
    if why := unusable_token(token):
        raise Refused(unauthenticated(why))
    return token


def tenant_of(scope: Scope) -> str | None:
    """Return the tenant that a caller of several names in a header; None if it names none.  Raises Refused."""
    return own_options(HttpHeaders(scope["headers"])).tenant or None


def check_method(scope: Scope, *allowed: str) -> None:
    """Check the method of a request.  Raises Refused."""
    if scope["method"] not in allowed:
        what = f"{scope['method']} is not allowed here; {' and '.join(allowed)} are"
        raise Refused(HttpError(status=405, kind="invalid_request_error", message=what))


def id_in(path: str, route: str, part: str) -> tuple[str, bool]:
    """Return the id in a path behind its route, which may hold slashes, and whether ``part`` follows it."""
    named = path.removeprefix(route).removeprefix("/")
    return named.removesuffix(part), named.endswith(part)


def too_large(limit: int) -> Refused:
    """Return the error for a body of more than ``limit`` bytes."""
    return Refused(HttpError(status=413, kind="invalid_request_error", message=f"the body has more than {limit} bytes"))


def too_late(limit_s: float) -> Refused:
    """Return the error for a body of which nothing, or not all, came in time."""
    what = f"the body did not come within {limit_s:g} s"
    return Refused(HttpError(status=408, kind="timeout_error", message=what, retry=False))


async def small_body(receive: Receive) -> bytes:
    """Return the body of a request that is no file.  Raises Refused and ClientGone."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await read_body(receive, BODY_LIMIT_BYTES)
    except TimeoutError:
        raise too_late(BODY_TIMEOUT_S) from None
    except BodyTooLarge:
        raise too_large(BODY_LIMIT_BYTES) from None


async def page_of(entries: AsyncGenerator[_T, None], limit: int) -> tuple[list[_T], bool]:
    """Return the first ``limit`` entries of a list, and whether there are more."""
    page: list[_T] = []
    async with aclosing(entries):
        async for each in entries:
            if len(page) == limit:
                return page, True
            page.append(each)
    return page, False

"""Accepts the beginning of an id in its place, where only one id begins so.

The id is tried as it is first: what exists by its whole id needs no further call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import islice
from typing import TypeVar

import sage_client as sage
from sage_client import Client

_T = TypeVar("_T")

DETACHED_LOOKED_AT = 1_000  # latest detached requests of which an id may be the beginning
BATCHES_LOOKED_AT = 1_000  # the latest
DECISIONS_LOOKED_AT = 64  # latest decisions of the scheduler, as many as it keeps
CANDIDATES_SHOWN = 8


def with_instance(client: Client, given: str, call: Callable[[str], _T]) -> _T:
    """Call with an instance's id, or else with the id that begins so.

    Raises:
        InstanceNotFoundError: no instance's id begins so.
        InvalidRequestError: several do; names them.
    """
    return _with(sage.InstanceNotFoundError, "instances", lambda: instance_ids(client), given, call)


def preferred_instance(client: Client, given: str) -> str:
    """Return the id of the instance whose id begins so; what is given, if none does or the caller may not list them.

    Nothing is called with the id, as a request takes any: its decision says that a preferred instance is not there.
    Raises InvalidRequestError if several begin so, and none is named so; names them.
    """
    try:
        ids = instance_ids(client)
    except sage.AuthenticationError:
        return given
    return given if given in ids else _only("instances", given, ids) or given


def with_request(client: Client, given: str, call: Callable[[str], _T]) -> _T:
    """Call with a request's id, or else with the id that begins so, of detached work and of the latest decisions.

    Raises:
        RequestNotFoundError: no such request's id begins so.
        InvalidRequestError: several do; names them.
    """
    return _with(sage.RequestNotFoundError, "requests", lambda: request_ids(client), given, call)


def with_batch(client: Client, given: str, call: Callable[[str], _T]) -> _T:
    """Call with a batch's id, or else with the id that begins so, of the latest batches.

    Raises:
        BatchNotFoundError: no such batch's id begins so.
        InvalidRequestError: several do; names them.
    """
    return _with(sage.BatchNotFoundError, "batches", lambda: batch_ids(client), given, call)


def batch_ids(client: Client) -> tuple[str, ...]:
    """Return the ids of the tenant's latest batches."""
    with closing(client.list_batches(page_size=BATCHES_LOOKED_AT)) as listed:
        return tuple(each.batch_id for each in islice(listed, BATCHES_LOOKED_AT))


def instance_ids(client: Client) -> tuple[str, ...]:
    """Return the ids of all instances."""
    return tuple(each.instance_id for each in client.list_instances().instances)


def request_ids(client: Client) -> tuple[str, ...]:
    """Return the ids of the latest requests that can be listed: detached ones, and those decided about last."""
    found: dict[str, None] = {}
    try:
        with closing(client.list(page_size=DETACHED_LOOKED_AT)) as listed:
            found.update((each.request_id, None) for each in islice(listed, DETACHED_LOOKED_AT))
    except sage.SageError:
        pass  # a scheduler without a journal has none
    try:
        with closing(client.watch_fleet(recent_decisions=DECISIONS_LOOKED_AT)) as snapshots:
            found.update((each.request_id, None) for each in next(snapshots).decisions)
    except sage.SageError:
        pass  # callers that may not watch the fleet have the others
    return tuple(each for each in found if each)


def _with(
    not_found: type[sage.SageError], kinds: str, ids: Callable[[], Iterable[str]], given: str, call: Callable[[str], _T]
) -> _T:
    """Call with an id, or where that is ``not_found`` with the one of ``ids`` that begins so.

    Raises ``not_found`` if none does, InvalidRequestError if several do.
    """
    try:
        return call(given)
    except not_found:
        found = _only(kinds, given, ids())
        if found is None:
            raise
        return call(found)


def _only(kinds: str, given: str, ids: Iterable[str]) -> str | None:
    """Return the id that begins with what is given; None if none does.  Raises InvalidRequestError for several."""
    found = sorted(each for each in ids if given and each.startswith(given))
    if len(found) < 2:
        return found[0] if found else None
    more = f" and {len(found) - CANDIDATES_SHOWN} more" if len(found) > CANDIDATES_SHOWN else ""
    shown = ", ".join(found[:CANDIDATES_SHOWN])
    raise sage.InvalidRequestError(f"{given!r} is the beginning of {len(found)} {kinds}: {shown}{more}")

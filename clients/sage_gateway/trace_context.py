"""The trace that an HTTP caller's request belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from opentelemetry import context, propagate

from sage_gateway.http_call import HttpCall


@contextmanager
def trace_of(call: HttpCall) -> Iterator[None]:
    """Make the caller's span the current one while the block runs, so that the SDK passes it on."""
    if not call.trace:
        yield
        return
    token = context.attach(propagate.extract(call.trace))
    try:
        yield
    finally:
        context.detach(token)

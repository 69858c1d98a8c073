"""Checks a StepFrame and takes its columns out.  An executor is not trusted: columns may be of any length."""

from __future__ import annotations

from sage.controlplane.v1 import executor_pb2
from sage_wire.errors import ErrorReason
from scheduler_svc.control.attempts.output_columns import OutputColumns
from scheduler_svc.transport.errors import WireError

ENTRIES_LIMIT = 65_536
"""Entries of a frame's columns, and messages of each other kind in it: as many attempts as an executor may hold."""

TOKENS_LIMIT = 1_048_576
"""Tokens in the columns of one frame."""


def check_sizes(step: executor_pb2.StepFrame) -> None:
    """Raise WireError if a list of the frame has more entries than any executor sends."""
    for name in ("accepted", "rejected", "attempt_numbers", "pieces", "ended"):
        if len(getattr(step, name)) > ENTRIES_LIMIT:
            raise _refused(name, f"has {len(getattr(step, name))} entries; the limit is {ENTRIES_LIMIT}")
    if len(step.token_ids) > TOKENS_LIMIT:
        raise _refused("token_ids", f"has {len(step.token_ids)} entries; the limit is {TOKENS_LIMIT}")


def columns(step: executor_pb2.StepFrame) -> OutputColumns:
    """Return the frame's columns.  Raises WireError that names the column whose length does not agree."""
    entries = len(step.attempt_numbers)
    if len(step.first_indexes) != entries:
        raise _refused("first_indexes", f"has {len(step.first_indexes)} entries for {entries} attempts")
    for name in ("counts", "text_lengths"):
        given = len(getattr(step, name))
        if given and given != entries:
            raise _refused(name, f"has {given} entries for {entries} attempts")
    # Slices: a list of numbers is made at once, where iterating over the message's own container costs a call for each.
    found = OutputColumns(
        step.attempt_numbers[:],
        step.first_indexes[:],
        step.counts[:],
        step.text_lengths[:],
        step.token_ids[:],
        step.text,
    )
    tokens = sum(found.counts) if found.counts else entries
    if len(found.token_ids) != tokens:
        raise _refused("token_ids", f"has {len(found.token_ids)} entries; {entries} attempts have {tokens} tokens")
    if len(found.text) != sum(found.text_lengths):
        raise _refused(
            "text", f"has {len(found.text)} code points; text_lengths are {sum(found.text_lengths)} together"
        )
    return found


def _refused(column: str, why: str) -> WireError:
    return WireError(ErrorReason.INVALID_REGISTRATION, f"step.{column}: {why}")

"""Hands the contents of a session's frame to the calls that they are about."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import repeat

from sage.controlplane.v1 import inference_pb2
from sage_client._call import Call
from sage_client._errors import ProtocolError


def deliver_output(frame: inference_pb2.SessionFrame, calls: Mapping[int, Call]) -> None:
    """Hand the frame's output to its calls by handle; output of unknown handles, which were left, is dropped.

    Raises:
        ProtocolError: the columns do not fit together.
    """
    if frame.handles:
        _deliver_columns(frame, calls)
    for piece in frame.pieces:
        if (call := calls.get(piece.handle)) is None:
            continue
        if piece.HasField("tokens"):
            call.take_tokens(piece.tokens)
        if piece.HasField("choice_finished"):
            call.take_choice_finished(piece.choice_finished)


def _deliver_columns(frame: inference_pb2.SessionFrame, calls: Mapping[int, Call]) -> None:
    # Slices of repeated fields are lists, which are several times as fast to read.
    handles, token_ids, text = frame.handles[:], frame.token_ids[:], frame.text
    choices, counts, lengths = frame.choices[:], frame.counts[:], frame.text_lengths[:]
    _check(len(handles), choices, counts, lengths, len(token_ids), len(text))
    columns = zip(handles, choices or repeat(0), counts or repeat(1), lengths or repeat(0), strict=False)
    index = offset = 0
    for handle, choice, count, length in columns:
        next_index, next_offset = index + count, offset + length
        call = calls.get(handle)
        if call is not None:
            call.take_output(choice, token_ids[index:next_index], text[offset:next_offset])
        index, offset = next_index, next_offset


def _check(entries: int, choices: list[int], counts: list[int], lengths: list[int], tokens: int, points: int) -> None:
    for name, column in (("choices", choices), ("counts", counts), ("text_lengths", lengths)):
        if column and len(column) != entries:
            raise ProtocolError(f"frame.{name} has {len(column)} entries and frame.handles {entries}")
    if (counted := sum(counts) if counts else entries) != tokens:
        raise ProtocolError(f"frame.token_ids has {tokens} tokens and the entries {counted}")
    if (counted := sum(lengths)) != points:
        raise ProtocolError(f"frame.text has {points} code points and the entries {counted}")

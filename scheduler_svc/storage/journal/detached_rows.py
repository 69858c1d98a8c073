"""What rows of detached work have in common: whose they are, and what is known of the output."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from sqlalchemy import ColumnElement, and_, false, or_

from scheduler_svc.control.journal.detached import OutputFacts, OutputPiece
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.request import RequestKey


def name_columns(key: RequestKey) -> dict[str, str]:
    """Return the columns that say whose a row is."""
    return {"tenant": key.tenant, "request_id": key.request_id}


def key_of(row: Any) -> RequestKey:
    """Return whose a row is."""
    return RequestKey(tenant=row.tenant, request_id=row.request_id)


def named(columns: Any, keys: Iterable[RequestKey]) -> ColumnElement[bool]:
    """Return the condition that a row is of one of these requests; ``columns``: of the row's table.

    It names each tenant once: for a list of pairs SQLite reads the whole table.
    """
    ids = defaultdict[str, list[str]](list)
    for key in keys:
        ids[key.tenant].append(key.request_id)
    return or_(false(), *(and_(columns.tenant == tenant, columns.request_id.in_(of)) for tenant, of in ids.items()))


def fact_columns(facts: OutputFacts) -> dict[str, Any]:
    """Return the columns of what is known of an output besides its tokens."""
    identity = facts.identity
    return {
        "epoch": facts.epoch,
        "attempt_number": facts.attempt_number,
        "attempts": facts.attempts,
        "cost": facts.cost,
        "first_token_at": facts.first_token_at,
        "weights": None if identity is None else identity.weights,
        "dtype": None if identity is None else identity.dtype,
        "tokenizer_hash": None if identity is None else identity.tokenizer_hash,
        "adapter_weights": None if identity is None else identity.adapter_weights,
    }


def facts_of(row: Any) -> OutputFacts:
    """Return what a row's columns say of an output besides its tokens."""
    identity = None
    if row.weights is not None:
        identity = ModelIdentity(
            weights=row.weights,
            dtype=row.dtype,
            tokenizer_hash=row.tokenizer_hash,
            adapter_weights=row.adapter_weights,
        )
    return OutputFacts(
        epoch=row.epoch,
        attempt_number=row.attempt_number,
        attempts=row.attempts,
        cost=row.cost,
        first_token_at=row.first_token_at,
        identity=identity,
    )


def unwritten(piece: OutputPiece | None, tokens: int) -> OutputPiece | None:
    """Return what of a piece is not written down yet, of whose output ``tokens`` tokens are.

    Raises ValueError if tokens between them are missing.
    """
    if piece is None or piece.first_index == tokens:
        return piece
    known = tokens - piece.first_index
    if known < 0:
        raise ValueError(f"output from {piece.first_index} does not follow the {tokens} tokens that are written down")
    if known >= len(piece.token_ids):
        return None
    return OutputPiece(
        first_index=tokens,
        token_ids=piece.token_ids[known:],
        text_lengths=piece.text_lengths[known:],
        text=piece.text[sum(piece.text_lengths[:known]) :],
        logprobs=None if piece.logprobs is None else piece.logprobs[known:],
    )

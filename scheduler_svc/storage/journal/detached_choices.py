"""The further choices of detached requests in the journal: a row for each checkpoint of a choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, and_, bindparam, func, select

from scheduler_svc.control.journal.detached import (
    Checkpoint,
    DetachedEnd,
    OutputPiece,
    StoredChoice,
)
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.storage.journal import output_columns
from scheduler_svc.storage.journal.detached_rows import (
    fact_columns,
    facts_of,
    key_of,
    name_columns,
    named,
)
from scheduler_svc.storage.journal.tables.detached import DETACHED_CHOICES

CHOICES = DETACHED_CHOICES.c

_OF_REQUEST = and_(CHOICES.tenant == bindparam("of_tenant"), CHOICES.request_id == bindparam("of_id"))


@dataclass(frozen=True, kw_only=True, slots=True)
class EndOfAll:
    """When a request ended with all its choices, and until when it is kept, in seconds since 1970."""

    ended_at: float
    keep_until: float


def save(connection: Connection, checkpoints: Sequence[Checkpoint], written: Mapping[RequestKey, int]) -> None:
    """Write down what is new of further choices, whose requests are known and have not ended.

    ``written``: how many tokens of each choice are written down, as ``tokens`` returns it.
    """
    if rows := [_row(each, piece) for each in checkpoints for piece in _pieces(each, written.get(each.key, 0))]:
        connection.execute(DETACHED_CHOICES.insert(), rows)


def remove(connection: Connection, names: Sequence[dict[str, str]]) -> None:
    """Delete the further choices of requests; ``names``: values of ``of_tenant`` and ``of_id``."""
    connection.execute(DETACHED_CHOICES.delete().where(_OF_REQUEST), names)


def output_tokens(connection: Connection, keys: Iterable[RequestKey]) -> dict[RequestKey, int]:
    """Return how many output tokens the further choices of requests have, of those that have any."""
    counted = select(CHOICES.tenant, CHOICES.request_id, func.sum(CHOICES.tokens).label("tokens"))
    rows = connection.execute(counted.where(named(CHOICES, keys)).group_by(CHOICES.tenant, CHOICES.request_id))
    return {key_of(row): int(row.tokens) for row in rows}


def read(
    connection: Connection, requests: Mapping[RequestKey, EndOfAll | None]
) -> dict[RequestKey, dict[int, StoredChoice]]:
    """Return what is kept of the further choices of requests, by request and index.

    ``requests``: how each request ended; None: it has not.
    """
    query = DETACHED_CHOICES.select().where(named(CHOICES, requests)).order_by(CHOICES.choice, CHOICES.first_index)
    rows: dict[RequestKey, dict[int, list[Any]]] = {}
    for row in connection.execute(query):
        rows.setdefault(key_of(row), {}).setdefault(row.choice, []).append(row)
    return {
        key: {choice: _stored(of_choice, requests[key]) for choice, of_choice in found.items()}
        for key, found in rows.items()
    }


def tokens(connection: Connection, checkpoints: Sequence[Checkpoint]) -> dict[RequestKey, int]:
    """Return how many tokens of further choices are written down, of those of which there is a row."""
    if not checkpoints:
        return {}
    counted = select(CHOICES.tenant, CHOICES.request_id, CHOICES.choice, func.sum(CHOICES.tokens).label("tokens"))
    keys = {each.key._replace(choice=0) for each in checkpoints}
    rows = connection.execute(
        counted.where(named(CHOICES, keys)).group_by(CHOICES.tenant, CHOICES.request_id, CHOICES.choice)
    )
    return {key_of(row)._replace(choice=row.choice): int(row.tokens) for row in rows}


def _pieces(checkpoint: Checkpoint, tokens: int) -> Iterator[OutputPiece]:
    """Yield what of a checkpoint makes a row: a piece, or one without tokens that the end goes with."""
    if checkpoint.piece is not None:
        yield checkpoint.piece
    elif checkpoint.end is not None:
        yield OutputPiece(first_index=tokens, token_ids=(), text_lengths=(), text="", logprobs=None)


def _row(checkpoint: Checkpoint, piece: OutputPiece) -> dict[str, Any]:
    end = checkpoint.end
    return {
        **name_columns(checkpoint.key),
        "choice": checkpoint.key.choice,
        "tokens": len(piece.token_ids),
        **output_columns.columns(piece),
        **fact_columns(checkpoint.facts),
        "state": None if end is None else end.state.value,
        "outcome": None if end is None else end.outcome,
        "tail": None if end is None else output_columns.to_bytes(end.tail),
    }


def _stored(rows: Sequence[Any], end: EndOfAll | None) -> StoredChoice:
    last = rows[-1]
    return StoredChoice(
        facts=facts_of(last),
        pieces=[output_columns.piece(row) for row in rows if row.tokens],
        end=None if end is None or last.state is None else _end(last, end),
    )


def _end(row: Any, end: EndOfAll) -> DetachedEnd:
    return DetachedEnd(
        state=RequestState(row.state),
        outcome=bytes(row.outcome),
        tail=output_columns.to_text(row.tail),
        ended_at=end.ended_at,
        keep_until=end.keep_until,
    )

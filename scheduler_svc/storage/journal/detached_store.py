"""Detached work in the journal."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, and_, bindparam, case, false, or_, select, tuple_

from scheduler_svc.control.journal.detached import (
    Checkpoint,
    DetachedEnd,
    DetachedRequest,
    DetachedSummary,
    ListedRequest,
    OutputFacts,
    OutputPiece,
    Page,
    StoredRequest,
)
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.storage.journal import output_columns
from scheduler_svc.storage.journal.journal import Journal
from scheduler_svc.storage.journal.tables.detached import DETACHED_CONTENTS, DETACHED_OUTPUT, DETACHED_REQUESTS

REQUESTS, CONTENTS, OUTPUT = DETACHED_REQUESTS.c, DETACHED_CONTENTS.c, DETACHED_OUTPUT.c

PAGE_REQUESTS = 256
"""Unfinished requests that are read at once."""

_OF_REQUEST = and_(REQUESTS.tenant == bindparam("of_tenant"), REQUESTS.request_id == bindparam("of_id"))
_OF_CONTENT = and_(CONTENTS.tenant == bindparam("of_tenant"), CONTENTS.request_id == bindparam("of_id"))
_OF_OUTPUT = and_(OUTPUT.tenant == bindparam("of_tenant"), OUTPUT.request_id == bindparam("of_id"))
_SUMMARY = (
    REQUESTS.tenant,
    REQUESTS.request_id,
    REQUESTS.model,
    REQUESTS.accepted_at,
    REQUESTS.output_tokens,
    REQUESTS.size_bytes,
    REQUESTS.state,
    REQUESTS.ended_at,
    REQUESTS.keep_until,
)
_FAILURE = case((REQUESTS.state != RequestState.FINISHED.value, REQUESTS.outcome)).label("failure")
_WHOLE = select(DETACHED_REQUESTS, CONTENTS.content).join_from(
    DETACHED_REQUESTS,
    DETACHED_CONTENTS,
    and_(CONTENTS.tenant == REQUESTS.tenant, CONTENTS.request_id == REQUESTS.request_id),
)
_ADD_REQUEST, _ADD_CONTENT = DETACHED_REQUESTS.insert(), DETACHED_CONTENTS.insert()
_NO_OUTPUT = {"output_tokens": 0, "epoch": 0, "attempt_number": 0, "attempts": 0, "cost": 0.0}
_RUNNING = frozenset({RequestState.QUEUED, RequestState.RUNNING})


class JournalDetachedStore:
    """Implements ``control.journal.detached.DetachedStore``.

    Every write may be repeated: one that was reported as failed may be on the disk all the same.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def add(self, request: DetachedRequest, whole: Checkpoint | None = None) -> None:
        """Write down a request that is accepted; ``whole``: of one that has ended, its output and its end.

        Raises JournalUnavailable.
        """
        if whole is None:
            await self._journal.writer.write_item(_add, request, request.size_bytes)
            return

        def work(connection: Connection) -> None:
            _add(connection, [request])
            _save(connection, [whole])

        await self._journal.writer.write(work, request.size_bytes + whole.size_bytes)

    async def remove(self, keys: Sequence[RequestKey]) -> None:
        """Delete requests with their output.  Raises JournalUnavailable."""
        await self._journal.writer.write(lambda connection: _remove(connection, keys), frees=True)

    async def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Write down what is new; of a request that is not known or has an end, nothing.  Raises JournalUnavailable."""
        size = sum(each.size_bytes for each in checkpoints)
        await self._journal.writer.write(lambda connection: _save(connection, checkpoints), size)

    async def summaries(self) -> Sequence[DetachedSummary]:
        """Return all requests.  Raises JournalUnavailable."""
        return await self._journal.database.read(
            lambda connection: [_summary(row) for row in connection.execute(select(*_SUMMARY))]
        )

    async def unfinished(self) -> Sequence[StoredRequest]:
        """Return everything that is kept of the requests that have not ended, the oldest first.

        Raises JournalUnavailable.
        """
        found: list[StoredRequest] = []
        while True:
            last = found[-1].request if found else None
            page = await self._journal.database.read(partial(_unfinished, after=last))
            found += page
            if len(page) < PAGE_REQUESTS:
                return found

    async def find(self, key: RequestKey) -> StoredRequest | None:
        """Return one request; None if it is not known.  Raises JournalUnavailable."""
        return await self._journal.database.read(lambda connection: _find(connection, key))

    async def page(self, page: Page) -> Sequence[ListedRequest]:
        """Return some requests of a tenant, the latest first.  Raises JournalUnavailable."""
        wanted = _page(page)
        return await self._journal.database.read(
            lambda connection: [
                ListedRequest(_summary(row), bytes(row.about), bytes(row.failure or b""))
                for row in connection.execute(wanted)
            ]
        )


# --- writes, in the writer's thread -------------------------------------------------------------------


def _add(connection: Connection, requests: Sequence[DetachedRequest]) -> None:
    """Write requests down, in the place of those that have their names."""
    found = {each.key: each for each in requests}  # the last of a name
    known = connection.execute(select(REQUESTS.tenant, REQUESTS.request_id).where(_named(REQUESTS, found)))
    _remove(connection, [_key(row) for row in known.all()])
    connection.execute(_ADD_REQUEST, [_name_columns(each.key) | _row(each) for each in found.values()])
    connection.execute(_ADD_CONTENT, [_name_columns(each.key) | {"content": each.content} for each in found.values()])


def _row(request: DetachedRequest) -> dict[str, Any]:
    return {
        "digest": request.digest,
        "model": request.model,
        "about": request.about,
        "accepted_at": request.accepted_at,
        "deadline_at": request.deadline_at,
        "keep_s": request.keep_s,
        "size_bytes": request.size_bytes,
        **_NO_OUTPUT,
    }


def _remove(connection: Connection, keys: Sequence[RequestKey]) -> None:
    names = [_name(key) for key in keys]
    if names:
        connection.execute(DETACHED_OUTPUT.delete().where(_OF_OUTPUT), names)
        connection.execute(DETACHED_CONTENTS.delete().where(_OF_CONTENT), names)
        connection.execute(DETACHED_REQUESTS.delete().where(_OF_REQUEST), names)


def _save(connection: Connection, checkpoints: Sequence[Checkpoint]) -> None:
    open_requests = _open(connection, [each.key for each in checkpoints])
    pieces: list[dict[str, Any]] = []
    changes: dict[bool, list[dict[str, Any]]] = {False: [], True: []}  # by whether the request ends
    for each in checkpoints:
        row = open_requests.get(each.key)
        if row is None:
            continue
        tokens, piece = row.output_tokens, _after(each.piece, row.output_tokens)
        if piece is not None:
            pieces.append({"tenant": row.tenant, "request_id": row.request_id, **output_columns.columns(piece)})
            tokens += len(piece.token_ids)
        size = row.size_bytes + each.size_bytes
        changes[each.end is not None].append(_change(each, tokens, size))
    if pieces:
        connection.execute(DETACHED_OUTPUT.insert(), pieces)
    for of_one_kind in changes.values():
        if of_one_kind:
            connection.execute(DETACHED_REQUESTS.update().where(_OF_REQUEST), of_one_kind)


def _open(connection: Connection, keys: Sequence[RequestKey]) -> dict[RequestKey, Any]:
    """Return those of the requests that are known and have not ended."""
    columns = (REQUESTS.tenant, REQUESTS.request_id, REQUESTS.output_tokens, REQUESTS.size_bytes)
    rows = connection.execute(select(*columns).where(_named(REQUESTS, keys), REQUESTS.state.is_(None)))
    return {_key(row): row for row in rows}


def _after(piece: OutputPiece | None, tokens: int) -> OutputPiece | None:
    """Return what of a piece is not written down yet, of whose request ``tokens`` tokens are.

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


def _change(checkpoint: Checkpoint, tokens: int, size_bytes: int) -> dict[str, Any]:
    facts, end = checkpoint.facts, checkpoint.end
    identity = facts.identity
    change: dict[str, Any] = {
        **_name(checkpoint.key),
        "output_tokens": tokens,
        "size_bytes": size_bytes,
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
    if end is not None:
        change |= {
            "state": end.state.value,
            "outcome": end.outcome,
            "tail": output_columns.to_bytes(end.tail),
            "ended_at": end.ended_at,
            "keep_until": end.keep_until,
        }
    return change


def _name(key: RequestKey) -> dict[str, str]:
    return {"of_tenant": key.tenant, "of_id": key.request_id}


def _name_columns(key: RequestKey) -> dict[str, str]:
    return {"tenant": key.tenant, "request_id": key.request_id}


def _named(columns: Any, keys: Iterable[RequestKey]) -> ColumnElement[bool]:
    """Return the condition that a row is of one of these requests; ``columns``: of the row's table.

    It names each tenant once: for a list of pairs SQLite reads the whole table.
    """
    ids = defaultdict[str, list[str]](list)
    for key in keys:
        ids[key.tenant].append(key.request_id)
    return or_(false(), *(and_(columns.tenant == tenant, columns.request_id.in_(of)) for tenant, of in ids.items()))


# --- reads, in threads --------------------------------------------------------------------------------


def _find(connection: Connection, key: RequestKey) -> StoredRequest | None:
    row = connection.execute(_WHOLE.where(_OF_REQUEST), _name(key)).one_or_none()
    if row is None:
        return None
    pieces = connection.execute(DETACHED_OUTPUT.select().where(_OF_OUTPUT).order_by(OUTPUT.first_index), _name(key))
    return _stored(row, [output_columns.piece(each) for each in pieces])


def _unfinished(connection: Connection, after: DetachedRequest | None) -> list[StoredRequest]:
    """Return the oldest requests that have not ended, or those after one of them; at most PAGE_REQUESTS."""
    order = (REQUESTS.accepted_at, REQUESTS.tenant, REQUESTS.request_id)
    wanted = _WHOLE.where(REQUESTS.state.is_(None)).order_by(*order).limit(PAGE_REQUESTS)
    if after is not None:
        wanted = wanted.where(tuple_(*order) > (after.accepted_at, after.key.tenant, after.key.request_id))
    rows = connection.execute(wanted).all()
    pieces: dict[RequestKey, list[OutputPiece]] = {}
    of_them = _named(OUTPUT, map(_key, rows))
    for row in connection.execute(DETACHED_OUTPUT.select().where(of_them).order_by(OUTPUT.first_index)):
        pieces.setdefault(_key(row), []).append(output_columns.piece(row))
    return [_stored(row, pieces.get(_key(row), ())) for row in rows]


def _page(page: Page) -> Select[Any]:
    wanted = select(*_SUMMARY, REQUESTS.about, _FAILURE).where(REQUESTS.tenant == page.tenant)
    if page.model:
        wanted = wanted.where(REQUESTS.model == page.model)
    if page.states:
        wanted = wanted.where(_in_states(page.states))
    if page.before is not None:
        at, request_id = page.before
        earlier = or_(REQUESTS.accepted_at < at, and_(REQUESTS.accepted_at == at, REQUESTS.request_id < request_id))
        wanted = wanted.where(earlier)
    return wanted.order_by(REQUESTS.accepted_at.desc(), REQUESTS.request_id.desc()).limit(page.limit)


def _in_states(states: Iterable[RequestState]) -> Any:
    ended = [state.value for state in states if state.ended]
    if _RUNNING & set(states):
        return or_(REQUESTS.state.is_(None), REQUESTS.state.in_(ended))
    return REQUESTS.state.in_(ended)


def _key(row: Any) -> RequestKey:
    return RequestKey(tenant=row.tenant, request_id=row.request_id)


def _summary(row: Any) -> DetachedSummary:
    return DetachedSummary(
        key=_key(row),
        model=row.model,
        accepted_at=row.accepted_at,
        output_tokens=row.output_tokens,
        size_bytes=row.size_bytes,
        state=None if row.state is None else RequestState(row.state),
        ended_at=row.ended_at,
        keep_until=row.keep_until,
    )


def _stored(row: Any, pieces: Sequence[OutputPiece]) -> StoredRequest:
    request = DetachedRequest(
        key=_key(row),
        digest=bytes(row.digest),
        model=row.model,
        content=bytes(row.content),
        about=bytes(row.about),
        accepted_at=row.accepted_at,
        deadline_at=row.deadline_at,
        keep_s=row.keep_s,
    )
    return StoredRequest(request=request, facts=_facts(row), pieces=pieces, end=_end(row))


def _facts(row: Any) -> OutputFacts:
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


def _end(row: Any) -> DetachedEnd | None:
    if row.state is None:
        return None
    return DetachedEnd(
        state=RequestState(row.state),
        outcome=bytes(row.outcome),
        tail=output_columns.to_text(row.tail),
        ended_at=row.ended_at,
        keep_until=row.keep_until,
    )

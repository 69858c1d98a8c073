"""Detached work in the journal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sqlalchemy import Connection, Select, and_, bindparam, case, or_, select, tuple_

from scheduler_svc.control.journal.detached import (
    Checkpoint,
    DetachedEnd,
    DetachedRequest,
    DetachedSummary,
    ListedRequest,
    OutputPiece,
    Page,
    StoredChoice,
    StoredRequest,
)
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.storage.journal import detached_choices, output_columns
from scheduler_svc.storage.journal.detached_choices import EndOfAll
from scheduler_svc.storage.journal.detached_rows import fact_columns, facts_of, key_of, name_columns, named, unwritten
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
_SET_SIZE = DETACHED_REQUESTS.update().where(_OF_REQUEST)
_NO_OUTPUT = {"output_tokens": 0, "epoch": 0, "attempt_number": 0, "attempts": 0, "cost": 0.0}
_RUNNING = frozenset({RequestState.QUEUED, RequestState.RUNNING})


class JournalDetachedStore:
    """Implements ``control.journal.detached.DetachedStore``.

    Every write may be repeated: one that was reported as failed may be on the disk all the same.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal

    async def add(self, request: DetachedRequest, whole: Sequence[Checkpoint] = ()) -> None:
        """Write down a request that is accepted; ``whole``: of one that has ended, its choices' output and ends.

        Raises JournalUnavailable.
        """
        if not whole:
            await self._journal.writer.write_item(_add, request, request.size_bytes)
            return

        def work(connection: Connection) -> None:
            _add(connection, [request])
            _save(connection, whole)

        size = request.size_bytes + sum(each.size_bytes for each in whole)
        await self._journal.writer.write(work, size)

    async def remove(self, keys: Sequence[RequestKey]) -> None:
        """Delete requests with their output; ``keys``: of choice 0.  Raises JournalUnavailable."""
        await self._journal.writer.write(lambda connection: _remove(connection, keys), frees=True)

    async def save(self, checkpoints: Sequence[Checkpoint]) -> None:
        """Write down what is new, all or nothing; of a request that is not known or has an end, nothing.

        Raises JournalUnavailable.
        """
        size = sum(each.size_bytes for each in checkpoints)
        await self._journal.writer.write(lambda connection: _save(connection, checkpoints), size)

    async def summaries(self) -> Sequence[DetachedSummary]:
        """Return all requests, without the tokens of further choices.  Raises JournalUnavailable."""
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
        return await self._journal.database.read(lambda connection: _listed(connection, wanted))


# --- writes, in the writer's thread -------------------------------------------------------------------


def _add(connection: Connection, requests: Sequence[DetachedRequest]) -> None:
    """Write requests down, in the place of those that have their names."""
    found = {each.key: each for each in requests}  # the last of a name
    known = connection.execute(select(REQUESTS.tenant, REQUESTS.request_id).where(named(REQUESTS, found)))
    _remove(connection, [key_of(row) for row in known.all()])
    connection.execute(_ADD_REQUEST, [name_columns(each.key) | _row(each) for each in found.values()])
    connection.execute(_ADD_CONTENT, [name_columns(each.key) | {"content": each.content} for each in found.values()])


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
        detached_choices.remove(connection, names)


def _save(connection: Connection, checkpoints: Sequence[Checkpoint]) -> None:
    """Write down what is new of the requests that are known and have not ended."""
    keys = {each.key._replace(choice=0) for each in checkpoints}
    open_requests = _open(connection, keys)
    known = [each for each in checkpoints if each.key._replace(choice=0) in open_requests]
    others = [each for each in known if each.key.choice]
    tokens = {key: row.output_tokens for key, row in open_requests.items()}
    tokens |= detached_choices.tokens(connection, others)
    new = [_unwritten(each, tokens.get(each.key, 0)) for each in known]
    detached_choices.save(connection, [each for each in new if each.key.choice], tokens)
    sizes = {key: row.size_bytes for key, row in open_requests.items()}
    for each in new:
        sizes[each.key._replace(choice=0)] += each.size_bytes
    first = [each for each in new if not each.key.choice]
    _save_first(connection, first, tokens, sizes)
    of_others = sizes.keys() - {each.key for each in first}
    if of_others:
        connection.execute(_SET_SIZE, [_name(key) | {"size_bytes": sizes[key]} for key in of_others])


def _unwritten(checkpoint: Checkpoint, tokens: int) -> Checkpoint:
    """Return what of a checkpoint is not written down yet, of whose output ``tokens`` tokens are."""
    piece = unwritten(checkpoint.piece, tokens)
    return checkpoint if piece is checkpoint.piece else replace(checkpoint, piece=piece)


def _save_first(
    connection: Connection,
    checkpoints: Sequence[Checkpoint],
    tokens: Mapping[RequestKey, int],
    sizes: Mapping[RequestKey, int],
) -> None:
    """Write down what is new of choice 0 of requests.

    ``tokens``: what is written down of each output; ``sizes``: what they count from now on, with all choices.
    """
    pieces: list[dict[str, Any]] = []
    changes: dict[bool, list[dict[str, Any]]] = {False: [], True: []}  # by whether the request ends
    for each in checkpoints:
        added = 0
        if each.piece is not None:
            pieces.append(name_columns(each.key) | output_columns.columns(each.piece))
            added = len(each.piece.token_ids)
        changes[each.end is not None].append(_change(each, tokens[each.key] + added, sizes[each.key]))
    if pieces:
        connection.execute(DETACHED_OUTPUT.insert(), pieces)
    for of_one_kind in changes.values():
        if of_one_kind:
            connection.execute(DETACHED_REQUESTS.update().where(_OF_REQUEST), of_one_kind)


def _open(connection: Connection, keys: Iterable[RequestKey]) -> dict[RequestKey, Any]:
    """Return those of the requests that are known and have not ended."""
    columns = (REQUESTS.tenant, REQUESTS.request_id, REQUESTS.output_tokens, REQUESTS.size_bytes)
    rows = connection.execute(select(*columns).where(named(REQUESTS, keys), REQUESTS.state.is_(None)))
    return {key_of(row): row for row in rows}


def _change(checkpoint: Checkpoint, tokens: int, size_bytes: int) -> dict[str, Any]:
    end = checkpoint.end
    change: dict[str, Any] = {
        **_name(checkpoint.key),
        "output_tokens": tokens,
        "size_bytes": size_bytes,
        **fact_columns(checkpoint.facts),
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


# --- reads, in threads --------------------------------------------------------------------------------


def _find(connection: Connection, key: RequestKey) -> StoredRequest | None:
    row = connection.execute(_WHOLE.where(_OF_REQUEST), _name(key)).one_or_none()
    if row is None:
        return None
    pieces = connection.execute(DETACHED_OUTPUT.select().where(_OF_OUTPUT).order_by(OUTPUT.first_index), _name(key))
    end = None if row.state is None else EndOfAll(ended_at=row.ended_at, keep_until=row.keep_until)
    others = detached_choices.read(connection, {key: end})
    return _stored(row, [output_columns.piece(each) for each in pieces], others.get(key, {}))


def _unfinished(connection: Connection, after: DetachedRequest | None) -> list[StoredRequest]:
    """Return the oldest requests that have not ended, or those after one of them; at most PAGE_REQUESTS."""
    order = (REQUESTS.accepted_at, REQUESTS.tenant, REQUESTS.request_id)
    wanted = _WHOLE.where(REQUESTS.state.is_(None)).order_by(*order).limit(PAGE_REQUESTS)
    if after is not None:
        wanted = wanted.where(tuple_(*order) > (after.accepted_at, after.key.tenant, after.key.request_id))
    rows = connection.execute(wanted).all()
    pieces: dict[RequestKey, list[OutputPiece]] = {}
    of_them = named(OUTPUT, map(key_of, rows))
    for row in connection.execute(DETACHED_OUTPUT.select().where(of_them).order_by(OUTPUT.first_index)):
        pieces.setdefault(key_of(row), []).append(output_columns.piece(row))
    others = detached_choices.read(connection, dict.fromkeys(map(key_of, rows)))
    return [_stored(row, pieces.get(key_of(row), ()), others.get(key_of(row), {})) for row in rows]


def _listed(connection: Connection, wanted: Select[Any]) -> list[ListedRequest]:
    rows = connection.execute(wanted).all()
    others = detached_choices.output_tokens(connection, map(key_of, rows))
    return [
        ListedRequest(_summary(row, others.get(key_of(row), 0)), bytes(row.about), bytes(row.failure or b""))
        for row in rows
    ]


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


def _summary(row: Any, tokens_of_others: int = 0) -> DetachedSummary:
    return DetachedSummary(
        key=key_of(row),
        model=row.model,
        accepted_at=row.accepted_at,
        output_tokens=row.output_tokens + tokens_of_others,
        size_bytes=row.size_bytes,
        state=None if row.state is None else RequestState(row.state),
        ended_at=row.ended_at,
        keep_until=row.keep_until,
    )


def _stored(row: Any, pieces: Sequence[OutputPiece], others: Mapping[int, StoredChoice]) -> StoredRequest:
    request = DetachedRequest(
        key=key_of(row),
        digest=bytes(row.digest),
        model=row.model,
        content=bytes(row.content),
        about=bytes(row.about),
        accepted_at=row.accepted_at,
        deadline_at=row.deadline_at,
        keep_s=row.keep_s,
    )
    return StoredRequest(request=request, facts=facts_of(row), pieces=pieces, end=_end(row), others=others)


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

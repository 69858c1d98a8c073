"""All stores of detached work, with one suite: in memory, in SQLite, in PostgreSQL."""

from __future__ import annotations

import json
from array import array
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.dialects import sqlite

from scheduler_svc.control.journal.detached import (
    Checkpoint,
    DetachedEnd,
    DetachedRequest,
    DetachedStore,
    OutputFacts,
    OutputPiece,
    Page,
)
from scheduler_svc.domain.engine_facts import ModelIdentity
from scheduler_svc.domain.request import RequestKey, RequestState
from scheduler_svc.storage.journal.database import Database
from scheduler_svc.storage.journal.detached_rows import named
from scheduler_svc.storage.journal.detached_store import OUTPUT, REQUESTS, JournalDetachedStore
from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.maintenance import Maintenance
from scheduler_svc.storage.journal.schema import prepare
from scheduler_svc.storage.journal.tables.detached import DETACHED_OUTPUT, DETACHED_REQUESTS
from scheduler_svc.storage.journal.tables.metadata import METADATA
from tests.support.memory_detached_store import MemoryDetachedStore
from tests.support.postgres import running_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as postgres:
        yield postgres.url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[DetachedStore]:
    if request.param == "memory":
        yield MemoryDetachedStore()
        return
    url = f"sqlite:///{tmp_path}/journal.db" if request.param == "sqlite" else request.getfixturevalue("server")
    journal = Journal(JournalSettings(url=url))
    journal.start()
    await journal.writer.write(lambda connection: [t.delete() for t in METADATA.tables.values()] and None)
    for key in [summary.key for summary in await JournalDetachedStore(journal).summaries()]:
        await JournalDetachedStore(journal).remove([key])
    yield JournalDetachedStore(journal)
    await journal.close()


def request(request_id: str = "a", *, tenant: str = "t", at: float = 1_000.0, model: str = "m") -> DetachedRequest:
    return DetachedRequest(
        key=RequestKey(tenant=tenant, request_id=request_id),
        digest=b"digest\0",
        model=model,
        content=b"\0content",
        about=b"about\xff",
        accepted_at=at,
        deadline_at=at + 60.5,
        keep_s=30.0,
    )


def piece(start: int, count: int, *, logprobs: bool = False) -> OutputPiece:
    texts = ["é\0", "", "\udfffx"] * count
    return OutputPiece(
        first_index=start,
        token_ids=array("I", range(start, start + count)),
        text_lengths=[len(text) for text in texts[:count]],
        text="".join(texts[:count]),
        logprobs=[b"p" * (start + i) for i in range(count)] if logprobs else None,
    )


def checkpoint(
    made: OutputPiece | None, request_id: str = "a", end: DetachedEnd | None = None, *, choice: int = 0
) -> Checkpoint:
    facts = OutputFacts(
        epoch=2**62,
        attempt_number=7,
        attempts=3,
        cost=0.25,
        first_token_at=1_001.5,
        identity=ModelIdentity(weights="w", dtype="d", tokenizer_hash="h"),
    )
    key = RequestKey(tenant="t", request_id=request_id, choice=choice)
    return Checkpoint(key=key, facts=facts, piece=made, end=end)


END = DetachedEnd(
    state=RequestState.FINISHED, outcome=b"\0outcome", tail="\udfff end", ended_at=1_050.0, keep_until=1_080.0
)


async def test_a_request_comes_back_as_it_was_written_down(store: DetachedStore) -> None:
    await store.add(request())
    found = await store.find(request().key)
    assert found is not None
    assert (found.request, found.facts, list(found.pieces), found.end) == (request(), OutputFacts(), [], None)
    assert await store.find(RequestKey(tenant="other", request_id="a")) is None


@pytest.mark.parametrize("logprobs", [False, True])
async def test_output_comes_back_in_order(store: DetachedStore, logprobs: bool) -> None:
    await store.add(request())
    pieces = [piece(0, 3, logprobs=logprobs), piece(3, 1, logprobs=logprobs), piece(4, 2, logprobs=logprobs)]
    for each in pieces:
        await store.save([checkpoint(each)])
    found = await store.find(request().key)
    assert found is not None
    assert [list(each.token_ids) for each in found.pieces] == [[0, 1, 2], [3], [4, 5]]
    assert [each.text for each in found.pieces] == [each.text for each in pieces]
    assert [list(each.text_lengths) for each in found.pieces] == [each.text_lengths for each in pieces]
    assert [each.logprobs for each in found.pieces] == [each.logprobs for each in pieces]
    assert found.facts == checkpoint(None).facts


async def test_the_first_end_counts(store: DetachedStore) -> None:
    await store.add(request())
    await store.save([checkpoint(piece(0, 2), end=END)])
    await store.save([checkpoint(piece(2, 2), end=replace(END, state=RequestState.FAILED))])
    found = await store.find(request().key)
    assert found is not None
    assert found.end == END
    assert [list(each.token_ids) for each in found.pieces] == [[0, 1]]
    assert await store.unfinished() == []


async def test_one_that_has_ended_is_written_with_its_result(store: DetachedStore) -> None:
    whole = checkpoint(piece(0, 3), end=END)
    await store.add(request(), [whole])
    found = await store.find(request().key)
    assert found is not None
    assert (found.end, [list(each.token_ids) for each in found.pieces]) == (END, [[0, 1, 2]])
    assert [each.size_bytes for each in await store.summaries()] == [request().size_bytes + whole.size_bytes]
    assert await store.unfinished() == []


async def test_what_is_not_known_is_not_written(store: DetachedStore) -> None:
    await store.add(request("a"))
    await store.save([checkpoint(piece(0, 1), "gone"), checkpoint(piece(0, 1), "a")])
    assert await store.find(RequestKey(tenant="t", request_id="gone")) is None
    assert [summary.output_tokens for summary in await store.summaries()] == [1]


async def test_unfinished_requests_come_with_their_output_the_oldest_first(store: DetachedStore) -> None:
    await store.add(request("late", at=2_000.0))
    await store.add(request("early"))
    await store.add(request("ended"))
    await store.save([checkpoint(piece(0, 2), "late"), checkpoint(None, "ended", END)])
    found = await store.unfinished()
    assert sorted((each.request.key.request_id, sum(len(p.token_ids) for p in each.pieces)) for each in found) == [
        ("early", 0),
        ("late", 2),
    ]


async def test_unfinished_requests_come_from_every_page(store: DetachedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler_svc.storage.journal.detached_store.PAGE_REQUESTS", 3)
    for number in range(7):
        await store.add(request(f"r{number}", at=1_000.0 + number // 4))
    await store.save([checkpoint(piece(0, 2), "r3"), checkpoint(piece(0, 2), "r5", END)])
    found = await store.unfinished()
    assert [each.request.key.request_id for each in found] == ["r0", "r1", "r2", "r3", "r4", "r6"]
    assert [len(each.pieces) for each in found] == [0, 0, 0, 1, 0, 0]


async def test_what_is_removed_is_gone_with_its_output(store: DetachedStore) -> None:
    await store.add(request("a"))
    await store.add(request("b"))
    await store.save([checkpoint(piece(0, 2), "a")])
    await store.remove([request("a").key])
    assert [summary.key.request_id for summary in await store.summaries()] == ["b"]
    await store.add(request("a"))
    found = await store.find(request("a").key)
    assert found is not None
    assert list(found.pieces) == []


async def test_sizes_are_of_everything_that_is_kept(store: DetachedStore) -> None:
    await store.add(request())
    made = checkpoint(piece(0, 5, logprobs=True), end=END)
    await store.save([made])
    (summary,) = await store.summaries()
    assert summary.size_bytes == request().size_bytes + made.size_bytes
    assert (summary.state, summary.ended_at, summary.keep_until) == (RequestState.FINISHED, 1_050.0, 1_080.0)


async def test_pages_are_of_one_tenant_the_latest_first(store: DetachedStore) -> None:
    for index, request_id in enumerate(("a", "b", "c", "d")):
        await store.add(request(request_id, at=1_000.0 + index // 2, model="n" if request_id == "b" else "m"))
    await store.add(request("x", tenant="other"))
    await store.save([checkpoint(None, "c", END)])

    async def ids(page: Page) -> list[str]:
        return [each.summary.key.request_id for each in await store.page(page) if each.about == b"about\xff"]

    assert await ids(Page(tenant="t", limit=10)) == ["d", "c", "b", "a"]
    assert await ids(Page(tenant="t", limit=2)) == ["d", "c"]
    assert await ids(Page(tenant="t", limit=10, before=(1_001.0, "d"))) == ["c", "b", "a"]
    assert await ids(Page(tenant="t", limit=10, before=(1_000.0, "b"))) == ["a"]
    assert await ids(Page(tenant="t", limit=10, model="n")) == ["b"]
    assert await ids(Page(tenant="t", limit=10, states=[RequestState.FINISHED])) == ["c"]
    assert await ids(Page(tenant="t", limit=10, states=[RequestState.RUNNING])) == ["d", "b", "a"]
    assert await ids(Page(tenant="t", limit=10, states=[RequestState.QUEUED, RequestState.FINISHED])) == list("dcba")


async def test_pages_say_why_requests_did_not_finish(store: DetachedStore) -> None:
    for request_id in ("runs", "finished", "failed", "expired"):
        await store.add(request(request_id))
    failed, expired = (replace(END, state=state) for state in (RequestState.FAILED, RequestState.EXPIRED))
    ends = {"finished": END, "failed": failed, "expired": expired}
    await store.save([checkpoint(None, request_id, end) for request_id, end in ends.items()])
    found = {each.summary.key.request_id: each.outcome for each in await store.page(Page(tenant="t", limit=10))}
    assert found == {"runs": b"", "finished": b"", "failed": END.outcome, "expired": END.outcome}


def test_requests_are_found_by_their_index(tmp_path: Path) -> None:
    """A list of pairs would have SQLite read the whole table for each checkpoint."""
    database = Database(f"sqlite:///{tmp_path}/journal.db")
    prepare(database, "fleet")
    wanted = [RequestKey(tenant=tenant, request_id=f"{number}") for tenant in ("t", "u") for number in range(3)]
    for columns, table in ((REQUESTS, DETACHED_REQUESTS), (OUTPUT, DETACHED_OUTPUT)):
        query = select(table.c.tenant).where(named(columns, wanted))
        literal = query.compile(dialect=sqlite.dialect(), compile_kwargs={"literal_binds": True})
        with database.writing() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {literal}").all()
        assert not [row.detail for row in plan if row.detail.startswith("SCAN")], table.name
    database.close()


class TestSeveralChoices:
    """Further choices have output and ends of their own, and go with their request."""

    async def test_each_comes_back_with_its_output(self, store: DetachedStore) -> None:
        await store.add(request("a"))
        await store.add(request("b"))
        await store.save([checkpoint(piece(0, 2)), checkpoint(piece(0, 3, logprobs=True), choice=2)])
        await store.save([checkpoint(piece(3, 1, logprobs=True), choice=2), checkpoint(piece(0, 1), "b", choice=1)])
        for found in (await store.find(request().key), (await store.unfinished())[0]):
            assert found is not None
            assert [found.choice(index).tokens for index in range(4)] == [2, 0, 4, 0]
            assert [each.first_index for each in found.choice(2).pieces] == [0, 3]
            first, made = found.choice(2).pieces[0], piece(0, 3, logprobs=True)
            assert (first.text, list(first.token_ids), first.logprobs) == (made.text, [0, 1, 2], made.logprobs)
            assert (found.choice(2).facts, found.choice(1).facts) == (checkpoint(None).facts, OutputFacts())
            assert [found.choice(index).end for index in range(3)] == [None, None, None]

    async def test_all_ends_are_written_at_once_and_count_first(self, store: DetachedStore) -> None:
        await store.add(request())
        cancelled = replace(END, state=RequestState.CANCELLED, outcome=b"why", tail="")
        await store.save([checkpoint(piece(0, 2), end=END), checkpoint(piece(0, 3), choice=1, end=cancelled)])
        await store.save([checkpoint(piece(3, 1), choice=1, end=END)])
        found = await store.find(request().key)
        assert found is not None
        assert (found.choice(0).end, found.choice(1).end) == (END, cancelled)
        assert found.choice(1).tokens == 3
        assert await store.unfinished() == []

    async def test_an_end_without_new_output_is_one_all_the_same(self, store: DetachedStore) -> None:
        await store.add(request())
        await store.save([checkpoint(piece(0, 3), choice=1)])
        await store.save([checkpoint(None, end=END), checkpoint(None, choice=1, end=END)])
        found = await store.find(request().key)
        assert found is not None
        assert (found.choice(1).end, found.choice(1).tokens) == (END, 3)

    async def test_sizes_and_tokens_are_of_all(self, store: DetachedStore) -> None:
        made = [checkpoint(piece(0, 2)), checkpoint(piece(0, 3), choice=1), checkpoint(piece(3, 4), choice=1)]
        await store.add(request())
        for each in made:
            await store.save([each])
        [summary] = await store.summaries()
        assert summary.size_bytes == request().size_bytes + sum(each.size_bytes for each in made)
        assert summary.output_tokens == 2, "of choice 0 alone"
        [listed] = await store.page(Page(tenant="t", limit=10))
        assert listed.summary.output_tokens == 9

    async def test_they_are_removed_with_their_request(self, store: DetachedStore) -> None:
        await store.add(request())
        await store.save([checkpoint(piece(0, 3), choice=1)])
        await store.remove([request().key])
        await store.add(request())
        found = await store.find(request().key)
        assert found is not None
        assert found.choice(1).tokens == 0

    async def test_one_that_ended_before_is_written_whole(self, store: DetachedStore) -> None:
        whole = [checkpoint(piece(0, 2), end=END), checkpoint(piece(0, 1), choice=1, end=END)]
        await store.add(request(), whole)
        found = await store.find(request().key)
        assert found is not None
        assert [(found.choice(index).tokens, found.choice(index).end) for index in (0, 1)] == [(2, END), (1, END)]

    async def test_what_was_written_is_not_written_again(self, store: DetachedStore) -> None:
        if isinstance(store, MemoryDetachedStore):
            return  # its writes happen or do not
        await store.add(request())
        for made in (piece(0, 3), piece(0, 3), piece(0, 6)):
            await store.save([checkpoint(made, choice=1)])
        found = await store.find(request().key)
        assert found is not None
        assert "".join(each.text for each in found.choice(1).pieces) == piece(0, 6).text
        [summary] = await store.summaries()
        assert summary.size_bytes == request().size_bytes + piece(0, 6).size_bytes


class TestWritesThatMayHaveHappened:
    """A write that was reported as failed may be on the disk: it is repeated, with more."""

    async def test_output_is_written_once(self, store: DetachedStore) -> None:
        if isinstance(store, MemoryDetachedStore):
            return  # its writes happen or do not
        await store.add(request())
        await store.save([checkpoint(piece(0, 3, logprobs=True))])
        await store.save([checkpoint(piece(0, 3, logprobs=True))])
        await store.save([checkpoint(piece(0, 6, logprobs=True))])
        found = await store.find(request().key)
        assert found is not None
        whole = piece(0, 6, logprobs=True)
        assert [t for each in found.pieces for t in each.token_ids] == list(whole.token_ids)
        assert "".join(each.text for each in found.pieces) == whole.text
        assert [p for each in found.pieces for p in each.logprobs or ()] == whole.logprobs

    async def test_its_bytes_count_once(self, store: DetachedStore) -> None:
        if isinstance(store, MemoryDetachedStore):
            return  # its writes happen or do not
        await store.add(request())
        for end in (3, 3, 6):
            await store.save([checkpoint(piece(0, end, logprobs=True))])
        await store.save([checkpoint(piece(0, 6, logprobs=True)), checkpoint(piece(0, 2), choice=1)])
        await store.save([checkpoint(piece(0, 2), choice=1)])
        [summary] = await store.summaries()
        whole = [piece(0, 6, logprobs=True), piece(0, 2)]
        assert summary.size_bytes == request().size_bytes + sum(each.size_bytes for each in whole)

    async def test_an_acceptance_is_repeated(self, store: DetachedStore) -> None:
        await store.add(request())
        await store.add(request())
        assert len(await store.summaries()) == 1


async def test_an_export_has_nothing_that_tenants_sent_or_got(store: DetachedStore) -> None:
    if not isinstance(store, JournalDetachedStore):
        return
    await store.add(request())
    await store.save([checkpoint(piece(0, 3, logprobs=True), end=END)])
    pages = [
        page
        async for page in Maintenance(store._journal).export(
            ["detached_requests", "detached_contents", "detached_output"]
        )
    ]
    [asked, content, output] = [json.loads(line) for page in pages for line in page]
    assert (asked["tenant"], asked["request_id"], asked["state"], asked["output_tokens"]) == ("t", "a", "finished", 3)
    assert content == {"table": "detached_contents", "tenant": "t", "request_id": "a"}
    assert not {"content", "about", "outcome", "tail"} & set(asked)
    assert output == {"table": "detached_output", "tenant": "t", "request_id": "a", "first_index": 0}

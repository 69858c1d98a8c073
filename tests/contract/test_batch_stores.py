"""All stores of batches and files, with one suite: in memory, in SQLite, in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from scheduler_svc.control.journal.batches import (
    BatchState,
    BatchStore,
    FilePurpose,
    LineError,
    LineResult,
    OwnedId,
    StoredBatch,
    StoredFile,
)
from scheduler_svc.domain.errors import JournalUnavailable
from scheduler_svc.domain.request import Priority
from scheduler_svc.storage.journal.batch_store import JournalBatchStore
from scheduler_svc.storage.journal.journal import Journal, JournalSettings
from scheduler_svc.storage.journal.tables.batches import BATCHES, FILE_PIECES, FILES
from tests.support.memory_batch_store import MemoryBatchStore
from tests.support.postgres import running_postgres


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with running_postgres() as postgres:
        yield postgres.url


@pytest.fixture(params=["memory", "sqlite", "postgresql"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[BatchStore]:
    if request.param == "memory":
        yield MemoryBatchStore()
        return
    url = f"sqlite:///{tmp_path}/journal.db" if request.param == "sqlite" else request.getfixturevalue("server")
    journal = Journal(JournalSettings(url=url))
    journal.start()
    await journal.writer.write(
        lambda connection: [connection.execute(table.delete()) for table in (FILES, FILE_PIECES, BATCHES)] and None
    )
    yield JournalBatchStore(journal)
    await journal.close()


def key(name: str, tenant: str = "t") -> OwnedId:
    return OwnedId(tenant=tenant, id=name)


def file(name: str = "f", tenant: str = "t") -> StoredFile:
    return StoredFile(
        key=key(name, tenant),
        filename="é\U0001f600.jsonl",
        purpose=FilePurpose.BATCH,
        size_bytes=7,
        digest=b"\0digest",
        created_at=1_000.25,
        keep_until=2_000.5,
    )


def batch(name: str = "b", *, total: int = 0) -> StoredBatch:
    return StoredBatch(
        key=key(name),
        digest=b"\0wanted",
        input_file_id="f",
        endpoint="/v1/completions",
        priority=Priority.BACKGROUND,
        metadata={"é": "\U0001f600"},
        created_at=1_000.5,
        expires_at=1_100.5,
        keep_s=60.0,
        total=total,
    )


def result(index: int, *, succeeded: bool = True) -> LineResult:
    return LineResult(index=index, succeeded=succeeded, content=f"line {index}\n".encode())


async def content(store: BatchStore, wanted: OwnedId, offset: int = 0) -> bytes:
    found = b""
    while piece := await store.read(wanted, offset + len(found)):
        found += piece
    return found


async def test_a_file_comes_back_as_it_was_written_down(store: BatchStore) -> None:
    await store.add_piece(file().key, 0, b"\0ab\xff")
    await store.add_piece(file().key, 4, b"cde")
    await store.add_file(file())
    assert await store.load() == ([file()], [])
    assert await content(store, file().key) == b"\0ab\xffcde"
    assert await content(store, file().key, 2) == b"b\xffcde"
    assert await content(store, file().key, 5) == b"de"
    assert await content(store, file().key, 7) == b""
    assert await content(store, key("f", "other")) == b""


async def test_a_piece_that_is_written_twice_is_there_once(store: BatchStore) -> None:
    for _ in range(2):
        await store.add_piece(file().key, 0, b"ab")
    await store.add_piece(file().key, 2, b"c")
    assert await content(store, file().key) == b"abc"


async def test_a_file_has_nothing_of_an_upload_that_was_broken_off(store: BatchStore) -> None:
    for first_byte in (0, 4, 8):
        await store.add_piece(file().key, first_byte, b"old!")
    await store.add_piece(file().key, 0, b"news")
    await store.add_piece(file().key, 4, b"ies")
    await store.add_file(file())
    assert await content(store, file().key) == b"newsies"


async def test_what_an_upload_left_that_never_ended_is_deleted_at_the_start(store: BatchStore) -> None:
    await store.add_piece(key("half"), 0, b"half")
    await store.add_piece(file().key, 0, b"whole")
    await store.add_file(file())
    await store.load()
    assert await content(store, key("half")) == b""
    assert await content(store, file().key) == b"whole"


async def test_a_removed_file_is_gone_and_no_other(store: BatchStore) -> None:
    for tenant in ("t", "u"):
        await store.add_piece(key("f", tenant), 0, b"x")
        await store.add_file(file("f", tenant))
    await store.remove_files([key("f")])
    assert (await store.load())[0] == [file("f", "u")]
    assert await content(store, key("f")) == b""


async def test_a_batch_comes_back_as_it_was_written_down(store: BatchStore) -> None:
    await store.add_batch(batch())
    assert (await store.load())[1] == [batch()]
    changed = replace(
        batch(total=3),
        state=BatchState.FAILED,
        started_at=1.5,
        cancelling_at=2.5,
        ended_at=3.5,
        errors=(LineError(code="c", message="m\U0001f600", param="p", line=7),),
    )
    await store.change_batch(changed)
    assert (await store.load())[1] == [changed]


async def test_each_line_has_one_result_however_often_it_is_written(store: BatchStore) -> None:
    await store.add_batch(batch())
    await store.change_batch(batch(total=20))
    first = await store.save(key("b"), [result(0), result(17, succeeded=False), result(3)], 1_001.0)
    assert first is not None
    assert (first.batch.completed, first.batch.failed, first.batch.total) == (2, 1, 20)
    again = await store.save(key("b"), [result(3), result(0), result(17), result(4)], 1_002.0)
    assert again is not None
    assert (again.batch.completed, again.batch.failed) == (3, 1)
    sizes = {each.key.id: (each.size_bytes, each.created_at, each.keep_until) for each in again.files}
    assert sizes == {"b-output": (21, 1_001.0, None), "b-errors": (8, 1_001.0, None)}
    assert await content(store, batch().output) == b"line 0\nline 3\nline 4\n"
    assert await content(store, batch().error_output) == b"line 17\n"
    assert list(await store.lines_done(key("b"))) == [0b11001, 0, 0b10]
    assert (await store.load())[1] == [again.batch]


async def test_a_batch_that_ended_takes_no_result_and_no_other_end(store: BatchStore) -> None:
    await store.add_batch(batch())
    await store.change_batch(batch(total=2))
    await store.save(key("b"), [result(0)], 1_001.0)
    ended = replace(batch(total=2), state=BatchState.EXPIRED, ended_at=1_100.5)
    await store.change_batch(ended)
    assert await store.save(key("b"), [result(1)], 1_101.0) is None
    await store.change_batch(replace(ended, state=BatchState.COMPLETED, ended_at=1_200.0))
    files, batches = await store.load()
    assert batches == [replace(ended, completed=1)]
    assert [(each.key.id, each.keep_until) for each in files] == [("b-output", 1_160.5)]
    assert await content(store, batch().output) == b"line 0\n"


async def test_a_removed_batch_takes_its_output_with_it(store: BatchStore) -> None:
    await store.add_piece(file().key, 0, b"in")
    await store.add_file(file())
    await store.add_batch(batch())
    await store.change_batch(batch(total=2))
    await store.save(key("b"), [result(0), result(1, succeeded=False)], 1_001.0)
    await store.remove_batches([key("b"), key("unknown")])
    assert await store.load() == ([file()], [])
    assert await content(store, batch().output) == b""
    assert await store.save(key("b"), [result(1)], 1_001.0) is None


@pytest.mark.parametrize("store", ["sqlite", "postgresql"], indirect=True)
async def test_a_batch_that_is_half_removed_leaves_nothing_for_its_successor(
    store: JournalBatchStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.add_batch(batch())
    await store.change_batch(batch(total=2))
    await store.save(key("b"), [result(0), result(1, succeeded=False)], 1_001.0)
    writer, writes = store._journal.writer, list[None]()
    write = writer.write

    async def first_only(*args: Any, **options: Any) -> Any:
        if writes:
            raise JournalUnavailable("it dies here")
        writes.append(None)
        return await write(*args, **options)

    monkeypatch.setattr(writer, "write", first_only)
    with suppress(JournalUnavailable):
        await store.remove_batches([key("b")])
    monkeypatch.undo()
    assert [await store.read(each, 0) for each in (batch().output,)] == [b"line 0\n"], "its content is still there"
    await store.add_batch(batch())
    await store.change_batch(batch(total=2))
    saved = await store.save(key("b"), [result(1)], 1_001.0)
    assert saved is not None
    assert [each.size_bytes for each in saved.files] == [len(b"line 1\n")]
    assert await content(store, batch().output) == b"line 1\n"
    await store.load()
    assert await content(store, batch().error_output) == b""

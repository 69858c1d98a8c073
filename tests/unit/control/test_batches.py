"""Batches in virtual time: what becomes of each line, whatever dies or goes wrong meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from sage.controlplane.v1 import inference_pb2
from sage_media.kinds import MediaInput, MediaKind
from sage_wire.batches import EMBEDDINGS
from scheduler_svc.control.batches.line_codec import BatchLine, LineFault
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.journal.batches import BatchState, OwnedId
from scheduler_svc.domain.errors import (
    BatchNotFound,
    FileNotFound,
    InvalidRequest,
    InvalidTransition,
    JournalUnavailable,
    LimitReached,
    RequestConflict,
    TenantLimitReached,
)
from scheduler_svc.domain.request import Priority
from scheduler_svc.transport.openai_lines import generation
from scheduler_svc.transport.openai_lines.codec import OpenAiLines
from scheduler_svc.transport.violations import Violations
from tests.support.memory_batch_store import MemoryBatchStore
from tests.support.raw_batches import CHAT, line
from tests.unit.control.batch_world import BatchWorld, numbered
from tests.unit.control.world import EPOCH, IMAGE_ID


async def test_every_line_has_one_result_and_the_batch_is_complete() -> None:
    async with BatchWorld() as world:
        world.add("a")
        key = await world.submit(numbered(50))
        await world.advance(5)
        batch = world.batch(key)
        assert batch.state is BatchState.COMPLETED
        assert (batch.total, batch.completed, batch.failed) == (50, 50, 0)
        output, errors = world.results(key)
        assert output.keys() == {str(number) for number in range(50)}
        assert not errors
        assert output["7"]["response"]["body"]["choices"][0]["text"] == "xxxx"
        world.assert_all_room_is_free()


async def test_lines_that_are_at_fault_are_in_the_error_file_and_the_others_run() -> None:
    async with BatchWorld() as world:
        world.add("a")
        lines = [*numbered(3), line("odd", temperature=9), line("unknown", tools=[{"type": "function"}])]
        key = await world.submit(lines)
        await world.advance(5)
        output, errors = world.results(key)
        assert (world.batch(key).completed, world.batch(key).failed) == (3, 2)
        assert output.keys() == {"0", "1", "2"}
        odd, unknown = errors["odd"]["response"], errors["unknown"]["response"]
        assert (odd["status_code"], odd["body"]["error"]["param"]) == (400, "temperature")
        assert (unknown["status_code"], unknown["body"]["error"]["param"]) == (400, "tools")


async def test_a_line_with_an_image_runs_where_images_are_taken_and_is_refused_elsewhere() -> None:
    parts = [{"type": "text", "text": "See"}, {"type": "image_url", "image_url": {"url": "data:image/png;base64,eA=="}}]
    picture = line("picture", CHAT, messages=[{"role": "user", "content": parts}], max_tokens=4)
    async with BatchWorld() as world:
        world.add("a", media=(MediaInput(kind=MediaKind.IMAGE, placeholder_token_id=IMAGE_ID, most_tokens=20, most=2),))
        key = await world.submit([picture, line("text")])
        await world.advance(5)
        output, _ = world.results(key)
        assert output.keys() == {"picture", "text"}
        usage = output["picture"]["response"]["body"]["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (len("See") + 20, 4)
    async with BatchWorld() as world:
        world.add("a")
        key = await world.submit([picture, line("text")])
        await world.advance(5)
        output, errors = world.results(key)
        refused = errors["picture"]["response"]["body"]["error"]
        assert (set(output), refused["param"]) == ({"text"}, "messages[0].content[1]")
        assert "takes text only" in refused["message"]


async def test_what_is_no_line_keeps_all_from_running() -> None:
    async with BatchWorld() as world:
        world.add("a")
        key = await world.submit(b'{"custom_id": "a"}\n\nnonsense\n')
        await world.advance(5)
        batch = world.batch(key)
        assert batch.state is BatchState.FAILED
        assert [(each.code, each.line) for each in batch.errors] == [("invalid_url", 1), ("invalid_json_line", 3)]
        assert world.results(key) == ({}, {})
        assert not world.executors["a"].log


@pytest.mark.parametrize(
    ("content", "code"),
    [(b"", "empty_file"), (b"\n \n", "empty_file"), (b"x" * 2_000, "line_too_long"), (b"{}\n" * 200, "too_many_lines")],
)
async def test_a_file_that_is_none_is_said_so(content: bytes, code: str) -> None:
    async with BatchWorld(batches={"line_bytes": 1_000, "lines": 10}) as world:
        key = await world.submit(content)
        await world.advance(1)
        assert code in [each.code for each in world.batch(key).errors]


async def test_two_lines_may_not_have_one_custom_id() -> None:
    async with BatchWorld() as world:
        key = await world.submit([line("a"), line("b"), line("a")])
        await world.advance(1)
        assert [(each.code, each.line) for each in world.batch(key).errors] == [("duplicate_custom_id", 3)]


async def test_lines_wait_for_an_instance_until_the_batch_expires() -> None:
    async with BatchWorld(models={"m": {}}) as world:
        key = await world.submit(numbered(10), deadline_s=1_000)
        await world.advance(400)
        assert world.batch(key).state is BatchState.IN_PROGRESS
        world.add("a")
        await world.advance(60)
        assert world.batch(key).completed == 10


async def test_at_the_deadline_the_rest_is_in_the_error_file() -> None:
    async with BatchWorld(step_s=1.0, batches={"lines_in_flight": 4}) as world:
        world.add("a", max_running=2)
        key = await world.submit(numbered(30), deadline_s=20.5)
        await world.advance(40)
        batch = world.batch(key)
        assert batch.state is BatchState.EXPIRED
        output, errors = world.results(key)
        assert 0 < len(output) < 30
        assert output.keys() | errors.keys() == {str(number) for number in range(30)}
        assert {each["error"]["code"] for each in errors.values()} == {"batch_expired"}
        assert (batch.completed, batch.failed) == (len(output), len(errors))
        world.assert_all_room_is_free()


async def test_a_cancelled_batch_runs_nothing_further() -> None:
    async with BatchWorld(step_s=1.0, batches={"lines_in_flight": 4}) as world:
        executor = world.add("a", max_running=2)
        key = await world.submit(numbered(30))
        await world.advance(10.5)
        batch, cancelled = await world.batches.cancel(key)
        assert (cancelled, batch.state) == (True, BatchState.CANCELLING)
        await world.advance(1)
        assert world.batch(key).state is BatchState.CANCELLED
        output, errors = world.results(key)
        assert len(output) + len(errors) == 30
        assert {each["error"]["code"] for each in errors.values()} == {"batch_cancelled"}
        await world.advance(2)
        assert not executor.held
        world.assert_all_room_is_free()
        assert await world.batches.cancel(key) == (world.batch(key), False)


async def test_results_wait_for_a_journal_in_trouble_and_are_written_once() -> None:
    async with BatchWorld() as world:
        world.add("a")
        key = await world.submit(numbered(20))
        await world.advance(0.02)
        world.store.trouble = "full"
        await world.advance(30)
        assert world.batch(key).completed < 20
        world.store.trouble = ""
        await world.advance(5)
        assert world.batch(key).state is BatchState.COMPLETED
        assert len(world.results(key)[0]) == 20


@pytest.mark.parametrize("executor_dies_too", [False, True])
async def test_a_scheduler_that_dies_loses_and_repeats_no_line(executor_dies_too: bool) -> None:
    store = MemoryBatchStore()
    async with BatchWorld(store=store, batches={"lines_in_flight": 8}) as world:
        world.add("a", max_running=4)
        key = await world.submit(numbered(60, max_tokens=10))
        await world.advance(0.6)
    done = store.batches[key].completed
    assert 0 < done < 60
    later = BatchWorld(store=store, epoch=EPOCH + 1, started_at=10.0, batches={"lines_in_flight": 8})
    async with later as world:
        world.add("b" if executor_dies_too else "a", max_running=4)
        await world.advance(10)
        assert world.batch(key).state is BatchState.COMPLETED
        assert len(world.results(key)[0]) == 60
        assert len(world.executors.popitem()[1].log) <= 60 - done + 8


async def test_a_batch_whose_time_passed_without_a_scheduler_expires() -> None:
    store = MemoryBatchStore()
    async with BatchWorld(store=store, batches={"lines_in_flight": 1}) as world:
        world.add("a")
        key = await world.submit(numbered(60, max_tokens=10), deadline_s=100)
        await world.advance(1)
    done = store.batches[key].completed
    async with BatchWorld(store=store, epoch=EPOCH + 1, started_at=200.0) as world:
        await world.advance(1)
        assert world.batch(key).state is BatchState.EXPIRED
        assert [len(each) for each in world.results(key)] == [done, 60 - done]


async def test_a_cancellation_is_finished_by_the_next_scheduler() -> None:
    store = MemoryBatchStore()
    async with BatchWorld(store=store) as world:
        key = await world.submit(numbered(5))
        await world.advance(1)
        await world.batches.cancel(key)
    assert store.batches[key].state is BatchState.CANCELLING
    async with BatchWorld(store=store, epoch=EPOCH + 1, started_at=5.0) as world:
        world.add("a")
        await world.advance(1)
        assert world.batch(key).state is BatchState.CANCELLED
        assert len(world.results(key)[1]) == 5


@pytest.mark.parametrize("policy", ["adaptive", "priority"])
async def test_background_lines_fill_what_is_idle_and_no_critical_request_waits_for_one(policy: str) -> None:
    async with BatchWorld(policy=policy, batches={"lines_in_flight": 64}) as world:
        executor = world.add("a", max_running=4)
        key = await world.submit(numbered(400, max_tokens=20))
        await world.advance(1.0)  # the policy that follows the load has seen them
        for number in range(20):
            await world.advance(0.11)
            assert len(world.plane.requests) > 30, "lines wait"
            assert len(executor.held) >= 3, "lines run"
            reader = await super(BatchWorld, world).submit(f"c{number}", max_tokens=2, priority=Priority.CRITICAL)
            await world.advance(0.1)
            assert reader.finished.queue_s == 0.0
        assert world.batch(key).state is BatchState.IN_PROGRESS


async def test_a_line_may_have_a_class_of_its_own() -> None:
    async with BatchWorld() as world:
        executor = world.add("a", max_running=1)
        lines = [*numbered(5, max_tokens=50), line("first", prompt=[9], sage={"priority": "critical"})]
        await world.submit(lines)
        await world.advance(1.2)
        assert executor.log.index("assign b/5") <= 2
        priorities = {live.key.request_id: live.request.priority for live in world.plane.requests}
        assert priorities["b/4"] is Priority.BACKGROUND


async def test_a_batch_whose_model_is_away_keeps_no_other_from_running() -> None:
    async with BatchWorld(models={"away": {}}, batches={"lines_in_flight": 8}) as world:
        world.add("a")
        stuck = await world.submit(numbered(50, model="away"), batch_id="stuck")
        await world.advance(5)
        assert world.batches.figures.in_flight == 0
        runs = await world.submit(numbered(50, model="m"), batch_id="runs")
        await world.advance(10)
        assert world.batch(runs).state is BatchState.COMPLETED
        assert (world.batch(stuck).state, world.batch(stuck).failed) == (BatchState.IN_PROGRESS, 0)


async def test_tenants_take_turns_in_the_window() -> None:
    async with BatchWorld(batches={"lines_in_flight": 2}) as world:
        world.add("a", max_running=1)
        for number in range(3):
            await world.submit(numbered(30), batch_id=f"b{number}")
        await world.advance(0.1)
        other = OwnedId(tenant="u", id="late")
        pieces = numbered(3)
        file = replace(await world.file(pieces, "u-in"))
        world.store.pieces[OwnedId(tenant="u", id="u-in")] = world.store.pieces[file.key]
        world.batches.files.note(replace(file, key=OwnedId(tenant="u", id="u-in")))
        template = world.batch(OwnedId(tenant="t", id="b0"))
        await world.batches.submit(
            replace(template, key=other, input_file_id="u-in", state=BatchState.VALIDATING, total=0, completed=0)
        )
        await world.advance(0.7)
        assert world.batch(other).state is BatchState.COMPLETED
        assert world.batch(OwnedId(tenant="t", id="b2")).state is BatchState.IN_PROGRESS


async def test_the_same_batch_again_is_the_same_and_other_content_is_refused() -> None:
    async with BatchWorld() as world:
        key = await world.submit(numbered(3))
        again, attached = await world.batches.submit(world.batch(key))
        assert (again.key, attached) == (key, True)
        with pytest.raises(RequestConflict, match="batch id 'b' is taken by a batch with other content"):
            await world.batches.submit(replace(world.batch(key), digest=b"other"))


async def test_a_batch_that_cannot_be_written_down_is_not_there() -> None:
    async with BatchWorld(batches={"tenant_unfinished": 1}) as world:
        await world.file(numbered(1), "in-b")
        world.store.trouble = "full"
        with pytest.raises(JournalUnavailable, match="full"):
            await world.submit(numbered(1))
        world.store.trouble = ""
        with pytest.raises(BatchNotFound):
            world.batch(OwnedId(tenant="t", id="b"))
        await world.batches.files.delete(OwnedId(tenant="t", id="in-b"))
        await world.submit(numbered(1))


async def test_unfinished_batches_of_a_tenant_are_bounded() -> None:
    async with BatchWorld(batches={"tenant_unfinished": 1, "lines_in_flight": 2}) as world:
        await world.submit(numbered(1))
        with pytest.raises(TenantLimitReached, match=r"batches\.tenant_unfinished \(1\)"):
            await world.submit(numbered(1), batch_id="c")
        world.add("a")
        await world.advance(40)
        await world.submit(numbered(1), batch_id="c")


async def test_a_batch_is_deleted_with_its_output_after_its_time() -> None:
    async with BatchWorld() as world:
        world.add("a")
        key = await world.submit(numbered(3))
        await world.advance(5)
        output = world.batches.files.find(world.batch(key).output)
        assert output.keep_until == pytest.approx(world.batch(key).keep_until)
        await world.advance(110)
        with pytest.raises(BatchNotFound):
            world.batch(key)
        with pytest.raises(FileNotFound):
            world.batches.files.find(output.key)
        assert not world.store.content(output.key)
        assert world.batches.files.knows(OwnedId(tenant="t", id="in-b")), "the input has a time of its own"


# --- files --------------------------------------------------------------------------------------


async def test_a_file_is_deleted_after_its_time_unless_a_batch_reads_it() -> None:
    async with BatchWorld(batches={"keep_s": 50.0}) as world:
        await world.file(numbered(1), "old")
        key = await world.submit(numbered(1), deadline_s=200)
        await world.advance(100)
        with pytest.raises(FileNotFound):
            world.batches.files.find(OwnedId(tenant="t", id="old"))
        used = world.batches.files.find(OwnedId(tenant="t", id="in-b"))
        assert world.batches.files.keep_until(used) is None
        with pytest.raises(InvalidTransition, match="in use by a batch"):
            await world.batches.files.delete(used.key)
        await world.advance(150)
        assert world.batch(key).state is BatchState.EXPIRED
        with pytest.raises(FileNotFound):
            world.batches.files.find(used.key)


async def test_a_file_that_is_being_deleted_can_be_submitted_no_more() -> None:
    async with BatchWorld() as world:
        file = await world.file(numbered(1), "f")
        world.store.trouble = "slow"
        with pytest.raises(JournalUnavailable):
            await world.batches.files.delete(file.key)
        assert world.batches.files.find(file.key) == file, "it is there again"
        world.store.trouble = ""
        deletion = asyncio.create_task(world.batches.files.delete(file.key))
        await asyncio.sleep(0)
        with pytest.raises(FileNotFound):
            world.batches.files.find(file.key)
        await deletion
        await world.file(numbered(1), "f")


async def test_a_batch_never_counts_as_complete_without_all_its_results() -> None:
    store = MemoryBatchStore()
    async with BatchWorld(store=store) as world:
        key = await world.submit(numbered(20), deadline_s=100)
        await world.advance(1)
    del store.pieces[OwnedId(tenant="t", id="in-b")]
    async with BatchWorld(store=store, epoch=EPOCH + 1, started_at=1.0) as world:
        world.add("a")
        await world.advance(60)
        assert world.batch(key).state is BatchState.IN_PROGRESS
        await world.advance(60)
        assert world.batch(key).state is BatchState.EXPIRED


async def test_the_same_file_again_is_the_same_and_other_content_is_refused() -> None:
    async with BatchWorld() as world:
        first = await world.file(b"abc")
        assert await world.file(b"abc") == first
        with pytest.raises(RequestConflict, match="file id 'in' is taken by a file with other content"):
            await world.file(b"abd")


async def test_nothing_is_kept_of_a_file_that_is_refused() -> None:
    limits = {"file_bytes": 400_000, "tenant_bytes": 500_000}
    async with BatchWorld(batches=limits) as world:
        with pytest.raises(InvalidRequest, match=r"more than 400000 bytes \(batches\.file_bytes\)"):
            await world.file(b"x" * 400_001)
        assert not world.store.pieces
        await world.file(b"x" * 300_000, "a")
        with pytest.raises(TenantLimitReached, match=r"batches\.tenant_bytes"):
            await world.file(b"x" * 300_000, "b")
        assert set(world.store.pieces) == {OwnedId(tenant="t", id="a")}
        await world.batches.files.delete(OwnedId(tenant="t", id="a"))
        await world.file(b"x" * 300_000, "b")


async def test_a_full_disk_refuses_a_file_and_keeps_nothing_counted() -> None:
    async with BatchWorld(batches={"tenant_files": 1}) as world:
        world.store.trouble = "the disk is full"
        with pytest.raises(JournalUnavailable, match="the disk is full"):
            await world.file(b"x")
        world.store.trouble = ""
        await world.file(b"x")


async def test_two_uploads_of_one_id_do_not_mix() -> None:
    async with BatchWorld() as world:
        go_on = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            yield b"ab"
            await go_on.wait()
            yield b"cd"

        key = OwnedId(tenant="t", id="in")
        first = asyncio.create_task(world.batches.files.upload(key, "", None, slow()))
        await world.advance(1)
        second = asyncio.create_task(world.file(b"abcd"))
        await world.advance(1)
        assert not second.done()
        go_on.set()
        assert (await first)[0] == await second
        assert world.store.content(key) == b"abcd"


async def endless() -> AsyncIterator[bytes]:
    await asyncio.Event().wait()
    yield b""


async def test_one_tenant_leaves_the_others_places_to_upload() -> None:
    async with BatchWorld(batches={"uploads": 3, "tenant_uploads": 2}) as world:
        files = world.batches.files
        taken = [
            asyncio.create_task(files.upload(OwnedId(tenant="greedy", id=each), "", None, endless())) for each in "ab"
        ]
        await world.advance(1)
        with pytest.raises(TenantLimitReached, match=r"batches\.tenant_uploads \(2\)") as caught:
            await files.upload(OwnedId(tenant="greedy", id="c"), "", None, endless())
        assert caught.value.expected_wait_s > 0
        await world.file(b"x")
        taken[0].cancel()
        await asyncio.gather(taken[0], return_exceptions=True)
        taken.append(asyncio.create_task(files.upload(OwnedId(tenant="greedy", id="c"), "", None, endless())))
        await world.advance(1)
        assert not taken[-1].done()
        for each in taken:
            each.cancel()
        await asyncio.gather(*taken, return_exceptions=True)


async def test_uploads_at_once_are_bounded() -> None:
    async with BatchWorld(batches={"uploads": 1}) as world:
        first = asyncio.create_task(world.batches.files.upload(OwnedId(tenant="t", id="a"), "", None, endless()))
        await world.advance(1)
        with pytest.raises(LimitReached):
            await world.file(b"x")
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await world.file(b"x")


class SlowToRemove(MemoryBatchStore):
    """Deletes contents some time after the files."""

    def __init__(self) -> None:
        super().__init__()
        self.go_on = asyncio.Event()

    async def remove_files(self, keys: Sequence[OwnedId]) -> None:
        for key in keys:
            self.files.pop(key, None)
        await self.go_on.wait()
        await super().remove_files(keys)


@pytest.mark.parametrize("expires", [False, True])
async def test_a_file_that_is_uploaded_while_its_id_is_deleted_is_whole(expires: bool) -> None:
    store = SlowToRemove()
    async with BatchWorld(store=store) as world:
        old = await world.file(b"an old content")
        if expires:
            world.batches.files.note(replace(old, keep_until=world.wall() + 1))
            deletion = asyncio.create_task(world.advance(10))
        else:
            deletion = asyncio.create_task(world.batches.files.delete(old.key))
        await world.advance(10)
        upload = asyncio.create_task(world.file(b"abcd"))
        await world.advance(1)
        store.go_on.set()
        await deletion
        assert await upload == world.batches.files.find(old.key)
        assert store.content(old.key) == b"abcd"


async def test_lines_that_were_checked_run_though_lines_may_have_fewer_bytes_now() -> None:
    store = MemoryBatchStore()
    async with BatchWorld(store=store) as world:
        key = await world.submit([*numbered(2), line("long", user="x" * 5_000)])
        await world.advance(1)
        assert world.batch(key).state is BatchState.IN_PROGRESS
    fewer = BatchSettings(line_bytes=1_000)
    async with BatchWorld(store=store, epoch=EPOCH + 1, started_at=1.0, batches=fewer) as world:
        world.add("a")
        await world.advance(60)
        assert world.batch(key).state is BatchState.COMPLETED
        assert world.results(key)[0].keys() == {"0", "1", "long"}


async def test_what_is_no_line_any_more_keeps_its_batch_from_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryBatchStore()
    async with BatchWorld(store=store) as world:
        key = await world.submit([*numbered(2), line("old")])
        await world.advance(1)
        assert world.batch(key).state is BatchState.IN_PROGRESS
    parse = OpenAiLines.parse

    def stricter(lines: OpenAiLines, content: bytes, index: int, endpoint: str) -> BatchLine:
        if b"old" in content:
            raise LineFault("invalid_url", "url is none of ours", "url")
        return parse(lines, content, index, endpoint)

    monkeypatch.setattr(OpenAiLines, "parse", stricter)
    async with BatchWorld(store=store, epoch=EPOCH + 1, started_at=1.0) as world:
        world.add("a")
        await world.advance(10)
        assert world.batch(key).state is BatchState.COMPLETED
        output, errors = world.results(key)
        assert output.keys() == {"0", "1"}
        assert errors["line 3"]["response"]["body"]["error"]["param"] == "url"


@pytest.mark.parametrize(
    ("wrong", "param"),
    [
        (line("x", temperature=10**400), "temperature"),
        (line("x", sage={"cost_budget": 10**400}), "sage.cost_budget"),
        (line("x", prompt="\ud800"), "prompt"),
        (line("x", stop=["\ud800"]), "stop"),
        ({**line("x"), "body": {"prompt": "a", "\ud800": 1}}, "\\ud800"),
        (line("x", structured_outputs={"\ud800": 1}), "structured_outputs.\\ud800"),
        (line("x", model="\ud800"), "model"),
        (line("x", sage={"session": "\ud800"}), "sage.session"),
        (line("x", guided_regex="\ud800"), "structured_outputs.regex"),
        (line("x", CHAT, messages=[{"role": "\ud800", "content": "a"}]), "messages[0].role"),
        (line("x", CHAT, messages=[{"role": "user", "name": "\ud800", "content": "a"}]), "messages[0].name"),
        (line("x", CHAT, messages=[{"role": "user", "content": "\ud800"}]), "messages[0].content"),
        (line("x", EMBEDDINGS, model="m", input=["a", "\ud800"]), "input"),
    ],
)
async def test_values_that_nothing_can_hold_are_refused_by_their_name(wrong: dict[str, Any], param: str) -> None:
    async with BatchWorld() as world:
        world.add("a")
        key = await world.submit([wrong])
        await world.advance(5)
        response = world.results(key)[1]["x"]["response"]
        assert (response["status_code"], response["body"]["error"]["param"]) == (400, param)


async def test_a_line_with_too_many_prompts_costs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    made, make = list[inference_pb2.GenerationSpec](), inference_pb2.GenerationSpec

    def noted(**fields: Any) -> inference_pb2.GenerationSpec:
        made.append(make(**fields))
        return made[-1]

    monkeypatch.setattr(inference_pb2, "GenerationSpec", noted)
    violations = Violations()
    generation.completion({"prompt": ["a"] * 10_000, "stop": ["x" * 1_000]}, violations)
    assert [each.field for each in violations] == ["prompt"]
    assert len(made) < 10

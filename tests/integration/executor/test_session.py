"""An executor and a scheduler that does what the test says, over real gRPC."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from executor_svc.engine.common_settings import ModelSettings
from executor_svc.engine.simulated.faults import Fault, FaultKind
from executor_svc.engine.simulated.settings import SimulatedSettings
from executor_svc.engine.simulated.starting import SimulatedEngineFactory
from executor_svc.runtime.engine_port import Engine, EngineState, ModelError, ProgressListener
from executor_svc.runtime.service import Exit
from sage.controlplane.v1 import common_pb2, executor_pb2
from sage_wire.errors import ErrorReason
from sage_wire.protocol import ADOPTION, ASSIGN_BATCHES, AUTOMATIC_ROLES, RUN_TIME_ADAPTERS, STEP_FRAMES
from tests.integration.executor.running_executor import KeptFactory, executor
from tests.integration.executor.scripted_scheduler import ScriptedScheduler, scripted_scheduler

ENDLESS = common_pb2.SamplingParams(temperature=0, max_tokens=4000, ignore_eos=True)
LONG = common_pb2.SamplingParams(temperature=0, max_tokens=60, ignore_eos=True)
ENDED = executor_pb2.AssignmentEnded


both_kinds_of_messages = pytest.mark.usefixtures("output_messages")


@pytest.fixture(params=["step frames", "older messages"])
def output_messages(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The scheduler reads StepFrame, or does not know it."""
    if request.param == "older messages":
        monkeypatch.setattr(ScriptedScheduler, "capabilities", ())


def states(status: list[executor_pb2.EngineStatus]) -> list[str]:
    """Each state once, in order."""
    names = [common_pb2.InstanceState.Name(s.state).removeprefix("INSTANCE_STATE_") for s in status]
    return [name for index, name in enumerate(names) if index == 0 or names[index - 1] != name]


def keep_all(register: executor_pb2.Register) -> list[common_pb2.Attempt]:
    return [held.attempt for held in register.held]


# --- registering ----------------------------------------------------------------------------------------------------


async def test_it_registers_before_its_engine_is_up_and_reports_every_state_on_the_way() -> None:
    flags = ("--engine.simulated.load-s", "0.3", "--labels", "pool=a")
    async with scripted_scheduler() as scheduler, executor(scheduler.address, *flags):
        session = await scheduler.session()
        status = await session.ready()
        assert session.register.instance_id == "one"
        assert session.register.model == "sim"
        assert session.register.labels == {"pool": "a"}
        assert session.register.engine_start_id
        assert states(session.heard("engine_status"))[-3:] == ["LOADING", "WARMING", "READY"]
        assert status.facts.max_model_len == 8192
        assert session.heard("heartbeat")


async def test_it_tells_how_fast_its_engine_is_and_counts_nothing_of_the_measurement() -> None:
    factory = KeptFactory(SimulatedEngineFactory(ModelSettings(model="sim"), SimulatedSettings(), measure_speed_s=30.0))
    async with scripted_scheduler() as scheduler, executor(scheduler.address, factory=factory):
        session = await scheduler.session()
        measured = (await session.ready()).facts.measured_iterations
        assert {(each.prefill_tokens, each.running) for each in measured} >= {(2048, 1), (0, 1), (512, 32), (0, 32)}
        assert all(each.elapsed_s > 0 for each in measured)
        [beat, *_] = await session.until(lambda: [h for h in session.heard("heartbeat") if h.unfinished == 0])
        assert (beat.prompt_tokens_total, beat.generation_tokens_total, beat.prefix_queries_tokens) == (0, 0, 0)
        assert not beat.recent_iterations


async def test_it_uploads_the_tokenizer_the_scheduler_lacks() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        wanted = (await session.ready()).facts.tokenizer_hash
        session.send(tokenizer_wanted=executor_pb2.TokenizerWanted(tokenizer_hash=wanted))
        chunks = await session.until(lambda: [c for c in session.heard("tokenizer_chunk") if c.last])
        document = b"".join(chunk.data for chunk in session.heard("tokenizer_chunk"))
        assert hashlib.sha256(document).hexdigest() == wanted == chunks[0].tokenizer_hash
        assert set(json.loads(document)) == {"tokenizer_json", "chat_template", "special_tokens"}


async def test_it_tries_every_scheduler_in_turn() -> None:
    async with scripted_scheduler() as scheduler, executor(["127.0.0.1:1", scheduler.address]):
        await scheduler.session()


async def test_it_waits_for_a_scheduler_that_is_not_there_yet() -> None:
    async with scripted_scheduler() as first:
        port = first.port
    async with executor(f"127.0.0.1:{port}"), scripted_scheduler(port) as scheduler:
        await (await scheduler.session()).ready()


async def test_where_every_scheduler_refuses_it_for_good_it_ends() -> None:
    async with scripted_scheduler() as scheduler:
        scheduler.refusal = ErrorReason.PROTOCOL_VERSION
        async with executor(scheduler.address) as running:
            assert await running.status() == Exit.REFUSED


async def test_it_tries_again_while_its_name_is_in_use() -> None:
    async with scripted_scheduler() as scheduler:
        scheduler.refusal = ErrorReason.DUPLICATE_INSTANCE
        async with executor(scheduler.address):
            await scheduler.until(lambda: scheduler.refused >= 2)
            scheduler.refusal = None
            await scheduler.session()


# --- running --------------------------------------------------------------------------------------------------------


@both_kinds_of_messages
async def test_an_attempt_is_accepted_streams_and_ends() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=LONG)
        ended = await session.ended(1)
        assert session.about("accepted", 1)
        assert ended.cause == ENDED.CAUSE_FINISHED
        assert ended.total_tokens == len(session.token_ids(1)) == 60
        assert session.text(1)
        assert ended.HasField("engine_time")


@both_kinds_of_messages
async def test_one_message_carries_one_engine_step_of_all_attempts() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address) as running:
        session = await scheduler.session()
        await session.ready()
        for number in range(1, 9):
            session.assign(number, sampling=LONG)
        for number in range(1, 9):
            await session.ended(number)
        frames = [m for m in session.outputs if m.WhichOneof("message") == "frame"]
        assert len(frames) <= running.engine.load().iterations + 2
        assert max(len(m.frame.tokens) for m in frames) == 8


@both_kinds_of_messages
async def test_log_probabilities_and_stop_strings_come_over_the_wire() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=LONG)
        await session.ended(1)
        stop = session.text(1)[25:30]
        sampling = common_pb2.SamplingParams(temperature=0, max_tokens=60, ignore_eos=True, stop=[stop], logprobs=1)
        session.assign(2, sampling=sampling)
        ended = await session.ended(2)
        assert ended.stop_string == stop
        assert session.text(2) == session.text(1)[: session.text(1).index(stop)]
        assert all(len(piece.logprobs) == len(piece.token_ids) for piece in session.pieces(2))


@both_kinds_of_messages
async def test_a_cancel_is_confirmed_and_frees_the_engine() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address) as running:
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=ENDLESS)
        await session.until(lambda: len(session.token_ids(1)) > 5)
        session.cancel(1)
        assert (await session.ended(1)).cause == ENDED.CAUSE_CANCELLED
        load = running.engine.load()
        assert (load.unfinished, load.kv_used_tokens) == (0, 0)


async def test_heartbeats_say_which_assign_is_in_their_figures() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=ENDLESS)
        beats = await session.until(lambda: [b for b in session.heard("heartbeat") if b.last_assign == 1])
        assert beats[0].unfinished == 1
        later = await session.until(lambda: [b for b in session.heard("heartbeat") if b.generation_tokens_per_s > 0])
        assert later[-1].iterations > 0
        assert [b.number for b in session.heard("heartbeat")] == list(range(1, len(session.heard("heartbeat")) + 1))


async def test_a_heartbeat_follows_a_change_long_before_the_next_interval() -> None:
    async with scripted_scheduler() as scheduler:
        scheduler.heartbeat_interval_s = 3600.0
        async with executor(scheduler.address):
            session = await scheduler.session()
            await session.ready()
            session.assign(1, sampling=ENDLESS)
            await session.until(lambda: [b for b in session.heard("heartbeat") if b.last_assign == 1])


@both_kinds_of_messages
async def test_an_assign_that_makes_no_sense_is_invalid_and_names_the_field() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=common_pb2.SamplingParams(n=3, max_tokens=4))
        ended = await session.ended(1)
        assert (ended.cause, ended.field) == (ENDED.CAUSE_INVALID, "sampling.n")


@both_kinds_of_messages
async def test_a_continuation_goes_on_from_the_tokens_it_is_given() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=LONG)
        await session.ended(1)
        head = session.pieces(1)[:20]
        emitted = [token_id for piece in head for token_id in piece.token_ids]
        delivered = "".join(piece.text for piece in head)
        for number, mode in ((2, "MODE_RESUME"), (3, "MODE_REPLAY")):
            continuation = executor_pb2.Continuation(
                emitted_token_ids=emitted,
                mode=executor_pb2.Continuation.Mode.Value(mode),
                emitted_text_length=len(delivered),
            )
            session.assign(number, sampling=LONG, continuation=continuation)
            await session.ended(number)
            assert emitted + session.token_ids(number) == session.token_ids(1)
            assert delivered + session.text(number) == session.text(1)
            assert session.pieces(number)[0].first_index == len(emitted)


@both_kinds_of_messages
async def test_commands_of_an_older_epoch_are_refused() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        session.assign(1, epoch=scheduler.epoch - 1)
        rejected = await session.until(lambda: session.about("rejected", 1))
        assert rejected[0].reason == executor_pb2.AssignmentRejected.REASON_STALE_EPOCH
        assert rejected[0].epoch == scheduler.epoch - 1


@pytest.mark.parametrize("capabilities", [(), (STEP_FRAMES,)])
async def test_step_frames_go_to_a_scheduler_that_says_it_reads_them(capabilities: tuple[str, ...]) -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        scheduler.capabilities = capabilities
        session = await scheduler.session()
        named = [STEP_FRAMES, ADOPTION, ASSIGN_BATCHES, RUN_TIME_ADAPTERS, AUTOMATIC_ROLES]
        assert list(session.register.capabilities) == named
        await session.ready()
        session.assign(1, sampling=LONG)
        await session.ended(1)
        assert bool(session.steps) is bool(capabilities)


@both_kinds_of_messages
async def test_two_schedulers_in_turn_may_count_the_same_number() -> None:
    """The second one's attempt has nothing to do with what the first one's left behind."""
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        first = await scheduler.session(0)
        await first.ready()
        first.assign(1, sampling=ENDLESS)
        await first.until(lambda: len(first.token_ids(1)) > 10)
        scheduler.epoch += 1
        first.cut()
        second = await scheduler.session(1)
        assert [held.attempt.epoch for held in second.register.held] == [scheduler.epoch - 1]
        second.assign(1, sampling=LONG)
        second.acknowledge(1, 4000, ended=True, epoch=scheduler.epoch - 1)
        ended = await second.ended(1)
        assert (ended.cause, ended.total_tokens) == (ENDED.CAUSE_FINISHED, 60)
        assert len(second.token_ids(1)) == 60
        assert {piece.epoch for piece in second.pieces(1)} == {scheduler.epoch}


# --- losing the scheduler -------------------------------------------------------------------------------------------


@both_kinds_of_messages
async def test_after_a_broken_stream_it_comes_back_with_what_it_holds_and_sends_on_from_where_it_is_told() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        scheduler.keep = keep_all
        first = await scheduler.session(0)
        await first.ready()
        first.assign(1, sampling=LONG)
        first.assign(2, sampling=ENDLESS)
        await first.until(lambda: len(first.token_ids(1)) > 10)
        first.cut()

        second = await scheduler.session(1)
        assert {held.attempt.number for held in second.register.held} == {1, 2}
        assert second.register.engine_start_id == first.register.engine_start_id
        seen = first.pieces(1)[:5]
        have = sum(len(piece.token_ids) for piece in seen)
        assert not second.pieces(1), "output went out before it was asked for"
        second.resume(1, have)
        ended = await second.ended(1)
        tokens = [token_id for piece in seen for token_id in piece.token_ids] + second.token_ids(1)
        text = "".join(piece.text for piece in seen) + second.text(1)

        second.assign(3, sampling=LONG)
        await second.ended(3)
        assert tokens == second.token_ids(3)
        assert text == second.text(3)
        assert ended.total_tokens == 60


@both_kinds_of_messages
async def test_an_end_the_scheduler_did_not_see_is_told_again() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        scheduler.keep = keep_all
        scheduler.acknowledges_ends = False
        first = await scheduler.session(0)
        await first.ready()
        first.assign(1)
        ended = await first.ended(1)
        first.cut()
        second = await scheduler.session(1)
        held = second.register.held[0]
        assert (held.tokens, held.ended) == (ended.total_tokens, True)
        second.resume(1, ended.total_tokens)
        assert await second.ended(1) == ended
        assert second.token_ids(1) == []


async def test_what_the_scheduler_does_not_keep_is_aborted() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address) as running:
        first = await scheduler.session(0)
        await first.ready()
        first.assign(1, sampling=ENDLESS)
        await first.until(lambda: first.token_ids(1))
        first.cut()
        second = await scheduler.session(1)
        await second.until(lambda: [b for b in second.heard("heartbeat") if b.unfinished == 0])
        assert running.engine.load().unfinished == 0


async def test_work_is_let_go_when_the_scheduler_stays_away_for_longer_than_its_lease() -> None:
    scheduler = ScriptedScheduler()
    scheduler.lease_s = 0.3
    await scheduler.start()
    async with executor(scheduler.address) as running:
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=ENDLESS)
        await session.until(lambda: session.token_ids(1))
        await scheduler.stop()
        await running.idle()
        assert running.engine.load().unfinished == 0
        async with scripted_scheduler(scheduler.port) as back:
            assert not (await back.session()).register.held


async def test_a_scheduler_that_answers_no_heartbeat_is_left_and_dialled_anew() -> None:
    async with scripted_scheduler() as scheduler:
        scheduler.lease_s = 0.3
        scheduler.answers_heartbeats = False
        async with executor(scheduler.address):
            await scheduler.session(1)


async def test_an_older_scheduler_is_refused_while_the_newer_ones_lease_runs() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        first = await scheduler.session(0)
        await first.ready()
        scheduler.epoch -= 1
        first.cut()
        await scheduler.until(lambda: len(scheduler.sessions) >= 3)
        assert not scheduler.sessions[1].outputs_open
        scheduler.epoch += 2
        await scheduler.until(lambda: scheduler.sessions[-1].outputs_open)
        assert not any(session.outputs_open for session in scheduler.sessions[1:-1])


# --- leaving --------------------------------------------------------------------------------------------------------


def kinds(scheduler: ScriptedScheduler) -> list[str]:
    return [str(message.WhichOneof("message")) for message in scheduler.sessions[-1].control]


async def test_a_drain_finishes_what_runs_and_then_leaves() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address) as running:
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=LONG)
        await session.until(lambda: session.token_ids(1))
        running.terminate()
        await session.until(lambda: session.heard("drain_requested"))
        session.assign(2)
        rejected = await session.until(lambda: session.about("rejected", 2))
        assert rejected[0].reason == executor_pb2.AssignmentRejected.REASON_DRAINING
        assert (await session.ended(1)).cause == ENDED.CAUSE_FINISHED
        assert await running.status() == 0
        said = [kind for kind in kinds(scheduler) if kind in ("drain_requested", "drained", "goodbye")]
        assert said == ["drain_requested", "drained", "goodbye"]


async def test_what_does_not_end_within_the_drain_timeout_is_given_back() -> None:
    flags = ("--drain-timeout-s", "0.1")
    async with scripted_scheduler() as scheduler, executor(scheduler.address, *flags) as running:
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=ENDLESS)
        await session.until(lambda: session.token_ids(1))
        running.terminate()
        ended = await session.ended(1)
        assert ended.cause == ENDED.CAUSE_CANCELLED
        assert ended.total_tokens == len(session.token_ids(1))
        assert await running.status() == 0


async def test_a_second_signal_ends_at_once() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address) as running:
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=ENDLESS)
        await session.until(lambda: session.token_ids(1))
        running.terminate()
        running.terminate()
        assert await running.status() == 128 + 15


async def test_it_leaves_also_where_no_scheduler_is() -> None:
    async with executor("127.0.0.1:1") as running:
        await running.begun.wait()
        running.terminate()
        assert await running.status() == 0


async def test_a_drain_ordered_by_the_scheduler_can_be_taken_back() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        session.send(drain=executor_pb2.Drain())
        await session.until(lambda: session.heard("drained"))
        session.assign(1)
        await session.until(lambda: session.about("rejected", 1))
        session.send(drain=executor_pb2.Drain(resume=True))
        session.assign(2)
        assert (await session.ended(2)).cause == ENDED.CAUSE_FINISHED


# --- failing --------------------------------------------------------------------------------------------------------


async def test_an_engine_that_dies_ends_the_executor_and_says_so() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address) as running:
        session = await scheduler.session()
        await session.ready()
        session.assign(1, sampling=ENDLESS)
        await session.until(lambda: session.token_ids(1))
        running.engine.inject(Fault(kind=FaultKind.DIE))
        ended = await session.ended(1)
        assert ended.cause == ENDED.CAUSE_FAILED
        assert ended.total_tokens == len(session.token_ids(1))
        assert await running.status() == Exit.ENGINE_DIED
        assert states(session.heard("engine_status"))[-1] == "FAILED"
        assert kinds(scheduler)[-1] == "goodbye"


async def test_an_idle_engine_that_dies_is_noticed_too() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address) as running:
        await (await scheduler.session()).ready()
        running.engine.inject(Fault(kind=FaultKind.DIE))
        assert await running.status() == Exit.ENGINE_DIED


class BrokenModel:
    async def start(self, progress: ProgressListener) -> Engine:
        progress(EngineState.LOADING, None, "loading")
        raise ModelError("sim has no config.json: give the directory that holds one")


async def test_a_model_that_cannot_be_loaded_is_reported_and_ends_the_executor() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address, factory=BrokenModel()) as running:
        session = await scheduler.session()
        assert await running.status() == Exit.ENGINE_FAILED_TO_START
        failed = session.heard("engine_status")[-1]
        assert failed.state == common_pb2.INSTANCE_STATE_FAILED
        assert "no config.json" in failed.message
        assert kinds(scheduler)[-1] == "goodbye"


# --- what it listens on ---------------------------------------------------------------------------------------------


async def test_health_is_serving_while_it_is_ready_and_connected() -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address, "--engine.simulated.load-s", "0.3"):
        session = await scheduler.session()
        async with grpc.aio.insecure_channel(session.register.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            watch = stub.Watch(health_pb2.HealthCheckRequest(service="sage.executor"))
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.SERVING
            scheduler.refusal = ErrorReason.DUPLICATE_INSTANCE
            session.cut()
            assert (await watch.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
            watch.cancel()


@pytest.mark.parametrize("name", ["", "sage.executor"])
async def test_health_knows_both_names(name: str) -> None:
    async with scripted_scheduler() as scheduler, executor(scheduler.address):
        session = await scheduler.session()
        await session.ready()
        async with grpc.aio.insecure_channel(session.register.address) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

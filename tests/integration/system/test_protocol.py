"""Clients without our stubs, load balancers, and executors one version away."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc

from executor_svc.runtime.engine_port import Sampling
from executor_svc.transport import control_messages
from sage.controlplane.v1 import executor_pb2, executor_pb2_grpc
from sage_client import InstanceState, Tokens
from sage_wire.protocol import OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION
from tests.integration.system.local_fleet import LocalExecutor, LocalFleet
from tests.integration.system.refusals import Refusal, refusal
from tests.support.lost_status import with_status
from tests.support.simulated_answer import answer
from tests.support.token_check import assert_tokens

BUF = Path(sys.executable).parent / "buf"
SERVICE = "sage.controlplane.v1"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


# --- reflection -----------------------------------------------------------------------------------


async def buf_curl(address: str, method: str, message: Mapping[str, Any]) -> tuple[int, str, str]:
    """Call a method knowing nothing but its name: the schema comes from the server.  Exit status, stdout, stderr."""
    process = await asyncio.create_subprocess_exec(
        *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect"),
        *("--data", json.dumps(message), f"http://{address}/{SERVICE}.{method}"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def messages(text: str) -> list[dict[str, Any]]:
    """Concatenated JSON documents."""
    decoder, found, at = json.JSONDecoder(), [], 0
    while at < len(text.rstrip()):
        message, end = decoder.raw_decode(text, at)
        found.append(message)
        at = end + len(text[end:]) - len(text[end:].lstrip())
    return found


async def test_a_client_without_our_stubs_generates_text(fleet: LocalFleet, one: LocalExecutor) -> None:
    spec = {"text": "Once upon a time", "sampling": {"temperature": 0, "maxTokens": 24}}
    status, out, err = await buf_curl(fleet.address, "InferenceService/Generate", {"spec": spec})
    assert status == 0, err
    events = messages(out)
    assert list(events[0]) == ["accepted"]
    assert list(events[1]) == ["scheduled"]
    assert list(events[-1]) == ["finished"]
    tokens = [event["tokens"] for event in events if "tokens" in event]
    wanted = await answer("Once upon a time", Sampling(temperature=0, max_tokens=24))
    assert "".join(each.get("text", "") for each in tokens) == wanted.text
    assert_tokens([t for each in tokens for t in each["tokenIds"]], wanted.token_ids)


async def test_such_a_client_reads_errors_with_their_details(fleet: LocalFleet, one: LocalExecutor) -> None:
    spec = {"text": "Hi", "sampling": {"topP": 7}}
    status, _, err = await buf_curl(fleet.address, "InferenceService/Generate", {"spec": spec})
    assert status != 0
    error = json.loads(err)
    assert error["code"] == "invalid_argument"
    assert "spec.sampling.top_p" in error["message"]
    details = {each["type"]: base64.b64decode(each["value"] + "==") for each in error["details"]}
    info = error_details_pb2.ErrorInfo.FromString(details["google.rpc.ErrorInfo"])
    assert info.reason == "INVALID_REQUEST"
    bad = error_details_pb2.BadRequest.FromString(details["google.rpc.BadRequest"])
    assert [violation.field for violation in bad.field_violations] == ["spec.sampling.top_p"]


async def test_such_a_client_looks_at_the_fleet(fleet: LocalFleet, one: LocalExecutor) -> None:
    status, out, err = await buf_curl(fleet.address, "AdminService/ListInstances", {})
    assert status == 0, err
    [listed] = messages(out)
    assert [(i["instanceId"], i["state"]) for i in listed["instances"]] == [("one", "INSTANCE_STATE_READY")]


async def test_the_executors_own_services_are_found_by_reflection(fleet: LocalFleet, one: LocalExecutor) -> None:
    address = fleet.scheduler.control.scheduler.instance("one").spec.address
    process = await asyncio.create_subprocess_exec(
        *(str(BUF), "curl", "--protocol", "grpc", "--http2-prior-knowledge", "--reflect"),
        *("--data", "{}", f"http://{address}/grpc.health.v1.Health/Check"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert json.loads(out) == {"status": "SERVING"}, err


# --- health ---------------------------------------------------------------------------------------


class Watch:
    """A health Watch call, and what it has said so far."""

    def __init__(self, channel: grpc.aio.Channel, service: str) -> None:
        stub: Any = health_pb2_grpc.HealthStub(channel)
        self._call = stub.Watch(health_pb2.HealthCheckRequest(service=service))

    def close(self) -> None:
        self._call.cancel()

    async def until(self, status: int) -> None:
        async with asyncio.timeout(10):
            while (await self._call.read()).status != status:
                pass


async def test_health_watch_follows_the_fleet(fleet: LocalFleet) -> None:
    channel = fleet.channel()
    watch = Watch(channel, f"{SERVICE}.InferenceService")
    await watch.until(NOT_SERVING)
    executor = await fleet.add("one")
    await watch.until(SERVING)
    executor.terminate()
    await executor.exit_status()
    await watch.until(NOT_SERVING)
    stub: Any = health_pb2_grpc.HealthStub(channel)
    for service in ("", f"{SERVICE}.AdminService", f"{SERVICE}.ExecutorService"):
        assert (await stub.Check(health_pb2.HealthCheckRequest(service=service))).status == SERVING
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.Check(health_pb2.HealthCheckRequest(service="no.such.Service"))
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_health_watch_says_that_the_scheduler_leaves(fleet: LocalFleet, one: LocalExecutor) -> None:
    watch = Watch(fleet.channel(), "")
    await watch.until(SERVING)
    stopping = asyncio.create_task(fleet.stop_scheduler())
    await watch.until(NOT_SERVING)
    watch.close()
    await stopping


async def test_the_executors_health_watch_follows_its_work(fleet: LocalFleet, one: LocalExecutor) -> None:
    address = fleet.scheduler.control.scheduler.instance("one").spec.address
    async with grpc.aio.insecure_channel(address) as channel:
        watch = Watch(channel, "sage.executor")
        await watch.until(SERVING)
        running = fleet.client.generate("Once", max_tokens=100)
        while not isinstance(await anext(running), Tokens):
            pass
        one.terminate()
        await watch.until(NOT_SERVING)
        assert (await running.result()).usage.completion_tokens == 100


# --- versions -------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, PROTOCOL_VERSION + 1])
async def test_an_executor_one_version_away_serves(
    version: int, fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_messages, "PROTOCOL_VERSION", version)
    await fleet.add("one")
    done = await fleet.client.generate("Once", temperature=0, max_tokens=8).result()
    assert_tokens(done.token_ids, (await answer("Once", Sampling(temperature=0, max_tokens=8))).token_ids)


async def register(channel: grpc.aio.Channel, **fields: Any) -> executor_pb2.Welcome | Refusal:
    """What a registration is answered."""
    made = executor_pb2.Register(
        **{"protocol_version": PROTOCOL_VERSION, "instance_id": "odd", "model": "sim", "engine_start_id": "1", **fields}
    )

    async def say() -> AsyncIterator[executor_pb2.ControlRequest]:
        yield executor_pb2.ControlRequest(register=made)
        await asyncio.Event().wait()

    call = executor_pb2_grpc.ExecutorServiceStub(channel).Control(say())
    try:
        response = await call.read()
    except grpc.aio.AioRpcError as error:
        return refusal(error)
    finally:
        call.cancel()
    assert isinstance(response, executor_pb2.ControlResponse)
    return response.welcome


async def test_the_older_of_two_versions_is_agreed_on(fleet: LocalFleet) -> None:
    channel = fleet.channel()
    for version in (OLDEST_PROTOCOL_VERSION, PROTOCOL_VERSION, PROTOCOL_VERSION + 1):
        welcome = await register(channel, protocol_version=version, instance_id=f"v{version}")
        assert isinstance(welcome, executor_pb2.Welcome), welcome
        assert welcome.protocol_version == min(version, PROTOCOL_VERSION)


async def test_an_executor_two_versions_away_is_refused_for_good(fleet: LocalFleet) -> None:
    found = await register(fleet.channel(), protocol_version=PROTOCOL_VERSION + 2)
    assert isinstance(found, Refusal)
    assert (found.code, found.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "PROTOCOL_VERSION")
    assert str(PROTOCOL_VERSION + 2) in found.message


async def test_an_executor_that_is_refused_for_good_ends_and_says_so(
    fleet: LocalFleet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(control_messages, "PROTOCOL_VERSION", PROTOCOL_VERSION + 2)
    executor = fleet.launch("one")
    assert await executor.exit_status() == 5


async def test_a_registration_that_makes_no_sense(fleet: LocalFleet) -> None:
    channel = fleet.channel()
    wrong: list[tuple[str, Any]] = [
        ("instance_id", "no spaces please"),
        ("instance_id", ""),
        ("model", ""),
        ("price_per_hour", float("nan")),
        ("role", 77),
    ]
    for field, value in wrong:
        found = await register(channel, **{field: value})
        assert isinstance(found, Refusal)
        assert (found.code, found.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REGISTRATION")
        assert field in found.message
    assert (await fleet.client.list_instances()).instances == ()


async def test_a_second_executor_of_a_live_ones_id_is_refused(fleet: LocalFleet, one: LocalExecutor) -> None:
    found = await register(fleet.channel(), instance_id="one")
    assert isinstance(found, Refusal)
    assert (found.code, found.reason) == (grpc.StatusCode.ALREADY_EXISTS, "DUPLICATE_INSTANCE")
    assert (await fleet.instance("one")).state is InstanceState.READY
    assert (await fleet.client.generate("Once", max_tokens=2).result()).instance_id == "one"


async def test_a_frame_whose_columns_do_not_agree_ends_the_stream_and_names_the_column(fleet: LocalFleet) -> None:
    welcome, control = await session(fleet)
    outputs = executor_pb2_grpc.ExecutorServiceStub(fleet.channel()).Outputs()
    await outputs.write(executor_pb2.OutputsRequest(hello=executor_pb2.Hello(session_id=welcome.session_id)))
    step = executor_pb2.StepFrame(attempt_numbers=[1, 2], first_indexes=[0, 0], token_ids=[5])
    await outputs.write(executor_pb2.OutputsRequest(step=step))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await outputs.read()
    found = refusal(caught.value)
    assert (found.code, found.message) == (
        grpc.StatusCode.INVALID_ARGUMENT,
        "step.token_ids: has 1 entries; 2 attempts have 2 tokens",
    )
    control.cancel()


async def session(fleet: LocalFleet) -> tuple[executor_pb2.Welcome, Any]:
    """Register an executor that is written by hand.  Welcome, and the control call."""
    control = executor_pb2_grpc.ExecutorServiceStub(fleet.channel()).Control()
    register = executor_pb2.Register(
        protocol_version=PROTOCOL_VERSION, instance_id="by-hand", model="sim", engine_start_id="1"
    )
    await control.write(executor_pb2.ControlRequest(register=register))
    answer = await control.read()
    assert isinstance(answer, executor_pb2.ControlResponse)
    return answer.welcome, control


async def test_an_output_stream_of_no_session_is_refused(fleet: LocalFleet) -> None:
    stub = executor_pb2_grpc.ExecutorServiceStub(fleet.channel())

    async def answer() -> Any:
        call = stub.Outputs()
        await call.write(executor_pb2.OutputsRequest(hello=executor_pb2.Hello(session_id="no-such")))
        return await call.read()

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await with_status(answer)
    assert refusal(caught.value).reason == "UNKNOWN_SESSION"

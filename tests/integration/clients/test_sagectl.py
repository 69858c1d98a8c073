"""The command line against a scheduler that answers as told."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from google.protobuf.duration_pb2 import Duration

from sage.controlplane.v1 import admin_pb2, common_pb2, inference_pb2
from sage_wire.errors import ErrorReason
from sagectl.cli import sagectl
from sagectl.commands.instances import COLUMNS
from sagectl.exit_status import ExitStatus
from tests.integration.clients.fake_scheduler import (
    FakeScheduler,
    accepted,
    always,
    fail,
    instance,
    retry_in,
    scheduled,
    started,
    tokens,
    whole_text,
)
from tests.integration.clients.fake_session import bad_fields

pytestmark = pytest.mark.usefixtures("transport")

Events = AsyncIterator[inference_pb2.GenerateResponse]
Run = Callable[..., Awaitable[Result]]

EVERYTHING = """
generate hello --system brief --model tiny --adapter a --max-tokens 4 --min-tokens 1
--temperature 0 --top-p 0.9 --top-k 5 --min-p 0.1 --presence-penalty 1 --frequency-penalty -1
--repetition-penalty 1.5 --seed 7 -n 1 --stop x --stop y --stop-token-id 3 --ignore-eos
--include-stop-in-output --logprobs 0 --prompt-logprobs 1 --logit-bias 5=-1.5
--cache-salt mine --engine-option a=[1]
--allowed-token-id 5 --bad-word no --special-tokens --priority CRITICAL --deadline 9
--ttft-target 0.5 --tpot-target 0.1 --cost-budget 2 --session s --tag a=b --tag c=d
--preferred-instance i --wait --best-effort --request-id r --detached --tenant acme
"""


@pytest.fixture
def run(scheduler: FakeScheduler) -> Run:
    async def run(*arguments: str, stdin: str | None = None, env: dict[str, str] | None = None) -> Result:
        environment = {"SAGE_SCHEDULER_ADDRESS": scheduler.address, **(env or {})}

        def work() -> Result:
            return CliRunner().invoke(sagectl, list(arguments), input=stdin, env=environment)

        return await asyncio.wait_for(asyncio.to_thread(work), 20)

    return run


def refusing(reason: ErrorReason, message: str, *details: Any) -> Any:
    async def generate(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        await fail(context, reason, message, *details)
        yield accepted(request)

    return generate


async def test_embed_writes_a_line_for_each_text(scheduler: FakeScheduler, run: Run) -> None:
    result = await run("embed", "cats", "dogs", "--model", "m", "--dimensions", "4", "--normalize", "--priority", "low")

    assert (result.exit_code, result.stderr) == (0, "7 tokens by embedder\n")
    assert result.stdout.splitlines()[0] == '"cats": 26 numbers: 1.0000, 0.0000, 1.0000, 0.0000, 0.0000, 0.0000, …'
    (request,) = scheduler.embed_requests
    assert (request.model, request.dimensions, request.normalize) == ("m", 4, True)
    assert request.priority == common_pb2.PRIORITY_LOW


async def test_score_prints_the_closest_text_first(run: Run) -> None:
    result = await run("score", "ab", "xyz", "ba", "--model", "m")

    assert (result.exit_code, result.stderr) == (0, "7 tokens by embedder\n")
    assert result.stdout.splitlines() == [" 1.0000  ba", " 0.0000  xyz"]
    assert json.loads((await run("score", "ab", "xyz", "ab", "--json")).stdout)["scores"] == pytest.approx([0.0, 1.0])


async def test_embed_writes_whole_vectors_as_json(run: Run) -> None:
    found = json.loads((await run("embed", "cats", "dogs", "--json")).stdout)

    assert [sum(vector) for vector in found["embeddings"]] == [4, 4]
    assert (found["model"], found["prompt_tokens"], found["cost"]) == ("embedder", 7, 0.5)


async def test_generate_writes_the_text_and_nothing_else(run: Run) -> None:
    result = await run("generate", "hello", "--max-tokens", "5")

    assert (result.exit_code, result.stdout, result.stderr) == (0, whole_text(5) + "\n", "")


async def test_verbose_says_where_why_and_how_fast_on_stderr(run: Run) -> None:
    result = await run("generate", "hello", "--max-tokens", "5", "-v", "--request-id", "r-1")

    assert result.stdout == whole_text(5) + "\n"
    first, placed, last = result.stderr.splitlines()
    assert "r-1: accepted for tiny, 3 prompt tokens" in first
    assert "executor-1 by fifo: earliest predicted finish 0.00 s" in placed
    assert "TTFT 0.020 s, 40 tokens/s, 1 attempt, ttft met" in last


async def test_json_is_one_event_per_line_with_stable_keys(run: Run) -> None:
    result = await run("generate", "hello", "--max-tokens", "1", "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]

    assert [event["event"] for event in events] == ["accepted", "scheduled", "tokens", "finished"]
    assert events[0].keys() == {
        "event",
        "request_id",
        "model",
        "prompt_tokens",
        "attached",
        "expected_wait_s",
        "warnings",
    }
    assert events[1]["decision"]["phase"] == "hybrid"
    assert events[2]["token_ids"] == [100]
    assert events[3]["finish_reason"] == "length"
    assert events[3]["timings"]["time_to_first_token_s"] == pytest.approx(0.02)


@pytest.mark.parametrize("arguments", [("generate", "-"), ("generate",)])
async def test_the_prompt_may_come_from_stdin(scheduler: FakeScheduler, run: Run, arguments: tuple[str, ...]) -> None:
    await run(*arguments, stdin="from a pipe\n")

    assert scheduler.requests[0].spec.text == "from a pipe\n"


async def test_every_option_arrives(scheduler: FakeScheduler, run: Run, tmp_path: Path) -> None:
    schema = tmp_path / "schema.json"
    schema.write_text('{"type": "object"}')
    scheduler.admin["ListInstances"] = always(admin_pb2.ListInstancesResponse(instances=[instance("i")]))
    result = await run(*shlex.split(EVERYTHING), "--json-schema", f"@{schema}")
    request = scheduler.requests[0]
    spec, sampling = request.spec, request.spec.sampling

    assert result.exit_code == 0, result.output
    assert (request.request_id, request.tenant, request.detached) == ("r", "acme", True)
    assert [m.role for m in spec.chat.messages] == ["system", "user"]
    assert (spec.model, spec.adapter, spec.session, spec.preferred_instance) == ("tiny", "a", "s", "i")
    assert (spec.priority, spec.cost_budget) == (common_pb2.PRIORITY_CRITICAL, 2)
    assert (spec.deadline.seconds, spec.ttft_target.nanos) == (9, 500_000_000)
    assert (dict(spec.tags), spec.no_instance) == ({"a": "b", "c": "d"}, inference_pb2.NO_INSTANCE_WAIT)
    assert spec.resume_mode == inference_pb2.RESUME_MODE_BEST_EFFORT
    said = {field.name for field, _ in sampling.ListFields()}
    assert said == set(common_pb2.SamplingParams.DESCRIPTOR.fields_by_name)
    assert (list(sampling.stop), dict(sampling.logit_bias)) == (["x", "y"], {5: -1.5})
    assert (sampling.cache_salt, dict(sampling.engine_options)) == ("mine", {"a": "[1]"})
    assert not sampling.skip_special_tokens
    assert sampling.structured_output.json_schema == '{"type": "object"}'


@pytest.mark.parametrize(
    ("given", "meant"),
    [("exec", "executor-1"), ("executor-1", "executor-1"), ("gpu-1", "gpu-1"), ("other", "other")],
)
async def test_a_preferred_instance_is_named_by_the_beginning_of_its_id(
    scheduler: FakeScheduler, run: Run, given: str, meant: str
) -> None:
    there = [instance(each) for each in ("executor-1", "gpu-1", "gpu-10")]
    scheduler.admin["ListInstances"] = always(admin_pb2.ListInstancesResponse(instances=there))
    result = await run("generate", "Once", "--preferred-instance", given)
    assert result.exit_code == 0, result.output
    assert scheduler.requests[0].spec.preferred_instance == meant


async def test_a_preferred_instance_that_may_be_several_is_refused_with_their_names(
    scheduler: FakeScheduler, run: Run
) -> None:
    there = [instance(each) for each in ("gpu-1", "gpu-10")]
    scheduler.admin["ListInstances"] = always(admin_pb2.ListInstancesResponse(instances=there))
    result = await run("generate", "Once", "--preferred-instance", "gpu")
    assert result.exit_code == ExitStatus.INVALID
    assert "'gpu' is the beginning of 2 instances: gpu-1, gpu-10" in result.stderr
    assert not scheduler.requests


async def test_a_caller_that_may_not_list_instances_names_the_whole_id(scheduler: FakeScheduler, run: Run) -> None:
    async def denied(request: Any, context: Any) -> None:
        await fail(context, ErrorReason.PERMISSION_DENIED, "not yours")

    scheduler.admin["ListInstances"] = denied
    result = await run("generate", "Once", "--preferred-instance", "executor-1")
    assert result.exit_code == 0, result.output
    assert scheduler.requests[0].spec.preferred_instance == "executor-1"


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        (["--json-object"], "json_object"),
        (["--regex", "a+"], "regex"),
        (["--choice", "yes", "--choice", "no"], "choice"),
        (["--grammar", "root ::= 'a'"], "grammar"),
        (["--structural-tag", '{"format": {}}'], "structural_tag"),
    ],
)
async def test_structured_output(scheduler: FakeScheduler, run: Run, arguments: list[str], kind: str) -> None:
    await run("generate", "hello", *arguments)

    assert scheduler.requests[0].spec.sampling.structured_output.WhichOneof("kind") == kind


async def test_what_is_not_said_is_not_sent(scheduler: FakeScheduler, run: Run) -> None:
    await run("generate", "hello")

    spec = scheduler.requests[0].spec
    assert spec.sampling == common_pb2.SamplingParams()
    assert spec.WhichOneof("prompt") == "text"


async def test_token_ids_stand_for_the_prompt(scheduler: FakeScheduler, run: Run) -> None:
    await run("generate", "--token-ids", "1,2,3")
    both = await run("generate", "hello", "--token-ids", "1")

    assert list(scheduler.requests[0].spec.tokens.ids) == [1, 2, 3]
    assert both.exit_code == ExitStatus.INVALID


async def test_every_field_at_fault_is_on_one_line_and_named_by_its_flag(scheduler: FakeScheduler, run: Run) -> None:
    fields = bad_fields(spec__sampling__top_p="is 7", spec__no_instance="is 9", spec__text="is empty")
    scheduler.generate = refusing(ErrorReason.INVALID_REQUEST, "invalid", fields)
    result = await run("generate", "", "--top-p", "7")

    assert result.exit_code == ExitStatus.INVALID
    assert result.stderr == "error: --top-p: is 7; --wait: is 9; PROMPT: is empty\n"
    assert result.stdout == ""


async def test_an_error_in_json(scheduler: FakeScheduler, run: Run) -> None:
    scheduler.generate = refusing(ErrorReason.QUEUE_FULL, "full", retry_in(2))
    result = await run("generate", "hello", "--json", "--request-id", "r")

    assert result.exit_code == ExitStatus.QUEUE_FULL
    assert json.loads(result.stdout) == {
        "error": {
            "reason": "QUEUE_FULL",
            "status": "RESOURCE_EXHAUSTED",
            "message": "full",
            "request_id": "r",
            "violations": [],
            "retry_after_s": 2.0,
        }
    }
    assert result.stderr == "error: full (try again in 2.0 s)\n"


@pytest.mark.parametrize(
    ("reason", "status"),
    [
        (ErrorReason.UNKNOWN_MODEL, 4),
        (ErrorReason.REQUEST_CONFLICT, 5),
        (ErrorReason.NO_INSTANCE, 3),
        (ErrorReason.SHUTTING_DOWN, 3),
        (ErrorReason.DEADLINE_EXCEEDED, 7),
        (ErrorReason.CANCELLED, 8),
        (ErrorReason.GENERATION_FAILED, 9),
        (ErrorReason.UNAUTHENTICATED, 10),
        (ErrorReason.NOT_IMPLEMENTED, 11),
        (ErrorReason.INTERNAL, 1),
    ],
)
async def test_the_exit_status_says_what_went_wrong(
    scheduler: FakeScheduler, run: Run, reason: ErrorReason, status: int
) -> None:
    scheduler.generate = refusing(reason, "it went wrong")
    result = await run("generate", "hello")

    assert (result.exit_code, result.stderr) == (status, "error: it went wrong\n")


def test_the_help_lists_every_exit_status() -> None:
    text = CliRunner().invoke(sagectl, ["--help"]).output

    listed = {line.split()[0] for line in text.partition("Exit status:")[2].splitlines() if line.strip()}
    assert listed == {str(int(status)) for status in ExitStatus}


async def test_a_scheduler_that_is_not_there_is_named() -> None:
    fake = await started()
    await fake.stop()
    result = await asyncio.to_thread(
        CliRunner().invoke, sagectl, ["instances", "--address", fake.address], catch_exceptions=False
    )

    assert result.exit_code == ExitStatus.UNAVAILABLE
    assert result.stderr.startswith(f"error: cannot reach the scheduler at {fake.address}: ")
    assert result.stderr.count("\n") == 1


async def test_tls_is_suggested_where_a_connection_without_it_is_closed() -> None:
    def close(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()  # as a listener with TLS does, which tells no reason

    async with await asyncio.start_server(close, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        result = await asyncio.to_thread(CliRunner().invoke, sagectl, ["instances", "--address", f"{host}:{port}"])

    assert result.exit_code == ExitStatus.UNAVAILABLE
    assert result.stderr.endswith("; if it uses TLS, give --tls-ca or --tls\n"), result.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["generate", "hi", "--priority", "urgent"], "'urgent' is not one of"),
        (["generate", "hi", "--tag", "x"], "'x' is not KEY=VALUE"),
        (["generate", "hi", "--logit-bias", "x"], "'x' is not TOKEN_ID=BIAS"),
        (["generate", "hi", "--token-ids", "a"], "'a' is not a list of token ids"),
        (["generate", "hi", "--grammar", "@/no/such/file"], "cannot read /no/such/file"),
        (["instances", "--address", "nowhere"], "'nowhere' is not host:port: give an address"),
        (["instances", "--address", "10.0.0.1:1"], "authority (--tls-ca), use the system's (--tls)"),
        (["instances", "--address", "10.0.0.1:1"], "without TLS (--insecure)"),
        (["instances", "--token-file", "/no/such/file"], "/no/such/file"),
        (["generate", "hi", "--max-tokens", "-4"], "'--max-tokens': -4 is not in the range 1<=x<=4294967295"),
        (["generate", "hi", "--after-token", "-1"], "'--after-token': -1 is not in the range 0<=x"),
        (["generate", "hi", "--deadline", "inf"], "error: --deadline: "),
    ],
)
async def test_wrong_usage(run: Run, arguments: list[str], said: str) -> None:
    result = await run(*arguments)

    assert result.exit_code == ExitStatus.INVALID
    assert said in result.stderr


async def test_an_error_after_part_of_the_output_is_on_a_line_of_its_own(scheduler: FakeScheduler, run: Run) -> None:
    async def breaks(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        yield tokens(0)
        await fail(context, ErrorReason.DEADLINE_EXCEEDED, "the deadline passed")

    scheduler.generate = breaks
    result = await run("generate", "hi")

    assert result.output == f"{whole_text(1)}\nerror: the deadline passed\n"


async def test_the_token_comes_from_flag_file_or_variable(scheduler: FakeScheduler, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("from-file\n")
    await run("generate", "hi", "--token", "from-flag")
    await run("generate", "hi", "--token-file", str(file))
    await run("generate", "hi", env={"SAGE_TOKEN": "from-variable"})

    sent = [metadata["authorization"] for metadata in scheduler.metadata]
    assert sent == ["Bearer from-flag", "Bearer from-file", "Bearer from-variable"]


async def test_instances_are_a_table_or_json(scheduler: FakeScheduler, run: Run) -> None:
    loading = instance("executor-2", state=common_pb2.INSTANCE_STATE_LOADING, progress=0.4)
    queue = admin_pb2.QueueInfo(model="tiny", waiting=3, limit=10, waiting_by_priority={"critical": 3})
    view = admin_pb2.ListInstancesResponse(instances=[instance(), loading], queues=[queue])
    scheduler.admin["ListInstances"] = always(view)
    table = await run("instances")
    document = json.loads((await run("instances", "--json")).stdout)

    assert "executor-1" in table.stdout
    assert "loading 40%" in table.stdout
    assert "critical 3" in table.stdout
    assert [each["state"] for each in document["instances"]] == ["ready", "loading"]
    assert document["queues"][0] == {
        "model": "tiny",
        "waiting": 3,
        "limit": 10,
        "waiting_by_priority": {"critical": 3},
    }


async def test_models_are_a_table_or_json(scheduler: FakeScheduler, run: Run) -> None:
    scheduler.models = [
        inference_pb2.ModelView(model="tiny", instances=2, ready_instances=1, waiting=3, adapters=["legal"]),
        inference_pb2.ModelView(model="tiny-embedding", embeds=True, max_model_len=512),
    ]
    found = json.loads((await run("models", "--json")).stdout)
    table = (await run("models")).stdout

    assert [(each["name"], each["embeds"]) for each in found] == [("tiny", False), ("tiny-embedding", True)]
    assert (found[0]["ready"], found[0]["instances"], found[0]["waiting"], found[0]["adapters"]) == (1, 2, 3, ["legal"])
    assert " 1/2 " in table
    assert "generate" in table


async def test_no_models_is_said(scheduler: FakeScheduler, run: Run) -> None:
    assert "no instance has registered" in (await run("models")).stdout


LONG_ID = "executor-of-the-eastern-hall-17"
TERMINAL = {"FORCE_COLOR": "1", "TERM": "xterm", "NO_COLOR": "1"}


@pytest.mark.parametrize("width", [60, 80, 100, 160])
async def test_a_narrow_terminal_leaves_out_columns_but_cuts_no_id_no_role_and_no_state(
    scheduler: FakeScheduler, run: Run, width: int
) -> None:
    downloading = instance(
        LONG_ID, state=common_pb2.INSTANCE_STATE_DOWNLOADING, progress=0.4, state_reason="fetching its model " * 4
    )
    ready = instance(role=common_pb2.INSTANCE_ROLE_PREFILLING, engine_version="0.11.0+cpu", price_per_hour=1.25)
    scheduler.admin["ListInstances"] = always(admin_pb2.ListInstancesResponse(instances=[ready, downloading]))
    text = (await run("instances", env={**TERMINAL, "COLUMNS": str(width)})).stdout
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)

    assert max(map(len, plain.splitlines())) <= width
    assert LONG_ID in plain
    assert "downloading 40%" in plain
    assert "…" not in plain
    assert "prefilling" in plain
    left_out = plain.partition("not shown in ")[2]
    assert ("engine" in left_out) == (width < 160)
    assert all(column in left_out or column.upper() in plain for column in ("engine", "price/h"))


@pytest.mark.parametrize("env", [{**TERMINAL, "COLUMNS": "140"}, {"COLUMNS": "40"}])
async def test_a_wide_terminal_and_a_pipe_get_every_column(
    scheduler: FakeScheduler, run: Run, env: dict[str, str]
) -> None:
    there = instance(engine_version="0.11.0+cpu", state_reason="its engine is ready", price_per_hour=1.25)
    scheduler.admin["ListInstances"] = always(admin_pb2.ListInstancesResponse(instances=[there]))
    text = (await run("instances", env=env)).stdout

    assert "not shown" not in text
    assert all(column.upper() in text for column in COLUMNS)


async def test_one_instance_shows_its_role(scheduler: FakeScheduler, run: Run) -> None:
    decoding = instance(role=common_pb2.INSTANCE_ROLE_DECODING)
    scheduler.admin["GetInstance"] = always(admin_pb2.GetInstanceResponse(instance=decoding))

    assert " decoding " in (await run("instances", "executor-1")).stdout


async def test_one_instance(scheduler: FakeScheduler, run: Run) -> None:
    scheduler.admin["GetInstance"] = always(admin_pb2.GetInstanceResponse(instance=instance()))
    result = await run("instances", "executor-1", "--json")

    assert json.loads(result.stdout)["instances"][0]["instance_id"] == "executor-1"


async def test_drain_and_resume(scheduler: FakeScheduler, run: Run) -> None:
    draining = instance(state=common_pb2.INSTANCE_STATE_DRAINING, assigned=2)
    scheduler.admin["DrainInstance"] = always(admin_pb2.DrainInstanceResponse(instance=draining))
    scheduler.admin["ResumeInstance"] = always(admin_pb2.ResumeInstanceResponse(instance=instance()))

    drained = await run("drain", "executor-1")
    resumed = json.loads((await run("resume", "executor-1", "--json")).stdout)

    assert drained.stdout == "executor-1: draining, 2 requests in flight\n"
    assert resumed["state"] == "ready"


async def test_sleep_and_wake(scheduler: FakeScheduler, run: Run) -> None:
    sleeping = instance(state=common_pb2.INSTANCE_STATE_SLEEPING)
    scheduler.admin["SleepInstance"] = always(admin_pb2.SleepInstanceResponse(instance=sleeping))
    waking = instance(state=common_pb2.INSTANCE_STATE_SLEEPING, state_reason="wakes up")
    scheduler.admin["WakeInstance"] = always(admin_pb2.WakeInstanceResponse(instance=waking))

    asleep = await run("sleep", "executor-1")
    woken = json.loads((await run("wake", "executor-1", "--json")).stdout)

    assert asleep.stdout.startswith("executor-1: sleeping")
    assert (await run("wake", "executor-1")).stdout.startswith("executor-1: sleeping (wakes up), ")
    assert woken["state"] == "sleeping"


WHY = "the database is full"


@pytest.mark.parametrize(
    ("command", "rpc", "answer"),
    [
        (
            "drain executor-1",
            "DrainInstance",
            admin_pb2.DrainInstanceResponse(instance=instance(decision=admin_pb2.InstanceDecision(not_kept=WHY))),
        ),
        (
            "role executor-1 decoding",
            "SetInstanceRole",
            admin_pb2.SetInstanceRoleResponse(instance=instance(decision=admin_pb2.InstanceDecision(not_kept=WHY))),
        ),
        ("policy get", "GetPolicy", admin_pb2.GetPolicyResponse(policy="fifo", decided=True, not_kept=WHY)),
        ("policy set fifo", "SetPolicy", admin_pb2.SetPolicyResponse(policy="fifo", not_kept=WHY)),
        ("policy shadow fifo", "SetShadowPolicy", admin_pb2.SetShadowPolicyResponse(policy="fifo", not_kept=WHY)),
        ("pd set never", "SetPrefillDecode", admin_pb2.SetPrefillDecodeResponse(not_kept=WHY)),
    ],
)
async def test_a_decision_that_a_restart_would_forget_is_warned_of(
    scheduler: FakeScheduler, run: Run, command: str, rpc: str, answer: Any
) -> None:
    scheduler.admin[rpc] = always(answer)
    assert f"a restart would forget it: {WHY}\n" in (await run(*command.split())).stderr


async def test_policy_get_and_set(scheduler: FakeScheduler, run: Run) -> None:
    status = admin_pb2.GetPolicyResponse(
        policy="adaptive", delegate="fifo", available=[admin_pb2.PolicyInfo(name="fifo", summary="arrival")]
    )
    scheduler.admin["GetPolicy"] = always(status)
    scheduler.admin["SetPolicy"] = always(admin_pb2.SetPolicyResponse(policy="fifo", previous="adaptive", reordered=2))
    shown = await run("policy", "get")
    document = json.loads((await run("policy", "get", "--json")).stdout)
    changed = await run("policy", "set", "fifo", "--reason", "test")

    assert shown.stdout.startswith("current: adaptive (now fifo)\n")
    assert document.keys() == {
        "policy",
        "delegate",
        "available",
        "switches",
        "configured",
        "decided",
        "not_kept",
    }
    assert changed.stdout == "adaptive -> fifo; 2 waiting requests reordered\n"
    assert scheduler.asked[-1].reason == "test"


async def test_policy_shadow_shows_the_comparison(scheduler: FakeScheduler, run: Run) -> None:
    shadow = admin_pb2.ShadowPolicy(
        policy="adaptive",
        delegate="cost_optimized",
        in_force="fifo",
        age=Duration(seconds=60),
        compared=200,
        same=150,
        not_compared=3,
        chosen=admin_pb2.PredictedMeans(first_token=Duration(seconds=2), finish=Duration(seconds=4), cost=0.0),
        shadow=admin_pb2.PredictedMeans(first_token=Duration(seconds=3), finish=Duration(seconds=4), cost=0.5),
    )
    scheduler.admin["GetShadowPolicy"] = always(admin_pb2.GetShadowPolicyResponse(shadow=shadow))
    shown = (await run("policy", "shadow")).stdout
    document = json.loads((await run("policy", "shadow", "--json")).stdout)
    assert shown.startswith(
        "shadow policy: adaptive (now cost_optimized), beside fifo for 60 s\n"
        "200 decisions compared, 75.0% to the same instance; 3 not compared\n"
    )
    assert re.search(r"first token, s \W+2 \W+3 \W+50.0%", shown)
    assert re.search(r"cost per request \W+0 \W+0.5 ", shown)
    assert document["shadow"]["first_token_s"] == 3


async def test_policy_shadow_says_that_it_is_off_new_or_failed(scheduler: FakeScheduler, run: Run) -> None:
    scheduler.admin["GetShadowPolicy"] = always(admin_pb2.GetShadowPolicyResponse())
    assert (await run("policy", "shadow")).stdout == "shadow policy: off\n"
    assert json.loads((await run("policy", "shadow", "--json")).stdout) is None
    shadow = admin_pb2.ShadowPolicy(policy="mine", in_force="fifo", age=Duration(seconds=1), failure="KeyError: 'a'")
    scheduler.admin["GetShadowPolicy"] = always(admin_pb2.GetShadowPolicyResponse(shadow=shadow))
    assert (await run("policy", "shadow")).stdout == (
        "shadow policy: mine, beside fifo for 1 s\nswitched off, it failed: KeyError: 'a'\nno decision compared yet\n"
    )


@pytest.mark.parametrize(("name", "asked"), [("priority", "priority"), ("off", "")])
async def test_policy_shadow_sets_it(scheduler: FakeScheduler, run: Run, name: str, asked: str) -> None:
    answer = admin_pb2.SetShadowPolicyResponse(policy=asked, previous="")
    scheduler.admin["SetShadowPolicy"] = always(answer)
    assert (await run("policy", "shadow", name)).stdout == f"shadow policy: off -> {name}\n"
    assert scheduler.asked[-1].policy == asked


async def test_a_policy_with_a_warning_stands_apart_and_is_warned_of(scheduler: FakeScheduler, run: Run) -> None:
    warning = "random is for comparison, not for service: it ignores load"
    scheduler.admin["GetPolicy"] = always(
        admin_pb2.GetPolicyResponse(
            policy="fifo",
            available=[
                admin_pb2.PolicyInfo(name="fifo", summary="arrival"),
                admin_pb2.PolicyInfo(name="random", summary="any", warning=warning),
            ],
        )
    )
    scheduler.admin["SetPolicy"] = always(
        admin_pb2.SetPolicyResponse(policy="random", previous="fifo", reordered=2, warning=warning)
    )
    shown = await run("policy", "get")
    changed = await run("policy", "set", "random")
    document = json.loads((await run("policy", "set", "random", "--json")).stdout)

    without, _, apart = shown.stdout.partition("for comparison, not for service")
    assert "random" not in without
    assert [line.split() for line in apart.splitlines()[1:]] == [
        ["NAME", "WHAT", "IT", "DOES", "IGNORES"],
        ["random", "any", "load"],
    ]
    assert changed.stdout == "fifo -> random; 2 waiting requests reordered\n"
    assert changed.stderr == f"warning: {warning}\n"
    assert document["warning"] == warning


async def test_explain_shows_history_candidates_and_reasons(scheduler: FakeScheduler, run: Run) -> None:
    answer = admin_pb2.ExplainResponse(
        request_id="r",
        model="tiny",
        state=inference_pb2.REQUEST_STATE_QUEUED,
        waiting_because="all 2 instances full",
        queue_position=4,
        ordering_key="arrival",
        history=[admin_pb2.HistoryEntry(event="accepted", detail="3 prompt tokens")],
        prompt_tokens=3,
        time_slices=[admin_pb2.TimeSlice(use=admin_pb2.TIME_USE_QUEUE, length=Duration(seconds=2))],
    )
    answer.decisions.append(scheduled().scheduled.decision)
    answer.decisions[0].candidates.add(instance_id="executor-1", chosen=True, scores={"start_s": 1.5})
    answer.decisions[0].candidates.add(instance_id="executor-2", filtered_by="room", filter_reason="4 of 4 [sequences]")
    scheduler.admin["Explain"] = always(answer)
    shown = (await run("explain", "r")).stdout
    document = json.loads((await run("explain", "r", "--json")).stdout)

    for part in (
        "r: queued (tiny, normal, 3 prompt + 0 output tokens)",
        "position 4 in the queue, ordered by arrival",
        "waits because: all 2 instances full",
        "3 prompt tokens",
        "decision 1: on executor-1",
        "fifo decided",
        "earliest predicted finish 0.00 s",
        "▸ executor-1",
        "where the time went: 2.000 s",
        "room: 4 of 4 [sequences]",
    ):
        assert part in shown
    assert document["decisions"][0]["candidates"][0]["scores"] == {"start_s": 1.5}
    assert document["time_slices"] == [{"use": "queue", "start_s": 0.0, "length_s": 2.0, "instance_id": ""}]
    assert "\x1b" not in shown, "no colours in a pipe"
    assert not [line for line in shown.splitlines() if line != line.rstrip()]


async def test_cancel(scheduler: FakeScheduler, run: Run) -> None:
    plain = await run("cancel", "r", "--reason", "enough")
    document = json.loads((await run("cancel", "r", "--json")).stdout)

    assert plain.stdout == "r: cancelled\n"
    assert scheduler.cancels[0].reason == "enough"
    assert document == {"request_id": "r", "cancelled": True, "state": "cancelled"}


@pytest.mark.parametrize("detached", [False, True])
async def test_ctrl_c_after_the_first_text(scheduler: FakeScheduler, detached: bool) -> None:
    async def one_token(request: inference_pb2.GenerateRequest, context: Any) -> Events:
        yield accepted(request)
        yield tokens(0)
        await asyncio.Event().wait()

    scheduler.generate = one_token
    command = [sys.executable, "-m", "sagectl", "generate", "hi", "--request-id", "r"]
    process = await asyncio.create_subprocess_exec(
        *command,
        *(["--detached"] if detached else []),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "SAGE_SCHEDULER_ADDRESS": scheduler.address},
    )
    assert process.stdout is not None
    text = await asyncio.wait_for(process.stdout.readexactly(2), 20)  # it streams: the request has not ended
    process.send_signal(signal.SIGINT)
    _, stderr = await asyncio.wait_for(process.communicate(), 20)
    await asyncio.wait_for(scheduler.left.wait(), 5)

    assert (text.decode(), process.returncode) == (whole_text(1), ExitStatus.INTERRUPTED)
    assert [cancel.request_id for cancel in scheduler.cancels] == ([] if detached else ["r"])
    assert ("keeps running" if detached else "request r cancelled") in stderr.decode()

"""One tree into vLLM, one page with vLLM's metrics."""

from __future__ import annotations

import json
import re
import uuid
from pathlib import Path

import grpc
import pytest

from executor_svc.engine.tiny_model import make_tiny_model
from sage.controlplane.v1 import common_pb2, inference_pb2, inference_pb2_grpc
from sage_telemetry.catalogue import BOTH, EXECUTOR
from tests.integration.telemetry.otlp_receiver import OtlpReceiver
from tests.integration.telemetry.scraped_page import scrape
from tests.support.engine_process import ONE_PROCESS
from tests.support.fleet_processes import FleetProcesses
from tests.support.free_port import free_port

pytestmark = [pytest.mark.vllm]

ROOT = Path(__file__).parents[3]
UP_WITHIN_S = 240.0
SECRET = "Xyzzy plugh"
TOKENS = 24  # of the output
TRACE, SPAN = uuid.uuid4().hex, uuid.uuid4().hex[:16]


async def test_vllms_span_is_in_the_tree_and_its_metrics_on_the_page(tmp_path: Path) -> None:
    model = ROOT / ".cache" / "tiny-model-float32"
    make_tiny_model(model, "float32")
    port = free_port()
    async with OtlpReceiver() as receiver:
        telemetry = ["--telemetry.otlp-endpoint", receiver.endpoint]
        async with FleetProcesses(tmp_path, ["--policy", "fifo", *telemetry]) as fleet:
            page = ["--telemetry.metrics-listen", f"127.0.0.1:{port}"]
            flags = [*engine_flags(model), *telemetry, *page, "--log-format", "json"]
            executor = fleet.launch("one", flags, environment=ONE_PROCESS)
            await fleet.ready("one", within_s=UP_WITHIN_S)
            before = await scrape(port)  # vLLM counts what its speed was measured with, too
            output = await generate(fleet.address)
            tree = await receiver.until(TRACE, "sage.request", "sage.execute", "llm_request")
            metrics = await scrape(port)

    def grown(name: str, **labels: str) -> float:
        return metrics.total(name, **labels) - before.total(name, **labels)

    assert_logged_in_json(executor.log())
    assert tree.one("llm_request").parent_id == tree.one("sage.execute").span_id
    assert tree.one("sage.execute").parent_id == tree.one("sage.attempt").span_id
    assert tree.one("sage.attempt").parent_id == tree.one("sage.request").span_id
    assert tree.one("sage.request").parent_id == SPAN
    assert (tree.one("llm_request").service, tree.one("sage.execute").service) == ("vllm", "sage-executor")
    assert len(output) > 8
    in_json = json.dumps(output, ensure_ascii=False)[1:-1]
    assert not any(text in log for log in (executor.log(), fleet.scheduler.log()) for text in (SECRET, output, in_json))
    assert not any(word.encode() in raw for raw in receiver.raw for word in (SECRET, output))
    assert grown("vllm:generation_tokens_total") == TOKENS
    assert grown("sage_engine_tokens_total", kind="generation") == TOKENS
    assert grown("sage_engine_inter_token_latency_seconds_count") > 0
    assert [
        each.name for each in (*BOTH, *EXECUTOR) if each.prometheus_name.removesuffix("_total") not in metrics.families
    ] == []


def assert_logged_in_json(log: str) -> None:
    """What goes past Python's logging, as native code's warnings do, is as it is."""
    lines = [json.loads(line) for line in log.splitlines() if line.startswith("{")]
    assert {line["instance"] for line in lines} == {"one"}
    loggers = {line["logger"] for line in lines}
    assert {"executor_svc.runtime.service", "vllm.v1.engine.core_client"} <= loggers, "of the executor's own process"
    assert "vllm.v1.engine.core" in loggers, "of the engine's process"
    assert not re.search(r"^(\(.*\) )?(INFO|WARNING|ERROR) \d\d-\d\d", log, re.MULTILINE), "vLLM's own way of logging"


def engine_flags(model: Path) -> list[str]:
    return [
        *("--model", str(model), "--engine.model.served-name", "tiny"),
        *("--engine.vllm.dtype", "float32", "--engine.vllm.enforce-eager", "--engine.vllm.cpu-cores", "0"),
        *("--engine.vllm.max-model-len", "1024", "--engine.vllm.kv-cache-bytes", str(64 << 20)),
    ]


async def generate(address: str) -> str:
    sampling = common_pb2.SamplingParams(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    request = inference_pb2.GenerateRequest(spec=inference_pb2.GenerationSpec(text=SECRET, sampling=sampling))
    async with grpc.aio.insecure_channel(address) as channel:
        call = inference_pb2_grpc.InferenceServiceStub(channel).Generate(
            request, metadata=(("traceparent", f"00-{TRACE}-{SPAN}-01"),)
        )
        return "".join([event.tokens.text async for event in call])

"""vLLM's own load generator runs against the gateway unchanged."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from sage_client import AsyncClient
from sage_gateway.model_directory import write_model
from tests.vllm.gateway.gateway_fleet import MODEL, VECTORS, GatewayProcess

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(200)]

REQUESTS = 12
PROGRAM = """
from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
serve.add_cli_args(parser)
serve.main(parser.parse_args())
"""


@pytest.mark.parametrize(
    ("backend", "path", "model", "dataset"),
    [
        ("openai", "/v1/completions", MODEL, "random"),
        ("openai-chat", "/v1/chat/completions", MODEL, "random"),
        ("openai-embeddings", "/v1/embeddings", VECTORS, "random"),
        ("vllm-rerank", "/v1/rerank", VECTORS, "random-rerank"),
    ],
)
async def test_vllms_benchmark_gets_all_its_answers(
    client: AsyncClient, gateway: GatewayProcess, tmp_path: Path, backend: str, path: str, model: str, dataset: str
) -> None:
    write_model(await client.get_model_files(model), tmp_path)
    flags = [
        *("--backend", backend, "--base-url", gateway.url, "--endpoint", path, "--model", model),
        *("--tokenizer", str(tmp_path), "--dataset-name", dataset, "--random-input-len", "32"),
        *("--num-prompts", str(REQUESTS), "--disable-tqdm"),
        *("--save-result", "--result-dir", str(tmp_path), "--result-filename", "result.json"),
    ]
    if dataset == "random":
        flags += ["--random-output-len", "8"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, *flags), stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result.get("failed", 0)) == (REQUESTS, 0)

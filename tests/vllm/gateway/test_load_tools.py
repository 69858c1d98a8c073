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

pytestmark = [pytest.mark.vllm]

REQUESTS = 12
PROGRAM = """
import json, sys
from vllm.benchmarks import serve
from vllm.utils.argparse_utils import FlexibleArgumentParser

parser = FlexibleArgumentParser()
serve.add_cli_args(parser)
for flags in json.loads(sys.argv[1]):
    serve.main(parser.parse_args(flags))
"""
"""All runs in one process: to import vLLM takes longer than they do."""

RUNS = (  # backend, path, model, data set
    ("openai", "/v1/completions", MODEL, "random"),
    ("openai-chat", "/v1/chat/completions", MODEL, "random"),
    ("openai-embeddings", "/v1/embeddings", VECTORS, "random"),
    ("vllm-rerank", "/v1/rerank", VECTORS, "random-rerank"),
)


async def test_vllms_benchmark_gets_all_its_answers(
    client: AsyncClient, gateway: GatewayProcess, tmp_path: Path
) -> None:
    for model in (MODEL, VECTORS):
        (tmp_path / model).mkdir()
        write_model(await client.get_model_files(model), tmp_path / model)
    runs = [flags(gateway.url, tmp_path, *run) for run in RUNS]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, json.dumps(runs)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-3000:]
    results = {backend: json.loads((tmp_path / f"{backend}.json").read_text()) for backend, *_ in RUNS}
    counted = {backend: (result["completed"], result.get("failed", 0)) for backend, result in results.items()}
    assert counted == {backend: (REQUESTS, 0) for backend, *_ in RUNS}


def flags(url: str, folder: Path, backend: str, path: str, model: str, dataset: str) -> list[str]:
    """Return the flags of one run, whose result goes to a file named for the backend."""
    lengths = ("--random-input-len", "32", *(("--random-output-len", "8") if dataset == "random" else ()))
    return [
        *("--backend", backend, "--base-url", url, "--endpoint", path, "--model", model),
        *("--tokenizer", str(folder / model), "--dataset-name", dataset, *lengths),
        *("--num-prompts", str(REQUESTS), "--request-id-prefix", f"{backend}-", "--disable-tqdm"),
        *("--save-result", "--result-dir", str(folder), "--result-filename", f"{backend}.json"),
    ]

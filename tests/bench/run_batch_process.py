"""The other arm of ``batch.py``: vLLM's run-batch with its engine kept up.  Run as a child.

Reads a line of engine settings as JSON, then a line for each batch, "INPUT OUTPUT"; answers each with the seconds that
vLLM's ``run_batch`` took: reading, running and writing.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from argparse import Namespace
from typing import Any

from executor_svc.engine.settings import EngineSettings
from executor_svc.engine.vllm.arguments import set_environment

READY = "run-batch: ready"
RESULT = "run-batch: seconds "


def _arguments(settings: EngineSettings, model: str) -> list[str]:
    vllm = settings.vllm
    found = ["-i", "none", "-o", "none", "--model", settings.model.model, "--served-model-name", model]
    found += ["--dtype", "float32", "--max-model-len", str(vllm.max_model_len), "--max-num-seqs", str(vllm.max_running)]
    found += ["--kv-cache-memory-bytes", str(vllm.kv_cache_bytes), "--enforce-eager", "--no-enable-log-requests"]
    return found


async def _serve(arguments: Namespace) -> None:
    from vllm.entrypoints.launchers.api_server.entry import build_async_engine_client
    from vllm.entrypoints.launchers.run_batch import run_batch

    async with build_async_engine_client(arguments) as engine:
        print(READY, flush=True)
        while line := (await asyncio.to_thread(sys.stdin.readline)).strip():
            arguments.input_file, arguments.output_file = line.split()
            begun = time.perf_counter()
            await run_batch(engine, arguments)
            print(f"{RESULT}{time.perf_counter() - begun}", flush=True)


def main() -> None:
    """Answer until the standard input ends."""
    settings = EngineSettings.model_validate_json(sys.stdin.readline())
    set_environment(settings.vllm, os.environ)
    from vllm.entrypoints.launchers.run_batch import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    parser: Any = make_arg_parser(FlexibleArgumentParser())
    asyncio.run(_serve(parser.parse_args(_arguments(settings, sys.argv[1]))))


if __name__ == "__main__":
    main()

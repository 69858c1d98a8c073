"""vLLM itself, asked directly: ``python -m tests.vllm.system.reference MODEL OUT``.

Writes a JSON object: by the case's name its token_ids, text and, where asked for, logprobs (token id to value, per
token).  Engine arguments are those of the fleet's executors.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any

from tests.vllm.system.cases import CASES, Case
from tests.vllm.system.engine_settings import KV_CACHE_BYTES, MAX_MODEL_LEN, MAX_RUNNING


def main(model: str, out: Path) -> None:
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the engine core in this process
    os.environ["VLLM_CPU_OMP_THREADS_BIND"] = "0"
    os.environ["VLLM_NO_USAGE_STATS"] = "1"
    if shutil.which(os.environ.get("CXX", "g++")) is None:
        os.environ["TORCHDYNAMO_DISABLE"] = "1"  # as the executors do
    from vllm import LLM

    engine = LLM(
        model=model,
        dtype="float32",
        enforce_eager=True,
        max_model_len=MAX_MODEL_LEN,
        max_num_seqs=MAX_RUNNING,
        kv_cache_memory_bytes=KV_CACHE_BYTES,
        structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
    )
    outputs = engine.generate([case.prompt for case in CASES.values()], [_params(case) for case in CASES.values()])
    answers = {name: _answer(output) for name, output in zip(CASES, outputs, strict=True)}
    out.write_text(json.dumps(answers))


def _params(case: Case) -> Any:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    structured = StructuredOutputsParams(regex=case.regex) if case.regex else None
    return SamplingParams(structured_outputs=structured, **case.sampling)


def _answer(output: Any) -> dict[str, Any]:
    [completion] = output.outputs
    logprobs = completion.logprobs
    return {
        "token_ids": list(completion.token_ids),
        "text": completion.text,
        "logprobs": logprobs and [{token: entry.logprob for token, entry in row.items()} for row in logprobs],
    }


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

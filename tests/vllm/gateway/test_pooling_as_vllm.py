"""Every route of a model that embeds or scores pairs answers as vLLM's own server does on the same engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from executor_svc.engine.tiny_model import make_tiny_model
from tests.support.engine_process import ONE_PROCESS
from tests.support.fleet_processes import FleetProcesses
from tests.vllm.gateway.gateway_fleet import GatewayProcess
from tests.vllm.gateway.http_answers import plain
from tests.vllm.gateway.own_server import OwnServer
from tests.vllm.gateway.pairs_model import make_pairs_model

pytestmark = [pytest.mark.vllm]

UP_WITHIN_S = 240.0
CLOSE = 1e-4  # batches of another size round otherwise
ENGINE = (
    *("--role", "embedding", "--engine.vllm.dtype", "float32"),
    *("--engine.vllm.enforce-eager", "--engine.vllm.max-running", "8", "--engine.vllm.max-model-len", "512"),
    *("--engine.vllm.kv-cache-bytes", str(64 << 20), "--engine.vllm.cpu-cores", "0"),
)
OWN_ENGINE = (
    *("--runner", "pooling", "--dtype", "float32", "--enforce-eager", "--max-num-seqs", "8"),
    *("--max-model-len", "512", "--kv-cache-memory-bytes", str(64 << 20), "--distributed-executor-backend", "uni"),
)
QUERY, DOCUMENTS = "Which animal barks?", ["The dog barks at night.", "A loaf of bread.", "Cats sleep."]
Case = tuple[str, dict[str, Any]]


def of_both() -> Iterator[Case]:
    """Yield path and body of requests that either kind of model answers."""
    yield "/v1/score", {"text_1": QUERY, "text_2": DOCUMENTS}
    yield "/score", {"queries": [QUERY, "Bread?"], "documents": DOCUMENTS[:2]}
    yield "/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "top_n": 2}
    yield "/rerank", {"query": QUERY, "documents": DOCUMENTS, "truncate_prompt_tokens": 12}
    yield "/v2/rerank", {"query": QUERY, "documents": DOCUMENTS, "max_tokens_per_doc": 4}
    yield "/pooling", {"input": DOCUMENTS}
    yield "/tokenize", {"prompt": QUERY}
    yield "/v1/score", {"text_1": QUERY}
    yield "/v1/score", {"text_1": QUERY, "text_2": []}


def of_vectors() -> Iterator[Case]:
    """Yield those of a model that embeds."""
    yield from of_both()
    yield "/v1/embeddings", {"input": DOCUMENTS}
    yield "/v1/embeddings", {"input": DOCUMENTS, "use_activation": False}
    yield "/v1/embeddings", {"input": QUERY, "truncate_prompt_tokens": 2, "truncation_side": "left"}
    yield "/v1/embeddings", {"messages": [{"role": "user", "content": QUERY}]}
    yield "/pooling", {"input": DOCUMENTS, "encoding_format": "base64", "embed_dtype": "float16"}
    yield "/v1/embeddings", {"input": QUERY, "dimensions": 8}


def of_pairs() -> Iterator[Case]:
    """Yield those of a model that classifies."""
    yield from of_both()
    yield "/classify", {"input": DOCUMENTS}
    yield "/classify", {"input": QUERY, "use_activation": False}
    yield "/v1/rerank", {"query": QUERY, "documents": DOCUMENTS, "use_activation": False}


KINDS: dict[str, tuple[Callable[[Path], Any], Callable[[], Iterator[Case]]]] = {
    "vectors": (make_tiny_model, of_vectors),
    "pairs": (make_pairs_model, of_pairs),
}


@dataclass(frozen=True)
class BothKinds:
    """A fleet with an engine of each kind, named for it, behind one gateway."""

    fleet: FleetProcesses
    gateway: GatewayProcess
    models: dict[str, Path]  # by kind


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BothKinds]:
    folder = tmp_path_factory.mktemp("both")
    models = {kind: folder / kind for kind in KINDS}
    for kind, (make, _) in KINDS.items():
        make(models[kind])
    fleet = FleetProcesses(folder, ["--policy", "fifo"])
    made: list[GatewayProcess] = []

    async def start() -> BothKinds:
        await fleet.start()
        for kind, model in models.items():
            flags = ["--model", str(model), "--engine.model.served-name", kind, *ENGINE]
            fleet.launch(kind, flags, environment=ONE_PROCESS)
        made.append(GatewayProcess(fleet, folder))
        await asyncio.gather(fleet.ready(*KINDS, within_s=UP_WITHIN_S), made[0].start(*KINDS))
        return BothKinds(fleet, made[0], models)

    async def stop() -> None:
        try:
            for gateway in made:
                await gateway.stop()
        finally:
            await fleet.leave()

    try:
        yield asyncio.run(start())
    finally:
        asyncio.run(stop())


async def test_models_say_whether_they_classify(both_kinds: BothKinds) -> None:
    async with both_kinds.fleet.client() as client:
        assert {each.name: each.classifies for each in await client.models()} == {"vectors": False, "pairs": True}


@pytest.mark.parametrize("kind", KINDS)
async def test_the_gateway_answers_as_vllms_own_server_does(both_kinds: BothKinds, tmp_path: Path, kind: str) -> None:
    _, cases = KINDS[kind]
    server = OwnServer(kind, tmp_path, ("--model", str(both_kinds.models[kind]), *OWN_ENGINE))
    async with server.serving() as own, both_kinds.gateway.http() as ours, own.http() as theirs:
        wrong = [each async for each in differences(ours, theirs, kind, cases())]
    assert not wrong, "\n".join(wrong)


async def differences(ours: Any, theirs: Any, name: str, cases: Iterator[Case]) -> Any:
    """Yield each case that is answered in another way, with both answers."""
    for path, fields in cases:
        body = {"model": name, **fields}
        found, wanted = await asyncio.gather(*(asked(each, path, body) for each in (ours, theirs)))
        if not same(found, wanted):
            yield f"{path} {fields}\n  ours {str(found)[:600]}\n  vLLM {str(wanted)[:600]}"


async def asked(http: Any, path: str, body: dict[str, Any]) -> tuple[int, Any]:
    answer = await http.post(path, json=body)
    found = answer.json()
    if path == "/v1/embeddings" and "usage" in found:  # vLLM adds to what OpenAI has
        found["usage"] = {name: found["usage"][name] for name in ("prompt_tokens", "total_tokens")}
    return answer.status_code, plain(found) if answer.status_code < 400 else sorted(found)


def same(found: Any, wanted: Any) -> bool:
    if isinstance(found, dict) and isinstance(wanted, dict):
        return found.keys() == wanted.keys() and all(same(found[name], wanted[name]) for name in found)
    if isinstance(found, list | tuple) and isinstance(wanted, list | tuple):
        return len(found) == len(wanted) and all(map(same, found, wanted))
    if isinstance(found, float) and isinstance(wanted, float):
        return abs(found - wanted) <= CLOSE
    return bool(found == wanted)

"""Real tokens through the control plane: vLLM's own, whatever the policy."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from sage_client import (
    AsyncClient,
    ChatMessage,
    DeadlineExceededError,
    FinishReason,
    InstanceState,
    InvalidRequestError,
    RequestCancelledError,
    Tokens,
)
from tests.support.eventually import eventually
from tests.support.fleet_processes import FleetProcesses
from tests.support.token_check import assert_tokens
from tests.vllm.system.cases import CASES, GREEDY, REPLAYED, SHORT, Reference
from tests.vllm.system.engine_settings import MAX_MODEL_LEN, MODEL_NAME, NAMES
from tests.vllm.system.streams import complete_all

pytestmark = [pytest.mark.vllm]

References = dict[str, Reference]


@pytest.mark.parametrize("policy", ["fifo", "priority", "slo_aware", "cost_optimized", "adaptive"])
async def test_32_greedy_streams_equal_the_engine_called_directly(
    policy: str, client: AsyncClient, references: References
) -> None:
    await client.set_policy(policy)
    done = await complete_all(client, GREEDY, references, max_tokens=SHORT)
    assert {each.decisions[0].policy for each in done} == {policy}
    if policy != "cost_optimized":  # which gathers the load on as few instances as carry it
        assert {each.instance_id for each in done} == set(NAMES), "both took part"
    assert all(each.attempts == 1 for each in done)
    assert all(each.model == MODEL_NAME for each in done)


async def test_seeded_penalised_and_constrained_streams_equal_it_too(
    client: AsyncClient, references: References
) -> None:
    await complete_all(client, REPLAYED, references, max_tokens=SHORT)


async def test_a_seed_gives_the_same_tokens_on_either_instance(client: AsyncClient) -> None:
    options: dict[str, Any] = {"temperature": 0.9, "seed": 5, "max_tokens": 24}
    answers = [await client.generate("Say:", preferred_instance=name, **options).result() for name in NAMES]
    assert [each.instance_id for each in answers] == list(NAMES)
    assert answers[0].token_ids == answers[1].token_ids
    other = await client.generate("Say:", **{**options, "seed": 6}).result()
    assert other.token_ids != answers[0].token_ids


async def test_a_chat_goes_through_the_models_own_template(client: AsyncClient, references: References) -> None:
    turns = [ChatMessage(role="system", content="Be brief."), ChatMessage(role="user", content="What is a lambda?")]
    done = await client.generate(messages=turns, temperature=0, max_tokens=SHORT).result()
    assert_tokens(done.token_ids, references["chat"].token_ids)
    assert done.text == references["chat"].text


async def test_logprobs_are_the_engines(client: AsyncClient, references: References) -> None:
    case, wanted = CASES["logprobs"], references["logprobs"]
    done = await client.generate(case.prompt, **case.options()).result()
    assert_tokens(done.token_ids, wanted.token_ids)
    for row, wanted_row, token in zip(done.logprobs, wanted.logprobs, done.token_ids, strict=True):
        assert row[0].token_id == token
        assert row[0].rank == 1
        assert {e.token_id: e.logprob for e in row} == pytest.approx(wanted_row, abs=1e-3)


async def test_a_stop_string_ends_it_and_frees_the_engine(
    fleet: FleetProcesses, client: AsyncClient, references: References
) -> None:
    wanted = references["greedy 0"]
    stop = wanted.text[60:66]
    done = await client.generate(CASES["greedy 0"].prompt, temperature=0, max_tokens=180, stop=stop).result()
    assert done.finish_reason is FinishReason.STOP
    assert done.stop_string == stop
    assert done.text == wanted.text[: wanted.text.index(stop)]
    assert_tokens(done.token_ids, wanted.token_ids[: len(done.token_ids)])
    await nothing_held(client)


# --- structured output -----------------------------------------------------------------------------


async def test_structured_output_is_honoured(client: AsyncClient) -> None:
    schema = {
        "type": "object",
        "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "maximum": 99}},
        "required": ["name", "age"],
        "additionalProperties": False,
    }
    constraints: dict[str, dict[str, Any]] = {
        "json_schema": {"json_schema": schema},
        "regex": {"regex": "[0-9]{3}-[a-f]{4}"},
        "choice": {"choice": ["alpha", "beta", "gamma"]},
        "grammar": {"grammar": 'root ::= "(" digit digit ")"\ndigit ::= [0-9]'},
    }
    streams = {
        kind: client.generate("Answer:", temperature=0, max_tokens=200, **constraint)
        for kind, constraint in constraints.items()
    }
    texts = {kind: (await stream.result()).text for kind, stream in streams.items()}
    found = json.loads(texts["json_schema"])
    assert found.keys() == {"name", "age"}
    assert isinstance(found["age"], int)
    assert re.fullmatch("[0-9]{3}-[a-f]{4}", texts["regex"])
    assert texts["choice"] in ("alpha", "beta", "gamma")
    assert re.fullmatch(r"\([0-9][0-9]\)", texts["grammar"])


BROKEN: list[tuple[str, dict[str, Any]]] = [
    ("regex", {"regex": "("}),
    ("regex", {"regex": "[z-a]"}),
    ("json_schema", {"json_schema": "{"}),
    ("json_schema", {"json_schema": '{"type": "no-such-type"}'}),
    ("grammar", {"grammar": "root ::= ("}),
    ("grammar", {"grammar": 'root ::= "a" nowhere'}),
    # These compile, and then no output satisfies them: vLLM ends the request with an error while its engine goes on.
    ("json_schema", {"json_schema": '{"$ref": "#"}'}),
    ("grammar", {"grammar": 'root ::= root "a"'}),
    ("regex", {"regex": r"[^\s\S]"}),
    ("regex", {"regex": r"a[^\s\S]"}),
]


@pytest.mark.parametrize(("field", "constraint"), BROKEN, ids=lambda v: json.dumps(v) if isinstance(v, dict) else v)
async def test_a_broken_constraint_is_the_callers_fault_and_names_the_field(
    field: str, constraint: dict[str, Any], client: AsyncClient
) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.generate("Answer:", max_tokens=16, **constraint).result()
    assert caught.value.status == "INVALID_ARGUMENT"
    [violation] = caught.value.violations
    assert violation.field == f"spec.sampling.structured_output.{field}"
    assert violation.description
    states = {i.instance_id: i.state for i in (await client.list_instances()).instances}
    assert states == dict.fromkeys(NAMES, InstanceState.READY), "it never counts against an instance"


async def test_other_bad_input_names_what_is_wrong(client: AsyncClient) -> None:
    wrong: list[tuple[str, str, dict[str, Any]]] = [
        ("spec.sampling.max_tokens", str(MAX_MODEL_LEN), {"token_ids": [20] * 600, "max_tokens": 600}),
        ("spec.tokens.ids", "4096", {"token_ids": [20, 4096]}),
        ("spec.sampling.top_p", "7", {"prompt": "Hi", "top_p": 7}),
        ("spec.sampling.logprobs", "1000", {"prompt": "Hi", "logprobs": 1000}),
        ("spec.adapter", "dialect", {"prompt": "Hi", "adapter": "dialect"}),
    ]
    for field, words, options in wrong:
        with pytest.raises(InvalidRequestError) as caught:
            await client.generate(**options).result()
        [violation] = caught.value.violations
        assert violation.field == field
        assert words in violation.description


# --- ending early ----------------------------------------------------------------------------------


async def nothing_held(client: AsyncClient) -> None:
    """By the engines' own counters, and by the scheduler's ledger."""

    async def free() -> bool:
        instances = (await client.list_instances()).instances
        return all(
            (i.running, i.waiting, i.kv_used_tokens, i.assigned, i.kv_reserved_tokens) == (0, 0, 0, 0, 0)
            for i in instances
        )

    await eventually(free, within_s=10, what="the engines' KV cache to be free", every_s=0.05)


async def kv_in_use(client: AsyncClient) -> None:
    async def used() -> bool:
        return all(i.kv_used_tokens > 0 for i in (await client.list_instances()).instances)

    await eventually(used, within_s=10, what="the engines' KV cache to be in use", every_s=0.05)


@pytest.mark.parametrize("how", ["cancel", "client gone", "dropped", "deadline"])
async def test_what_ends_early_frees_the_engines_kv(how: str, fleet: FleetProcesses, client: AsyncClient) -> None:
    await nothing_held(client)
    leaving = fleet.client()
    options: dict[str, Any] = {"max_tokens": 900, "ignore_eos": True, "deadline": 1.5 if how == "deadline" else 60.0}
    streams = [leaving.generate(f"Long {n}", preferred_instance=NAMES[n % 2], **options) for n in range(8)]
    for stream in streams:
        while not isinstance(await anext(stream), Tokens):
            pass
    await kv_in_use(client)
    if how == "cancel":
        await asyncio.gather(*(stream.cancel() for stream in streams))
        for stream in streams:
            with pytest.raises(RequestCancelledError):
                await stream.result()
    elif how == "deadline":
        for stream in streams:
            with pytest.raises(DeadlineExceededError):
                await stream.result()
    elif how == "dropped":
        del stream
        streams.clear()
        await nothing_held(client)
    await leaving.close()
    await nothing_held(client)


# --- whether a fault would show ----------------------------------------------------------------------


async def test_a_lost_or_changed_token_would_be_noticed(references: References) -> None:
    """What these tests rest on can fail: each single fault shows, wherever it is."""
    wanted = references["greedy 0"].token_ids
    for at in range(len(wanted)):
        lost = (*wanted[:at], *wanted[at + 1 :])
        doubled = (*wanted[: at + 1], *wanted[at:])
        changed = (*wanted[:at], (wanted[at] + 1) % 4096, *wanted[at + 1 :])
        for tampered in (lost, doubled, changed):
            with pytest.raises(AssertionError, match="wanted"):
                assert_tokens(tampered, wanted)


async def test_a_tampered_resume_would_be_noticed(
    client: AsyncClient, references: References, encode: Callable[[str], list[int]]
) -> None:
    """A continuation that begins one token late or early gives other tokens than the uninterrupted answer."""
    name, case = next(iter(GREEDY.items()))
    wanted = references[name].token_ids
    ids = encode(case.prompt)
    assert_tokens(await _continued(client, ids, wanted[:20]), wanted[20:50])
    for seam in (20, 50):
        for prefix in (wanted[: seam - 1], (*wanted[:seam], wanted[seam - 1])):  # one lost, one doubled
            with pytest.raises(AssertionError, match="wanted"):
                assert_tokens(await _continued(client, ids, prefix), wanted[seam : seam + 30])


async def _continued(client: AsyncClient, prompt: list[int], emitted: Sequence[int]) -> Sequence[int]:
    """What an executor asks its engine for to resume."""
    return (await client.generate(token_ids=[*prompt, *emitted], temperature=0, max_tokens=30).result()).token_ids

"""A constraint that takes its compiler minutes delays nobody else's, and is refused with its field."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import psutil
import pytest

from executor_svc.engine.vllm.constraints.gate import Known
from executor_svc.engine.vllm.serving import VllmEngine
from executor_svc.runtime.engine_port import InvalidRequestError, Sampling, StructuredKind, StructuredOutput
from tests.contract.engine.contract import Subject, answer
from tests.support.eventually import eventually

pytestmark = [pytest.mark.vllm, pytest.mark.asyncio(loop_scope="session")]


def rules(count: int) -> str:
    """A grammar whose compile time grows with the square of ``count``: 100 rules, 4 KB, take some 10 s of CPU time."""
    each = (f"r{n} ::= [a-z]* r{n + 1} | [^b]* r{n + 1} | [0-9]+" for n in range(count))
    return "\n".join(["root ::= r0", *each, f"r{count} ::= [a-z]*"])


PATTERN = "".join(f"([a-z]*|[^b]*|{n}+)" for n in range(900))
ENDLESS = {
    StructuredKind.GRAMMAR: rules(300),
    StructuredKind.REGEX: "|".join(f"[a-{'bcdefghij'[n % 9]}]{{1,{n}}}x" for n in range(1, 1000)),
    StructuredKind.JSON_SCHEMA: json.dumps(
        {"type": "string", "pattern": "".join(f"([a-z]*|[^b]*|{n}+)" for n in range(900))}
    ),
}


def constrained(kind: StructuredKind, value: str) -> Sampling:
    return Sampling(temperature=0.0, max_tokens=8, structured_output=StructuredOutput(kind=kind, value=value))


def small(number: int) -> Sampling:
    return constrained(StructuredKind.JSON_SCHEMA, json.dumps({"enum": [f"yes {number}", f"no {number}"]}))


async def refusal(engine: VllmEngine, prompt: list[int], sampling: Sampling) -> InvalidRequestError:
    with pytest.raises(InvalidRequestError) as raised:
        await answer(engine, prompt, sampling)
    return raised.value


async def test_small_constraints_get_tokens_while_huge_ones_compile(engine: VllmEngine, subject: Subject) -> None:
    prompt = subject.prompts[0]
    await answer(engine, prompt, small(0))  # starts what compiles
    huge = [asyncio.create_task(refusal(engine, prompt, constrained(kind, value))) for kind, value in ENDLESS.items()]
    for number in range(1, 6):
        assert (await answer(engine, prompt, small(number))).token_ids
    assert not all(task.done() for task in huge), "the small ones did not wait for the huge ones"
    for kind, error in zip(ENDLESS, await asyncio.gather(*huge), strict=True):
        assert error.field_name == f"sampling.structured_output.{kind.value}"
        assert "CPU time (vllm.constraint_compile_limit_s)" in error.message
    assert (await answer(engine, prompt, Sampling(max_tokens=3, ignore_eos=True))).token_ids


async def test_a_constraint_that_takes_long_within_the_limit_is_served(engine: VllmEngine, subject: Subject) -> None:
    wanted = constrained(StructuredKind.GRAMMAR, rules(40))
    result = await answer(engine, subject.prompts[1], wanted)
    assert result.token_ids
    assert engine._constraints is not None
    assert Known.COMPILED in engine._constraints._known.values()


async def test_the_trial_process_ends_with_the_engines_trials(engine: VllmEngine, subject: Subject) -> None:
    await answer(engine, subject.prompts[0], small(100))
    assert engine._trials._process is not None
    host = psutil.Process(engine._trials._process.pid)
    await eventually(lambda: not host.children(), what="the trial, which has answered, to end")
    assert Path(host.exe()).name.startswith("python")

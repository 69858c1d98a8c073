"""Finds out at the start whether this engine really continues from an output history.

The parts of vLLM that histories rely on are internal and differ between versions, model runners and devices.  So what
counts is a trial: penalties, seeds and grammars after a history.  Logits that are computed at once differ a little from
those computed token by token.  So the trials have clear results with any model and data type, or several tries.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace

from executor_svc.runtime.engine_port import (
    EngineDeadError,
    EngineError,
    EngineOutput,
    EngineRequest,
    InvalidRequestError,
    Sampling,
    StructuredKind,
    StructuredOutput,
)

Generate = Callable[[EngineRequest], AsyncGenerator[EngineOutput, None]]
Decode = Callable[[Sequence[int]], str]

PROMPT_TOKENS = 16
LONGEST = 96  # tokens that the longest trial needs
REPEATED = 50  # tokens of the history that the penalty is about
PENALISED = Sampling(temperature=0.0, max_tokens=REPEATED + 4, ignore_eos=True, frequency_penalty=2.0)
SEEDED = Sampling(temperature=2.0, max_tokens=8, ignore_eos=True)
SEEDS = (5, 6, 7)  # one of them must go on exactly: a close draw may change a token, other random numbers change all
DIGITS = "[0-9]{12}"
CONSTRAINED = Sampling(
    temperature=0.0,
    max_tokens=40,
    # An engine with a reasoning parser would let the constraint wait for the end of the reasoning.
    structured_output=StructuredOutput(kind=StructuredKind.REGEX, value=DIGITS, reasoning_ended=True),
)


class HistorySelfTest:
    """Runs requests with and without a history on one engine."""

    def __init__(self, generate: Generate, decode: Decode, *, vocab_size: int, max_model_len: int) -> None:
        self._generate = generate
        self._decode = decode
        self._max_model_len = max_model_len
        self._ids = [token % vocab_size for token in range(PROMPT_TOKENS)]
        self._requests = 0

    async def failure(self) -> str | None:
        """Return why this engine cannot continue from an output history; None if it can.

        Raises EngineDeadError, with a message for the operator, if a trial ends the engine.
        """
        if self._max_model_len < LONGEST:
            return f"the self-test needs {LONGEST} tokens, and the model's limit is {self._max_model_len}"
        for trial in (self._penalty, self._seed, self._grammar):
            try:
                failure = await trial()
            except EngineDeadError as error:
                raise EngineDeadError(
                    f"the self-test of output histories ended the engine; set vllm.output_history=false ({error})"
                ) from error
            except (EngineError, InvalidRequestError) as error:
                failure = str(error)
            if failure is not None:
                return failure
        return None

    async def _penalty(self) -> str | None:
        """Continue after many repetitions of one token: only its penalty makes the other one win."""
        often, other = self._ids[-2:]
        sampling = replace(PENALISED, allowed_token_ids=(often, other), logit_bias={often: 50.0})
        found = await self._run(sampling, [often] * REPEATED)
        return None if found == [other] * 4 else "penalties and limits do not count the delivered tokens"

    async def _seed(self) -> str | None:
        for seed in SEEDS:
            sampling = replace(SEEDED, seed=seed)
            whole = await self._run(sampling)
            if await self._run(sampling, whole[:4]) == whole[4:]:
                return None
        return "a seeded request does not go on with the same random numbers"

    async def _grammar(self) -> str | None:
        whole = await self._run(CONSTRAINED)
        history = whole[: max(1, len(whole) // 2)]
        text = self._decode([*history, *await self._run(CONSTRAINED, history)]).strip()
        return None if re.fullmatch(DIGITS, text) else "a grammar does not go on after the delivered tokens"

    async def _run(self, sampling: Sampling, history: Sequence[int] = ()) -> list[int]:
        """Return the tokens that a request adds to its history; without the one that ended it."""
        self._requests += 1
        request = EngineRequest(
            engine_request_id=f"self-test/{self._requests}",
            prompt_token_ids=self._ids,
            sampling=sampling,
            output_history=history,
        )
        found: list[int] = []
        ended_by: int | None = None
        async for output in self._generate(request):
            found += output.token_ids
            ended_by = output.stop_token_id
        return found if ended_by is None else found[:-1]

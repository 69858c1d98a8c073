"""A request that could only be replayed gets a seed when it is accepted."""

from __future__ import annotations

import pytest

from scheduler_svc.control.requests.own_seed import with_own_seed
from scheduler_svc.domain.engine_facts import EngineFacts
from scheduler_svc.domain.request import RequestKey, Sampling, StructuredOutput

KEY = RequestKey(tenant="t", request_id="r")
PENALISED = Sampling(temperature=0.9, frequency_penalty=0.5)
REGEX = StructuredOutput(kind="regex", value="a+")


def facts(*, history: bool) -> EngineFacts:
    return EngineFacts(
        engine="sim",
        engine_version="1",
        vocab_size=100,
        max_model_len=100,
        kv_capacity_tokens=100,
        max_running=1,
        max_batched_tokens=100,
        keeps_output_history=history,
    )


WITH, WITHOUT = facts(history=True), facts(history=False)


@pytest.mark.parametrize("engines", [(), (WITHOUT,), (WITH, WITHOUT)])
def test_where_an_engine_may_have_to_replay_it_gets_a_seed(engines: tuple[EngineFacts, ...]) -> None:
    seeded = with_own_seed(PENALISED, KEY, b"content", engines)
    assert seeded.seed is not None
    assert 0 <= seeded.seed < 2**63
    assert seeded == with_own_seed(PENALISED, KEY, b"content", engines), "the same at every try"


def test_the_seed_depends_on_tenant_id_and_content() -> None:
    others = (
        (RequestKey(tenant="u", request_id="r"), b"content"),
        (RequestKey(tenant="t", request_id="s"), b"content"),
        (KEY, b"other content"),
    )
    seeds = {with_own_seed(PENALISED, key, digest, ()).seed for key, digest in (*others, (KEY, b"content"))}
    assert len(seeds) == 4


@pytest.mark.parametrize(
    "sampling",
    [
        PENALISED,
        Sampling(presence_penalty=1.0),
        Sampling(bad_words=("no",)),
        Sampling(structured_output=REGEX),
    ],
)
def test_where_every_engine_keeps_histories_it_needs_none(sampling: Sampling) -> None:
    assert with_own_seed(sampling, KEY, b"content", (WITH, WITH)) == sampling
    assert with_own_seed(sampling, KEY, b"content", (WITHOUT,)).seed is not None


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.9),
        Sampling(temperature=0, frequency_penalty=0.5),
        Sampling(temperature=0.9, frequency_penalty=0.5, seed=7),
    ],
)
def test_what_can_be_resumed_or_replayed_as_it_is_stays_as_it_is(sampling: Sampling) -> None:
    assert with_own_seed(sampling, KEY, b"content", (WITHOUT,)) == sampling

"""What a front end asks before it serves a model: which ones there are, and with which files to tokenize."""

from __future__ import annotations

import hashlib
import json

import pytest
from tokenizers import Tokenizer

from sage_client import AsyncClient, NoInstanceError, UnknownModelError
from tests.integration.system.local_fleet import MODEL, LocalExecutor, LocalFleet


async def test_a_model_is_listed_with_its_limits(client: AsyncClient, one: LocalExecutor) -> None:
    [model] = await client.models()

    facts = one.engine.facts
    assert (model.name, model.instances, model.ready) == (MODEL, 1, 1)
    assert (model.max_model_len, model.vocab_size, model.dtype) == (facts.max_model_len, facts.vocab_size, facts.dtype)
    assert (model.adapters, model.embeds) == (facts.adapters, False)


async def test_a_fleet_without_executors_has_no_models(fleet: LocalFleet) -> None:
    assert await fleet.client.models() == ()


async def test_a_models_files_tokenize_as_the_scheduler_does(client: AsyncClient, one: LocalExecutor) -> None:
    files = await client.get_model_files(MODEL)

    assert hashlib.sha256(files.tokenizer).hexdigest() == files.model.tokenizer_hash
    document = json.loads(files.tokenizer)
    tokenizer = Tokenizer.from_str(document["tokenizer_json"])
    answer = await client.generate("Once upon a time", max_tokens=1).result()
    assert answer.usage.prompt_tokens == len(tokenizer.encode("Once upon a time").ids)
    assert document["chat_template"] == one.engine.facts.tokenizer.chat_template
    assert json.loads(files.config_json)["vocab_size"] == one.engine.facts.vocab_size


async def test_the_only_models_files_need_no_name(client: AsyncClient) -> None:
    assert (await client.get_model_files()).model.name == MODEL


async def test_the_files_of_an_unknown_model_are_refused(client: AsyncClient) -> None:
    with pytest.raises(UnknownModelError, match="another"):
        await client.get_model_files("another")


async def test_a_model_without_an_instance_has_no_files_yet() -> None:
    async with LocalFleet(models={"expected": {}}) as fleet:
        with pytest.raises(NoInstanceError):
            await fleet.client.get_model_files("expected")
        [model] = await fleet.client.models()
        assert (model.instances, model.tokenizer_hash, model.max_model_len) == (0, "", None)

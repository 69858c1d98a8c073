"""The gateway follows the fleet's models."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from sage_client import AudioInput, UnavailableError
from sage_gateway.asgi import Application
from sage_gateway.model_catalogue import FRESH_S, KEPT_S, ModelCatalogue
from tests.unit.gateway.fleet_of_models import ListedModels, model


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


async def follow(catalogue: ModelCatalogue) -> None:
    await catalogue.ask()
    await catalogue.build()


def followed(fleet: ListedModels, clock: Clock | None = None) -> ModelCatalogue:
    return ModelCatalogue(fleet, fleet.build, fleet.embedding, now=clock or Clock())


async def test_a_model_is_served_once_an_instance_was_ready() -> None:
    fleet = ListedModels(model(files_hash=""))
    catalogue = followed(fleet)
    await follow(catalogue)
    assert catalogue.models() == []
    fleet.listed = (model(),)
    await follow(catalogue)
    assert [each.model.name for each in catalogue.models()] == ["m"]


async def test_an_application_is_built_once_while_nothing_changes() -> None:
    fleet = ListedModels(model(ready=1))
    catalogue = followed(fleet)
    for ready in (1, 2, 0):
        fleet.listed = (model(ready=ready),)
        await follow(catalogue)
    assert fleet.built == ["m"]
    assert catalogue.models()[0].model.ready == 0


async def test_other_files_limits_adapters_or_media_need_another_application() -> None:
    fleet = ListedModels(model())
    catalogue = followed(fleet)
    await follow(catalogue)
    hears = AudioInput(placeholder_token_id=7, most_tokens=50, most_clips=2, most_seconds=1.5, rate_hz=16_000)
    changes: list[dict[str, Any]] = [
        {"files_hash": "others"},
        {"max_model_len": 7},
        {"adapters": ("a",)},
        {"most_images": 2},
        {"audio_input": hears},
    ]
    for change in changes:
        fleet.listed = (model(**change),)
        await follow(catalogue)
    assert fleet.built == ["m"] * 6
    assert [each.model.audio_input for each in catalogue.models()] == [hears]


async def test_a_model_that_is_listed_no_more_is_gone() -> None:
    fleet = ListedModels(model())
    catalogue = followed(fleet)
    await follow(catalogue)
    fleet.listed = ()
    await follow(catalogue)
    assert catalogue.models() == []


async def test_models_that_embed_have_vllms_server_too() -> None:
    fleet = ListedModels(model(embeds=True))
    catalogue = followed(fleet)
    await follow(catalogue)
    assert (fleet.built, fleet.embeds_by) == (["m"], {"m": ""})
    assert [each.model.name for each in catalogue.models()] == ["m"]


async def test_models_that_embed_are_served_without_vllms_server_if_it_cannot_be_built() -> None:
    fleet = ListedModels(model(embeds=True))
    fleet.broken = ValueError("no such architecture")
    catalogue = followed(fleet)
    await follow(catalogue)
    assert fleet.embeds_by == {"m": "its front end could not be built: no such architecture"}
    assert (catalogue.why_not("m"), catalogue.trouble()) == ("", "")


async def test_a_model_that_cannot_be_built_is_tried_again_when_it_changes() -> None:
    fleet = ListedModels(model(), model("other"))
    fleet.broken = ValueError("no such architecture")
    catalogue = followed(fleet)
    await follow(catalogue)
    await follow(catalogue)
    assert "no such architecture" in catalogue.why_not("m")
    assert "m: its front end could not be built" in catalogue.trouble()
    fleet.broken = None
    await follow(catalogue)
    assert fleet.built == []
    fleet.listed = (model(files_hash="mended"),)
    await follow(catalogue)
    assert (fleet.built, catalogue.why_not("m"), catalogue.trouble()) == (["m"], "", "")


async def test_names_are_found_with_adapters_and_without() -> None:
    fleet = ListedModels(model("a", adapters=("x",)), model("b"))
    catalogue = followed(fleet)
    await follow(catalogue)
    found = {name: catalogue.find(name) for name in ("a", "x", "b", "", "none")}
    assert {name: served and served.model.name for name, served in found.items()} == {
        "a": "a",
        "x": "a",
        "b": "b",
        "": None,
        "none": None,
    }


async def test_health_is_the_truth() -> None:
    fleet, clock = ListedModels(model()), Clock()
    catalogue = followed(fleet, clock)
    assert catalogue.trouble() == "the scheduler has not answered yet"
    await follow(catalogue)
    assert catalogue.trouble() == ""

    fleet.listed = (model(ready=0),)
    await follow(catalogue)
    assert catalogue.trouble() == "no model has an instance that is ready"

    fleet.listed = (model(),)
    await follow(catalogue)
    fleet.error = UnavailableError("connection refused")
    clock.time = FRESH_S / 2
    await follow(catalogue)
    assert catalogue.trouble() == ""
    clock.time = FRESH_S + 1
    assert "connection refused" in catalogue.trouble()


async def test_a_model_that_is_built_does_not_make_the_others_stale() -> None:
    fleet, clock = ListedModels(model()), Clock()
    catalogue = followed(fleet, clock)
    await follow(catalogue)
    fleet.listed = (model(), model("slow"))
    fleet.building = asyncio.Event()
    following = asyncio.create_task(catalogue.follow(period_s=0))
    await fleet.began.wait()
    clock.time = FRESH_S + 1
    fleet.asked.clear()
    await fleet.asked.wait()
    await asyncio.sleep(0)
    assert catalogue.trouble() == ""
    following.cancel()


async def test_a_scheduler_that_was_started_again_finds_the_applications_as_they_were() -> None:
    fleet = ListedModels(model())
    catalogue = followed(fleet)
    await follow(catalogue)
    for listed in ((), (model(files_hash="", ready=0),), (model(),)):
        fleet.listed = listed
        await follow(catalogue)
        assert catalogue.find("m") is not None
    assert fleet.built == ["m"]
    assert catalogue.trouble() == ""


async def test_a_model_that_is_gone_for_long_is_let_go() -> None:
    fleet, clock, retired = ListedModels(model()), Clock(), list[Application]()
    catalogue = ModelCatalogue(fleet, fleet.build, fleet.embedding, retire=retired.append, now=clock)
    await follow(catalogue)
    fleet.listed = ()
    await follow(catalogue)
    assert (catalogue.find("m") is not None, retired) == (True, [])
    clock.time = KEPT_S + 1
    await follow(catalogue)
    assert (catalogue.find("m"), len(retired)) == (None, 1)


async def test_an_application_that_was_replaced_is_let_go() -> None:
    fleet, retired = ListedModels(model()), list[Application]()
    catalogue = ModelCatalogue(fleet, fleet.build, fleet.embedding, retire=retired.append, now=Clock())
    await follow(catalogue)
    former = catalogue.models()[0].application
    fleet.listed = (model(files_hash="others"),)
    await follow(catalogue)
    assert retired == [former]


async def test_a_scheduler_that_does_not_answer_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    fleet = ListedModels(model())
    catalogue = followed(fleet)
    await follow(catalogue)
    fleet.error = UnavailableError("connection refused")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await follow(catalogue)
    assert caplog.text.count("connection refused") == 1

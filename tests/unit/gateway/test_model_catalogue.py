"""The gateway follows the fleet's models."""

from __future__ import annotations

from sage_client import UnavailableError
from sage_gateway.model_catalogue import FRESH_S, ModelCatalogue
from tests.unit.gateway.fleet_of_models import ListedModels, model


class Clock:
    def __init__(self) -> None:
        self.time = 0.0

    def __call__(self) -> float:
        return self.time


def followed(fleet: ListedModels, clock: Clock | None = None) -> ModelCatalogue:
    return ModelCatalogue(fleet, fleet.build, fleet.embedding, now=clock or Clock())


async def test_a_model_is_served_once_an_instance_was_ready() -> None:
    fleet = ListedModels(model(files_hash=""))
    catalogue = followed(fleet)
    await catalogue.ask()
    assert catalogue.models() == []
    fleet.listed = (model(),)
    await catalogue.ask()
    assert [each.model.name for each in catalogue.models()] == ["m"]


async def test_an_application_is_built_once_while_nothing_changes() -> None:
    fleet = ListedModels(model(ready=1))
    catalogue = followed(fleet)
    for ready in (1, 2, 0):
        fleet.listed = (model(ready=ready),)
        await catalogue.ask()
    assert fleet.built == ["m"]
    assert catalogue.models()[0].model.ready == 0


async def test_other_files_limits_or_adapters_need_another_application() -> None:
    fleet = ListedModels(model())
    catalogue = followed(fleet)
    await catalogue.ask()
    for change in ({"files_hash": "others"}, {"max_model_len": 7}, {"adapters": ("a",)}):
        fleet.listed = (model(**change),)
        await catalogue.ask()
    assert fleet.built == ["m"] * 4


async def test_a_model_that_is_listed_no_more_is_gone() -> None:
    fleet = ListedModels(model())
    catalogue = followed(fleet)
    await catalogue.ask()
    fleet.listed = ()
    await catalogue.ask()
    assert catalogue.models() == []


async def test_models_that_embed_are_served_without_files() -> None:
    fleet = ListedModels(model(embeds=True))
    catalogue = followed(fleet)
    await catalogue.ask()
    assert fleet.built == []
    assert [each.model.name for each in catalogue.models()] == ["m"]


async def test_a_model_that_cannot_be_built_is_tried_again_when_it_changes() -> None:
    fleet = ListedModels(model(), model("other"))
    fleet.broken = ValueError("no such architecture")
    catalogue = followed(fleet)
    await catalogue.ask()
    await catalogue.ask()
    assert "no such architecture" in catalogue.why_not("m")
    assert "m: its front end could not be built" in catalogue.trouble()
    fleet.broken = None
    await catalogue.ask()
    assert fleet.built == []
    fleet.listed = (model(files_hash="mended"),)
    await catalogue.ask()
    assert (fleet.built, catalogue.why_not("m"), catalogue.trouble()) == (["m"], "", "")


async def test_names_are_found_with_adapters_and_without() -> None:
    fleet = ListedModels(model("a", adapters=("x",)), model("b"))
    catalogue = followed(fleet)
    await catalogue.ask()
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
    await catalogue.ask()
    assert catalogue.trouble() == ""

    fleet.listed = (model(ready=0),)
    await catalogue.ask()
    assert catalogue.trouble() == "no model has an instance that is ready"

    fleet.listed = (model(),)
    await catalogue.ask()
    fleet.error = UnavailableError("connection refused")
    clock.time = FRESH_S / 2
    await catalogue.ask()
    assert catalogue.trouble() == ""
    clock.time = FRESH_S + 1
    assert "connection refused" in catalogue.trouble()

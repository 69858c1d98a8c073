"""Operators look at and set prefill/decode separation through the SDK."""

from __future__ import annotations

import pytest

import sage_client as sage
from tests.integration.system.local_fleet import LocalFleet


async def test_it_is_off_unless_configured(fleet: LocalFleet) -> None:
    status = await fleet.client.get_prefill_decode()
    assert status.config.mode is sage.SplitMode.NEVER
    assert status.config.threshold_input_tokens == 2048
    assert status.config.threshold_ratio == 4.0
    assert not status.pairs
    assert not status.conditions


async def test_what_is_left_out_stays_as_it_is(fleet: LocalFleet) -> None:
    await fleet.client.set_prefill_decode("threshold", threshold_input_tokens=100)
    config = await fleet.client.set_prefill_decode(threshold_ratio=2.5)
    assert config == sage.PrefillDecodeConfig(
        mode=sage.SplitMode.THRESHOLD, threshold_input_tokens=100, threshold_ratio=2.5
    )
    assert (await fleet.client.get_prefill_decode()).config == config


async def test_a_setting_that_makes_no_sense_is_refused_by_name(fleet: LocalFleet) -> None:
    with pytest.raises(sage.InvalidRequestError) as refused:
        await fleet.client.set_prefill_decode(threshold_ratio=-1.0)
    assert refused.value.violations[0].field == "config.prefilling_threshold_ratio"
    with pytest.raises(ValueError, match="sometimes"):
        await fleet.client.set_prefill_decode("sometimes")


async def test_enabled_with_nothing_to_serve_it_is_a_loud_condition(fleet: LocalFleet) -> None:
    await fleet.add("a")
    await fleet.client.set_prefill_decode("always")
    status = await fleet.client.get_prefill_decode()
    assert any("prefill legs" in condition for condition in status.conditions)
    done = await fleet.client.generate("Once upon a time", max_tokens=4).result()
    assert any("should be split" in reason for reason in done.decisions[-1].reasons)


async def test_a_role_is_set_while_the_instance_runs(fleet: LocalFleet) -> None:
    await fleet.add("a")
    instance = await fleet.client.set_instance_role("a", "hybrid")
    assert instance.role is sage.InstanceRole.HYBRID
    with pytest.raises(sage.InstanceNotFoundError):
        await fleet.client.set_instance_role("nobody", "hybrid")
    with pytest.raises(ValueError, match="king"):
        await fleet.client.set_instance_role("a", "king")

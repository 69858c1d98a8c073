"""KEDA's external scaler and ListDesiredInstances, over gRPC."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from externalscaler import externalscaler_pb2, externalscaler_pb2_grpc
from sage.controlplane.v1 import admin_pb2, admin_pb2_grpc, common_pb2
from tests.support.lost_status import with_status
from tests.unit.transport.served import dialled, serving

SCALING: dict[str, Any] = {
    "enabled": True,
    "interval_s": 0.05,
    "models": {"m": {"general": {"min": 2, "max": 4}, "decoding": {"min": 0, "max": 4}}},
}


def reference(**metadata: str) -> externalscaler_pb2.ScaledObjectRef:
    return externalscaler_pb2.ScaledObjectRef(name="executor", namespace="sage", scalerMetadata=metadata)


async def test_keda_is_told_the_desired_number_by_model_and_role() -> None:
    async with serving(scaling=SCALING) as scheduler, dialled(scheduler) as channel:
        scheduler.control.scaling.look()
        keda: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        assert (await keda.IsActive(reference(model="m"))).result
        assert not (await keda.IsActive(reference(model="m", role="decoding"))).result
        [spec] = (await keda.GetMetricSpec(reference(model="m"))).metricSpecs
        assert (spec.targetSize, spec.targetSizeFloat) == (1, 1.0)
        asked = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=reference(model="m"), metricName=spec.metricName)
        [value] = (await keda.GetMetrics(asked)).metricValues
        assert (value.metricName, value.metricValue, value.metricValueFloat) == (spec.metricName, 2, 2.0)


async def test_before_the_first_look_nobody_is_told_a_number() -> None:
    async with serving(scaling=SCALING) as scheduler, dialled(scheduler) as channel:
        keda: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)

        async def ask_keda() -> None:
            await keda.IsActive(reference(model="m"))

        async def ask_admin() -> None:
            await admin.ListDesiredInstances(admin_pb2.ListDesiredInstancesRequest(model="m"))

        for ask in (ask_keda, ask_admin):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await with_status(ask)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            assert "waits for its executors" in (refused.value.details() or "")


async def test_the_stream_tells_it_at_once() -> None:
    async with serving(scaling=SCALING) as scheduler, dialled(scheduler) as channel:
        scheduler.control.scaling.look()
        keda: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        stream = keda.StreamIsActive(reference(model="m"))
        assert (await stream.read()).result
        stream.cancel()


@pytest.mark.parametrize(
    ("metadata", "settings", "said"),
    [
        ({"model": "other"}, SCALING, "there are: model 'm', role 'decoding'; model 'm', role 'general'"),
        ({"model": "m", "role": "prefilling"}, SCALING, "no instances of role 'prefilling'"),
        ({}, SCALING, "model ''"),
        ({"model": "m"}, {}, "scaling.enabled is off"),
    ],
)
async def test_metadata_that_name_nothing_are_refused_with_what_there_is(
    metadata: dict[str, str], settings: dict[str, Any], said: str
) -> None:
    async with serving(scaling=settings) as scheduler, dialled(scheduler) as channel:
        if settings:
            scheduler.control.scaling.look()
        keda: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)

        async def ask() -> None:
            await keda.IsActive(reference(**metadata))

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await with_status(ask)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert said in (refused.value.details() or "")


async def test_a_metric_that_there_is_not_is_refused_by_name() -> None:
    async with serving(scaling=SCALING) as scheduler, dialled(scheduler) as channel:
        scheduler.control.scaling.look()
        keda: Any = externalscaler_pb2_grpc.ExternalScalerStub(channel)
        asked = externalscaler_pb2.GetMetricsRequest(scaledObjectRef=reference(model="m"), metricName="queue")

        async def ask() -> None:
            await keda.GetMetrics(asked)

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await with_status(ask)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "metricName" in (refused.value.details() or "")


async def test_operators_are_told_the_number_and_why() -> None:
    async with serving(scaling=SCALING) as scheduler, dialled(scheduler) as channel:
        scheduler.control.scaling.look()
        admin: Any = admin_pb2_grpc.AdminServiceStub(channel)
        answer = await admin.ListDesiredInstances(admin_pb2.ListDesiredInstancesRequest(model="m"))
        assert answer.enabled
        decoding, general = answer.desired
        assert decoding.role == common_pb2.INSTANCE_ROLE_DECODING
        assert (general.role, general.desired, general.min, general.max) == (common_pb2.INSTANCE_ROLE_GENERAL, 2, 2, 4)
        assert general.reason
        assert general.warm_up.seconds == 60
        none = await admin.ListDesiredInstances(admin_pb2.ListDesiredInstancesRequest(model="other"))
        assert (none.enabled, len(none.desired)) == (True, 0)

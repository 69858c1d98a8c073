"""KEDA's ExternalScaler: tells KEDA how many replicas a model's workload is to have."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any, TypeAlias

import grpc

from externalscaler import externalscaler_pb2, externalscaler_pb2_grpc
from scheduler_svc.control.scaling.scaling_watch import ScalingWatch
from scheduler_svc.domain.errors import FieldViolation, InvalidRequest
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.scaling.desired_instances import DesiredInstances

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

METRIC = "desired-instances"
"""The one metric: the desired number of instances.  Its target is 1, so KEDA wants as many replicas."""

_NAMES_SHOWN = 8


class ScalerServicer(externalscaler_pb2_grpc.ExternalScalerServicer):
    """Answers KEDA from the desired numbers.

    The trigger's metadata names the model (``model``) and the role (``role``, general by default).  Handlers raise
    InvalidRequest where that names nothing which has a desired number, and Recovering before the first look: KEDA keeps
    the replicas that there are while a scaler fails.
    """

    def __init__(self, watch: ScalingWatch) -> None:
        self._watch = watch

    async def IsActive(
        self, request: externalscaler_pb2.ScaledObjectRef, context: Context
    ) -> externalscaler_pb2.IsActiveResponse:
        """Return whether at least one instance is desired."""
        return externalscaler_pb2.IsActiveResponse(result=self._desired(request).desired > 0)

    async def StreamIsActive(
        self, request: externalscaler_pb2.ScaledObjectRef, context: Context
    ) -> AsyncIterator[externalscaler_pb2.IsActiveResponse]:
        """Stream whether at least one instance is desired, at once and at each change, until KEDA leaves.

        Raises LimitReached for too many streams.
        """
        told: bool | None = None
        async with aclosing(self._watch.follow()) as looks:
            async for _ in looks:
                active = self._desired(request).desired > 0
                if active is not told:
                    told = active
                    yield externalscaler_pb2.IsActiveResponse(result=active)

    async def GetMetricSpec(
        self, request: externalscaler_pb2.ScaledObjectRef, context: Context
    ) -> externalscaler_pb2.GetMetricSpecResponse:
        """Return the one metric, with the target 1."""
        self._desired(request)
        spec = externalscaler_pb2.MetricSpec(metricName=METRIC, targetSize=1, targetSizeFloat=1.0)
        return externalscaler_pb2.GetMetricSpecResponse(metricSpecs=[spec])

    async def GetMetrics(
        self, request: externalscaler_pb2.GetMetricsRequest, context: Context
    ) -> externalscaler_pb2.GetMetricsResponse:
        """Return the desired number of instances."""
        if request.metricName not in ("", METRIC):
            raise InvalidRequest([FieldViolation(field="metricName", description=f"the one metric is {METRIC}")])
        count = self._desired(request.scaledObjectRef).desired
        value = externalscaler_pb2.MetricValue(metricName=METRIC, metricValue=count, metricValueFloat=float(count))
        return externalscaler_pb2.GetMetricsResponse(metricValues=[value])

    def _desired(self, of: externalscaler_pb2.ScaledObjectRef) -> DesiredInstances:
        """Return the desired number that the metadata names.  Raises InvalidRequest, Recovering."""
        model, role = of.scalerMetadata.get("model", ""), of.scalerMetadata.get("role", InstanceRole.GENERAL.value)
        found = next((d for d in self._watch.known() if (d.model, d.role.value) == (model, role)), None)
        if found is not None:
            return found
        raise InvalidRequest([FieldViolation(field="scalerMetadata", description=self._why_not(model, role))])

    def _why_not(self, model: str, role: str) -> str:
        if not self._watch.settings.enabled:
            return "the scheduler's setting scaling.enabled is off"
        names = [f"model {d.model!r}, role {d.role.value!r}" for d in self._watch.desired]
        shown = "; ".join(names[:_NAMES_SHOWN]) + (
            f"; and {more} more" if (more := len(names) - _NAMES_SHOWN) > 0 else ""
        )
        return f"model {model!r} has no instances of role {role!r} to count; there are: {shown or 'none'}"

"""The configuration section ``telemetry.cloudwatch``."""

from __future__ import annotations

from importlib.util import find_spec

from pydantic import Field, field_validator

from sage_common.configuration import Section

DIMENSIONS_LIMIT = 20
"""Labels that may become dimensions: CloudWatch takes 30 in all."""


class CloudWatchSettings(Section):
    """Metrics in Amazon CloudWatch; off until a namespace is given.  Credentials and region as boto3 finds them."""

    namespace: str | None = Field(
        default=None,
        min_length=1,
        max_length=255,
        pattern=r"^[A-Za-z0-9._/#:-]+$",
        description="Namespace to put metrics into.  Needs boto3: pip install 'sage-control-plane[cloudwatch]'.",
    )
    region: str | None = Field(default=None, description="AWS region.  Default: as boto3 finds it.")
    endpoint_url: str | None = Field(
        default=None, description="URL of the service, such as a VPC endpoint's.  Default: the region's own."
    )
    interval_s: float = Field(default=60.0, ge=1.0, description="Seconds between two exports.")
    dimensions: tuple[str, ...] = Field(
        default=("model",),
        max_length=DIMENSIONS_LIMIT,
        description="Labels that become dimensions beside `service`; what differs in others is added up.  Each "
        "combination of values is a metric that is paid for.  `instance` of an executor's metrics is its id.",
    )
    metrics: tuple[str, ...] = Field(
        default=(), description="Beginnings of the names to export, such as sage.requests.  Default: all."
    )

    @field_validator("namespace")
    @classmethod
    def _can_be_sent(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if value.startswith("AWS/"):
            raise ValueError("namespaces that begin with AWS/ are Amazon's own")
        if find_spec("boto3") is None:
            raise ValueError("boto3 is not installed: pip install 'sage-control-plane[cloudwatch]'")
        return value

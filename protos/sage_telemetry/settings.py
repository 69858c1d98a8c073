"""The configuration section ``telemetry``, the same in both services."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, field_validator

from sage_telemetry.endpoints import OtlpEndpoint, is_loopback, split_address


class TelemetrySettings(BaseModel):
    """Where telemetry goes, and how much of it.  Everything is off until an address is given."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    otlp_endpoint: str | None = Field(
        default=None,
        description="http://host:port (or https://) of an OTLP/gRPC receiver for traces and metrics. Default: none.",
    )
    sampling_ratio: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="Share of requests traced whose caller did not decide; the caller's decision is kept.",
    )
    metrics_listen: str | None = Field(
        default=None, description="host:port to serve Prometheus metrics on; port 0 takes a free one. Default: none."
    )
    trace_push_interval_s: float = Field(
        default=1.0, gt=0.0, allow_inf_nan=False, description="Seconds that spans wait for others to travel with."
    )
    metrics_push_interval_s: float = Field(
        default=15.0, gt=0.0, allow_inf_nan=False, description="Seconds between two pushes of metrics to the receiver."
    )
    content: bool = Field(
        default=False, description="Put prompts and outputs on spans. Whoever reads traces then reads them."
    )
    resource: dict[str, str] = Field(
        default_factory=dict, description="Further attributes of this process, as name=value: deployment, pod, ..."
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        if value is not None:
            OtlpEndpoint.parse(value)
        return value

    @field_validator("metrics_listen")
    @classmethod
    def _has_port(cls, value: str | None) -> str | None:
        if value is not None:
            split_address(value)
        return value

    @property
    def on(self) -> bool:
        """Whether any export is on."""
        return self.otlp_endpoint is not None or self.metrics_listen is not None

    @property
    def otlp(self) -> OtlpEndpoint | None:
        """The receiver of spans and metrics; None where there is none."""
        return None if self.otlp_endpoint is None else OtlpEndpoint.parse(self.otlp_endpoint)

    def unsafe(self, *, tls: bool) -> str | None:
        """Return in one line what needs ``insecure``, or None.  ``tls``: whether the service has a certificate."""
        if self.metrics_listen is not None and not tls and not is_loopback(self.metrics_listen):
            return (
                f"telemetry.metrics_listen: {self.metrics_listen} is not loopback: "
                "give tls.certificate and tls.private_key, or insecure"
            )
        otlp = self.otlp
        if otlp is not None and not otlp.secure and not is_loopback(otlp.target):
            return f"telemetry.otlp_endpoint: {self.otlp_endpoint} is not loopback: give an https one, or insecure"
        return None

"""The configuration section ``telemetry``, the same in both services."""

from __future__ import annotations

from pydantic import Field, field_validator

from sage_common.addresses import is_loopback, split_host_port
from sage_common.configuration import Section
from sage_common.tls import CERTIFICATE_KEYS
from sage_telemetry.cloudwatch_settings import CloudWatchSettings
from sage_telemetry.endpoints import OtlpEndpoint


class TelemetrySettings(Section):
    """Metrics and traces.  Both are off until an address is given."""

    otlp_endpoint: str | None = Field(
        default=None,
        description="http://host:port or https://host:port of the OTLP/gRPC receiver of traces and metrics.",
    )
    sampling_ratio: float = Field(
        default=1.0,
        ge=0.0,
        le=1.0,
        description="Share of requests that are traced, 0 to 1, where the caller's trace context does not decide it.",
    )
    metrics_listen: str | None = Field(
        default=None, description="host:port to serve Prometheus metrics on; port 0 picks a free port.  Default: none."
    )
    trace_push_interval_s: float = Field(
        default=1.0, gt=0.0, description="Seconds between two exports of spans to the receiver."
    )
    metrics_push_interval_s: float = Field(
        default=15.0, gt=0.0, description="Seconds between two exports of metrics to the receiver."
    )
    content: bool = Field(
        default=False, description="Record prompts and outputs on spans, readable by everyone who can read traces."
    )
    resource: dict[str, str] = Field(
        default_factory=dict,
        description="Further resource attributes as name=value: deployment, pod, ...",
    )

    cloudwatch: CloudWatchSettings = Field(
        default_factory=CloudWatchSettings, description="Metrics in Amazon CloudWatch; off until a namespace is given."
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        return checked_endpoint(value)

    @field_validator("metrics_listen")
    @classmethod
    def _has_port(cls, value: str | None) -> str | None:
        if value is not None:
            split_host_port(value)
        return value

    @property
    def on(self) -> bool:
        """Whether any export is on."""
        return any(each is not None for each in (self.otlp_endpoint, self.metrics_listen, self.cloudwatch.namespace))

    @property
    def otlp(self) -> OtlpEndpoint | None:
        """Return the parsed ``otlp_endpoint``; None where none is set."""
        return None if self.otlp_endpoint is None else OtlpEndpoint.parse(self.otlp_endpoint)

    def unsafe(self, *, tls: bool) -> str | None:
        """Say which address needs --insecure, in one line; None if none does.  ``tls``: there is a certificate."""
        if self.metrics_listen is not None and not tls and not is_loopback(self.metrics_listen):
            return (
                f"telemetry.metrics_listen: {self.metrics_listen} is not loopback: give {CERTIFICATE_KEYS}, or insecure"
            )
        return unsafe_endpoint("telemetry.otlp_endpoint", self.otlp_endpoint)


def checked_endpoint(url: str | None) -> str | None:
    """Return the URL of an OTLP receiver as it is.  Raises ValueError for one that cannot be used."""
    if url is not None:
        OtlpEndpoint.parse(url)
    return url


def unsafe_endpoint(key: str, url: str | None) -> str | None:
    """Say in one line that an OTLP receiver needs --insecure; None if it does not.  ``key``: the setting's name."""
    otlp = None if url is None else OtlpEndpoint.parse(url)
    if otlp is not None and not otlp.secure and not is_loopback(otlp.target):
        return f"{key}: {url} is not loopback: give an https one, or insecure"
    return None

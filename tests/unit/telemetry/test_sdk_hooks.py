"""The span writer overrides methods that the OpenTelemetry SDK keeps to itself.  They are recorded here with the range
of versions that has them; whoever raises the upper bound reads them again first (`make test-otel-versions`)."""

from __future__ import annotations

import inspect
import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter
from opentelemetry.exporter.otlp.proto.grpc.exporter import OTLPExporterMixin
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from sage_telemetry import sdk_logs
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.log_export import LogExporter
from sage_telemetry.resource import Identity
from sage_telemetry.span_export import RequestExporter
from sage_telemetry.spans import empty_request

ROOT = Path(__file__).resolve().parents[3]
OLDEST, BELOW = (1, 36), (1, 46)
COUNT_DATA_SINCE = (1, 42)
"""From here on the exporter asks ``_count_data`` for the number of spans; before, nothing calls it."""
PACKAGES = ("opentelemetry-sdk", "opentelemetry-exporter-otlp-proto-grpc", "opentelemetry-proto")
NOBODY = OtlpEndpoint("127.0.0.1:9", secure=False)


def installed(package: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version(package).split(".")[:2])


def parameters(method: object) -> list[str]:
    assert callable(method)
    return list(inspect.signature(method).parameters)


@pytest.mark.parametrize("package", PACKAGES)
def test_the_installed_version_is_within_the_range_that_was_looked_at(package: str) -> None:
    assert OLDEST <= installed(package) < BELOW


@pytest.mark.parametrize("package", PACKAGES)
def test_the_bounds_in_pyproject_are_that_range(package: str) -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    wanted = {each for extra in extras.values() for each in extra if re.match(rf"{package}\b[^-]", each)}
    bounds = (".".join(map(str, bound)) for bound in (OLDEST, BELOW))
    assert wanted == {"{}>={},<{}".format(package, *bounds)}


def test_the_exporter_has_the_methods_that_the_span_writer_overrides() -> None:
    assert parameters(OTLPSpanExporter.export) == ["self", "spans"]
    assert parameters(OTLPSpanExporter._translate_data) == ["self", "data"]
    counts = installed("opentelemetry-exporter-otlp-proto-grpc") >= COUNT_DATA_SINCE
    assert hasattr(OTLPSpanExporter, "_count_data") == counts
    if counts:
        assert parameters(OTLPSpanExporter._count_data) == ["self", "data"]


def test_the_exporter_hands_on_what_it_was_given_without_looking_into_it() -> None:
    source = inspect.getsource(OTLPExporterMixin._export)
    uses = set(re.findall(r"[\w.]*\(data\)|\bdata\b(?![:)])\S*", source.split('"""')[-1]))
    assert uses <= {"self._translate_data(data)", "self._count_data(data)"}


def test_a_written_request_is_neither_translated_nor_counted_wrongly() -> None:
    exporter = RequestExporter(endpoint=NOBODY.target, insecure=True, timeout=1.0)
    request: ExportTraceServiceRequest = empty_request(Identity(service="scheduler", instance_id="test"))
    for _ in range(3):
        request.resource_spans[0].scope_spans[0].spans.add()
    try:
        assert exporter._translate_data(request) is request
        assert exporter._count_data(request) == 3
    finally:
        exporter.shutdown()


def test_the_same_holds_for_log_records() -> None:
    assert parameters(OTLPLogExporter.export) == ["self", "batch"]
    assert parameters(OTLPLogExporter._translate_data) == ["self", "data"]
    exporter = LogExporter(endpoint=NOBODY.target, insecure=True, timeout=1.0)
    request = ExportLogsServiceRequest()
    request.resource_logs.add().scope_logs.add().log_records.add()
    try:
        assert exporter._translate_data(request) is request
        assert exporter._count_data(request) == 1
    finally:
        exporter.shutdown()


def test_the_exporters_log_lines_come_from_where_they_are_held_back() -> None:
    assert OTLPExporterMixin.__module__ == sdk_logs._EXPORTER

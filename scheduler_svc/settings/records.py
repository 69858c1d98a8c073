"""What is kept of requests that ended: for explain, for accounting, for the simulator."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from sage_common.configuration import Section
from sage_telemetry.endpoints import OtlpEndpoint
from sage_telemetry.settings import checked_endpoint


class RecordSection(Section):
    """How much of ended requests is kept, for explain and for clients that reconnect."""

    requests: int = Field(default=2_000, ge=1, description="Most ended requests kept.")
    memory_bytes: int = Field(
        default=256 * 2**20,
        ge=2**20,
        description="Most bytes of memory for them, estimated: outputs, log probabilities, decisions, histories.",
    )


class UsageSection(Section):
    """Usage records: one for each request that ended, without its prompt and output."""

    keep_s: float = Field(
        default=31 * 86_400.0, gt=0, description="Seconds that usage records are kept in the journal."
    )
    max_bytes: int = Field(
        default=2**30,
        ge=2**20,
        description="Most bytes of usage records in the journal, estimated; the oldest go first.  Never more than a"
        " quarter of journal.max_bytes, where that bounds the journal.",
    )
    file: Path | None = Field(
        default=None,
        description="File to append usage records to, one JSON object a line.  Off without a file.  Works without a"
        " journal, too.",
    )
    file_max_bytes: int = Field(
        default=256 * 2**20, ge=65_536, description="Size in bytes at which the file is put aside as FILE.1."
    )
    files: int = Field(
        default=4, ge=2, le=1_000, description="Most files kept, usage.file itself included; the oldest is deleted."
    )
    otlp_endpoint: str | None = Field(
        default=None,
        description="http://host:port or https://host:port of an OTLP/gRPC receiver of logs, which gets every usage"
        " record as a log record.  Works without a journal, too.",
    )

    @field_validator("otlp_endpoint")
    @classmethod
    def _parses(cls, value: str | None) -> str | None:
        return checked_endpoint(value)

    @property
    def otlp(self) -> OtlpEndpoint | None:
        """Return the parsed ``otlp_endpoint``; None where none is set."""
        return None if self.otlp_endpoint is None else OtlpEndpoint.parse(self.otlp_endpoint)


class RecordingSection(Section):
    """A file of the requests that ended, the instances and their load, for `sagectl simulate`; without prompts."""

    file: Path | None = Field(
        default=None,
        description="File to write, one JSON object a line; an older one is put aside as FILE.1. Off without a file. "
        "Also --record FILE.",
    )
    max_bytes: int = Field(
        default=256 * 1024 * 1024, ge=65_536, description="Size in bytes at which a file is put aside as FILE.1."
    )
    files: int = Field(
        default=4, ge=2, le=1_000, description="Most files kept, FILE itself included; the oldest is deleted."
    )
    tenants: bool = Field(
        default=True, description="Write a hash of each request's tenant, salted anew at every start."
    )

"""Batches and their files."""

from __future__ import annotations

from pydantic import Field

from sage_common.configuration import Section


class BatchesSection(Section):
    """Batches, and the files that they read and write; only with a journal."""

    file_bytes: int = Field(default=200 * 2**20, ge=1, description="Most bytes of a file that is uploaded.")
    line_bytes: int = Field(default=2**20, ge=1, description="Most bytes of one line of a batch.")
    lines: int = Field(default=50_000, ge=1, description="Most lines of a batch.")
    tenant_bytes: int = Field(
        default=2**30, ge=1, description="Most bytes of one tenant's files; those that batches write may go beyond it."
    )
    tenant_files: int = Field(default=1_000, ge=1, description="Most files that one tenant has uploaded.")
    tenant_batches: int = Field(default=1_000, ge=1, description="Most batches of one tenant, ended ones included.")
    tenant_unfinished: int = Field(default=32, ge=1, description="Most batches of one tenant that have not ended.")
    tenant_uploads: int = Field(default=16, ge=1, description="Most files that one tenant uploads at the same time.")
    bytes: int = Field(
        default=4 * 2**30, ge=1, description="Most bytes of all tenants' files; keep it below journal.max_bytes."
    )
    files: int = Field(default=20_000, ge=1, description="Most files that all tenants have uploaded.")
    batches: int = Field(default=20_000, ge=1, description="Most batches of all tenants, ended ones included.")
    unfinished: int = Field(default=256, ge=1, description="Most batches of all tenants that have not ended.")
    uploads: int = Field(default=64, ge=1, description="Most files that all tenants upload at the same time.")
    lines_in_flight: int = Field(
        default=256, ge=1, description="Most lines of all batches that wait or run at the same time."
    )
    deadline_s: float = Field(default=86_400.0, gt=0, description="Deadline in seconds of batches that set none.")
    deadline_limit_s: float = Field(default=604_800.0, gt=0, description="Most seconds that a batch may ask for.")
    keep_s: float = Field(
        default=604_800.0,
        gt=0,
        description="Seconds that files are kept, and batches with their outputs after the end, unless callers say.",
    )
    keep_limit_s: float = Field(default=2_592_000.0, gt=0, description="Most seconds for which callers may ask.")
    unknown_model_s: float = Field(
        default=300.0,
        ge=0,
        description="Seconds after the start in which a line waits for a model that the scheduler does not know.",
    )

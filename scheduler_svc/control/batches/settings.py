"""Settings of batches and of the files that are kept for them."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchSettings:
    """Bounds of batches and files."""

    file_bytes: int = 200 * 2**20  # of one file that is uploaded
    line_bytes: int = 2**20  # of one line of a batch
    lines: int = 50_000  # of one batch
    tenant_bytes: int = 2**30  # of one tenant's files, outputs included
    tenant_files: int = 1_000  # of one tenant, outputs not counted
    tenant_batches: int = 1_000  # of one tenant, ended ones included
    tenant_unfinished: int = 32  # of one tenant's batches, those that have not ended
    tenant_uploads: int = 16  # of one tenant's files that are uploaded at the same time
    bytes: int = 4 * 2**30  # of all tenants' files
    files: int = 20_000  # of all tenants
    batches: int = 20_000  # of all tenants
    unfinished: int = 256  # of all tenants' batches, those that have not ended
    uploads: int = 64  # of all tenants' files that are uploaded at the same time
    lines_in_flight: int = 256  # of all batches: lines that wait or run
    deadline_s: float = 86_400.0  # of batches that set none
    deadline_limit_s: float = 604_800.0  # most that a batch may ask for
    keep_s: float = 604_800.0  # of uploaded files; of batches and outputs, after the batch's end
    keep_limit_s: float = 2_592_000.0  # most that a caller may ask for
    unknown_model_s: float = 300.0  # for how long after its start the scheduler waits for a model that it does not know

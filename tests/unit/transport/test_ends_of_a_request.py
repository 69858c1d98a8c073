"""``docs/ends-of-a-request.md`` says what the code does: errors, statuses, reasons, labels, exceptions, files."""

from __future__ import annotations

import re
from pathlib import Path

import grpc
import pytest

from sage_client import _errors as sdk
from sage_client._status import BY_REASON
from sage_wire.errors import ErrorReason
from scheduler_svc.access import identity
from scheduler_svc.control.instances import registration
from scheduler_svc.control.requests.observer import FailoverCause
from scheduler_svc.domain import errors
from scheduler_svc.domain.request import RequestState
from scheduler_svc.telemetry.outcomes import REASONS as LABELS
from scheduler_svc.telemetry.request_metrics import REFUSED
from scheduler_svc.transport.errors import REASONS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "ends-of-a-request.md").read_text()
NONE = "–"
ERRORS = {kind.__name__: kind for kind in REASONS}

Row = dict[str, str]


def _rows(heading: str) -> list[Row]:
    """The rows of the table below a heading, by column."""
    section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    header, _, *body = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(header, cells, strict=True)) for cells in body]


REQUESTS = _rows("Requests (")
CLIENTS = _rows("Ends that only the client sees")
OTHER_CALLS = _rows("Other calls")
WITH_REASON = [row for row in (*REQUESTS, *OTHER_CALLS) if row["reason"] != NONE]


def _name(row: Row) -> str:
    return row.get("how it ends") or row.get("when") or row["what happened"]


def test_every_error_of_the_domain_is_on_the_page() -> None:
    assert {kind.__name__ for kind in errors.SchedulerError.__subclasses__()} <= {row["error"] for row in WITH_REASON}


def test_the_page_names_every_mapped_error_and_no_other() -> None:
    assert {row["error"] for row in WITH_REASON} - {NONE, "any other", "WireError"} == ERRORS.keys()


def test_every_reason_is_on_the_page() -> None:
    assert {row["reason"] for row in WITH_REASON} == {reason.code for reason in ErrorReason}


@pytest.mark.parametrize("row", WITH_REASON, ids=_name)
def test_a_row_has_the_reason_and_status_of_its_error(row: Row) -> None:
    reason = ErrorReason[row["reason"]]
    assert row["status"] == reason.status.name
    if row["error"] in ERRORS:
        assert REASONS[ERRORS[row["error"]]] is reason
    elif row["error"] == "any other":
        assert reason is ErrorReason.INTERNAL
    else:
        assert reason not in REASONS.values()


@pytest.mark.parametrize("row", WITH_REASON, ids=_name)
def test_a_row_has_the_exception_of_its_reason(row: Row) -> None:
    raised = BY_REASON.get(ErrorReason[row["reason"]])
    assert row["SDK raises"] in {NONE, raised.__name__ if raised is not None else NONE}
    assert raised is None or "Control" in row.get("call", "") or row["SDK raises"] == raised.__name__


def test_every_exception_by_reason_is_on_the_page() -> None:
    assert {kind.__name__ for kind in BY_REASON.values()} <= {row["SDK raises"] for row in WITH_REASON}


@pytest.mark.parametrize("row", CLIENTS, ids=_name)
def test_what_only_the_client_sees_is_an_exception_of_the_sdk(row: Row) -> None:
    assert issubclass(getattr(sdk, row["SDK raises"]), sdk.SageError)


@pytest.mark.parametrize("row", REQUESTS, ids=_name)
def test_a_request_has_the_labels_of_its_end(row: Row) -> None:
    ends = {state.value for state in RequestState if state.ended} | {REFUSED}
    assert row["outcome"] in ends
    if row["error"] in ERRORS and row["label"] != "client_gone":
        assert LABELS[ERRORS[row["error"]]] == row["label"]


def test_every_label_of_an_end_is_on_the_page() -> None:
    found = {row["label"] for row in REQUESTS}
    assert found == {*LABELS.values(), "stop", "length", "client_gone", "delivery_failed", "internal"}
    assert {row["outcome"] for row in REQUESTS} == {state.value for state in RequestState if state.ended} | {REFUSED}


@pytest.mark.parametrize("row", [*REQUESTS, *OTHER_CALLS], ids=_name)
def test_a_row_names_files_that_give_its_error(row: Row) -> None:
    files = re.findall(r"`([^`]+\.py)`", row["decided in"])
    assert files or row["decided in"] == NONE
    for file in files:
        source = (ROOT / "scheduler_svc" / file).read_text()
        if row["error"] in {*ERRORS, "WireError"}:
            assert re.search(rf"\b(?:{row['error']}|_refused)\(|raise {row['error']}\b", source), file


def test_statuses_are_grpcs() -> None:
    names = {code.name for code in grpc.StatusCode}
    assert {row["status"].partition(" ")[0] for row in (*REQUESTS, *OTHER_CALLS)} <= names


def test_the_page_names_every_cause_of_a_failover() -> None:
    assert [cause.value for cause in FailoverCause if f"`{cause.value}`" not in PAGE] == []


def test_other_errors_are_about_registrations_and_about_who_calls() -> None:
    others = {kind for kind in REASONS if not issubclass(kind, errors.SchedulerError)}
    denied = {identity.Unauthenticated, identity.PermissionDenied}
    assert others == {registration.DuplicateInstance, registration.UnknownSession, *denied}

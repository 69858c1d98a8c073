"""The SDK's public face."""

from __future__ import annotations

import dataclasses
import inspect
import typing

import sage_client

PUBLIC = {
    "clients": {"AsyncClient", "AsyncStream", "Client", "Stream", "Reconnect", "DEFAULT_ADDRESS"},
    "detached work": {"AsyncDetachedRequest", "DetachedRequest", "RequestInfo", "RequestStatus", "Result"},
    "batches": {
        "Batch",
        "BatchAnswer",
        "BatchCounts",
        "BatchFault",
        "BatchOutcome",
        "BatchState",
        "FilePurpose",
        "StoredFile",
    },
    "sinks": {"Call", "Sink"},
    "embeddings": {"EmbedOptions", "Embeddings", "Scores"},
    "JSON": {"plain"},
    "requests": {
        "Audio",
        "ChatMessage",
        "Image",
        "GenerateOptions",
        "SamplingOptions",
        "NoInstance",
        "Priority",
        "ResumeMode",
    },
    "events": {
        *("Accepted", "Scheduled", "PromptRead", "Tokens", "ChoiceFinished", "Finished", "Event"),
        *("Choice", "Completion", "PartialOutput"),
    },
    "values": {
        "Attempt",
        "Candidate",
        "Decision",
        "FinishReason",
        "InstanceRole",
        "Parallelism",
        "Phase",
        "Prediction",
        "RequestState",
        "SloResult",
        "TimeUse",
        "Timings",
        "TokenLogprob",
        "Usage",
    },
    "prefill/decode": {
        "PairState",
        "PrefillDecodeConfig",
        "PrefillDecodePair",
        "PrefillDecodeSide",
        "PrefillDecodeStatus",
        "RoleChange",
        "SplitMode",
    },
    "models": {"AudioInput", "Model", "ModelFiles"},
    "scaling": {"DesiredFleet", "DesiredInstances"},
    "adapters": {"Adapter", "AdapterState", "InstanceAdapter"},
    "fleet": {
        "Cancellation",
        "Explanation",
        "FleetCounts",
        "FleetSnapshot",
        "FleetView",
        "HistoryEntry",
        "Instance",
        "InstanceDecision",
        "InstanceState",
        "Location",
        "PolicyChange",
        "PolicyInfo",
        "PolicyStatus",
        "PredictedMeans",
        "ShadowPolicy",
        "ShadowPolicyChange",
        "PolicySwitch",
        "QueueInfo",
        "RecentDecision",
        "RecentFailover",
        "SloAttainment",
        "FleetStretch",
        "Percentiles",
        "SchedulerState",
        "SchedulerStatus",
        "TimeSlice",
    },
    "journal": {"JournalStatus", "JournalCompaction", "UsageGroup", "UsageRecord", "UsageSum"},
    "errors": {
        "AuthenticationError",
        "ConfigurationError",
        "DeadlineExceededError",
        "FieldViolation",
        "GenerationFailedError",
        "ModelChangedError",
        "InstanceNotFoundError",
        "BatchFailedError",
        "BatchNotFoundError",
        "StoredFileNotFoundError",
        "InternalError",
        "InvalidRequestError",
        "InvalidStateError",
        "LimitReachedError",
        "NoInstanceError",
        "NoJournalError",
        "NotFoundError",
        "NotLeaderError",
        "NotSupportedError",
        "OverloadedError",
        "ProtocolError",
        "QueueFullError",
        "RequestCancelledError",
        "RequestConflictError",
        "RequestEndedError",
        "RequestNotFoundError",
        "SageError",
        "ShuttingDownError",
        "RecoveringError",
        "JournalUnavailableError",
        "OutputInvalidError",
        "OutputLostError",
        "StreamLostError",
        "TenantLimitError",
        "TlsRequiredError",
        "TryAgainError",
        "UnavailableError",
        "UnknownModelError",
        "UnknownPolicyError",
        "WaitTimeoutError",
    },
}


def test_exactly_these_names_are_exported() -> None:
    assert set(sage_client.__all__) == set().union(*PUBLIC.values())


def test_every_exported_name_is_there() -> None:
    missing = [name for name in sage_client.__all__ if not hasattr(sage_client, name)]

    assert missing == []


def test_everything_else_is_private() -> None:
    stray = {
        name
        for name, value in vars(sage_client).items()
        if not name.startswith("_") and name not in sage_client.__all__ and not inspect.ismodule(value)
    }

    assert stray == set()


def test_every_error_is_a_sage_error_and_in_the_drawing() -> None:
    drawing = inspect.getdoc(inspect.getmodule(sage_client.SageError)) or ""
    errors = {name for name in PUBLIC["errors"] if name != "FieldViolation"}

    assert all(issubclass(getattr(sage_client, name), sage_client.SageError) for name in errors)
    assert {name for name in errors if name not in drawing} == set()


def test_both_clients_offer_the_same_but_for_sinks_which_need_an_event_loop() -> None:
    def offered(client: type) -> dict[str, list[str]]:
        members = inspect.getmembers(client, inspect.isfunction)
        return {
            name: [p for p in inspect.signature(method).parameters if p != "timeout"]
            for name, method in members
            if not name.startswith("_") and name != "start"
        }

    assert offered(sage_client.Client) == offered(sage_client.AsyncClient)


def test_every_value_is_frozen() -> None:
    values = [
        *typing.get_args(sage_client.Event),
        *(getattr(sage_client, n) for n in PUBLIC["values"] | PUBLIC["fleet"] | PUBLIC["batches"]),
    ]
    classes = [v for v in values if hasattr(v, "__dataclass_params__")]

    assert len(classes) > 20
    assert all(v.__dataclass_params__.frozen for v in classes)
    assert all(field.kw_only for v in classes for field in dataclasses.fields(v))

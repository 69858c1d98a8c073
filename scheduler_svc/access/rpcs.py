"""The table of RPCs: which roles may call each one.  An RPC without a row is refused."""

from __future__ import annotations

from dataclasses import dataclass

from sage_common.grants import Role
from scheduler_svc.access.identity import Identity, PermissionDenied

_CALLERS = frozenset({Role.APPLICATION, Role.GATEWAY})
_WATCHERS = frozenset({Role.OPERATOR, Role.OBSERVER})
_OPERATORS = frozenset({Role.OPERATOR})
_EXECUTORS = frozenset({Role.EXECUTOR})
_EVERY_ROLE = frozenset(Role)

_INFERENCE = "/sage.controlplane.v1.InferenceService/"
_EXECUTOR = "/sage.controlplane.v1.ExecutorService/"
_ADMIN = "/sage.controlplane.v1.AdminService/"
_SCALER = "/externalscaler.ExternalScaler/"
_HEALTH = "/grpc.health.v1.Health/"


@dataclass(frozen=True, slots=True)
class Rule:
    """Who may call one RPC."""

    roles: frozenset[Role]
    public: bool = False  # also callers that do not say who they are
    action: bool = False  # it changes something: the audit log has a line for each call


RULES: dict[str, Rule] = {
    f"{_INFERENCE}Generate": Rule(_CALLERS),
    f"{_INFERENCE}Session": Rule(_CALLERS),
    f"{_INFERENCE}Cancel": Rule(_CALLERS | _OPERATORS),
    f"{_INFERENCE}Submit": Rule(_CALLERS),
    f"{_INFERENCE}Attach": Rule(_CALLERS),
    f"{_INFERENCE}Get": Rule(_CALLERS),
    f"{_INFERENCE}List": Rule(_CALLERS),
    f"{_INFERENCE}Embed": Rule(_CALLERS),
    f"{_INFERENCE}SubmitBatch": Rule(_CALLERS),
    f"{_INFERENCE}GetBatch": Rule(_CALLERS),
    f"{_INFERENCE}ListBatches": Rule(_CALLERS),
    f"{_INFERENCE}CancelBatch": Rule(_CALLERS),
    f"{_INFERENCE}UploadFile": Rule(_CALLERS),
    f"{_INFERENCE}GetFile": Rule(_CALLERS),
    f"{_INFERENCE}ListFiles": Rule(_CALLERS),
    f"{_INFERENCE}DownloadFile": Rule(_CALLERS),
    f"{_INFERENCE}DeleteFile": Rule(_CALLERS),
    f"{_INFERENCE}ListModels": Rule(_CALLERS | _WATCHERS),
    f"{_INFERENCE}GetModelFiles": Rule(_CALLERS | _WATCHERS),
    f"{_EXECUTOR}Control": Rule(_EXECUTORS),
    f"{_EXECUTOR}Outputs": Rule(_EXECUTORS),
    f"{_ADMIN}GetPolicy": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}SetPolicy": Rule(_OPERATORS, action=True),
    f"{_ADMIN}GetShadowPolicy": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}SetShadowPolicy": Rule(_OPERATORS, action=True),
    f"{_ADMIN}ListInstances": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}GetInstance": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}DrainInstance": Rule(_OPERATORS, action=True),
    f"{_ADMIN}ResumeInstance": Rule(_OPERATORS, action=True),
    f"{_ADMIN}SleepInstance": Rule(_OPERATORS, action=True),
    f"{_ADMIN}WakeInstance": Rule(_OPERATORS, action=True),
    f"{_ADMIN}SetInstanceRole": Rule(_OPERATORS, action=True),
    f"{_ADMIN}AddAdapter": Rule(_OPERATORS, action=True),
    f"{_ADMIN}ListAdapters": Rule(_WATCHERS),
    f"{_ADMIN}RemoveAdapter": Rule(_OPERATORS, action=True),
    f"{_ADMIN}GetPrefillDecode": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}SetPrefillDecode": Rule(_OPERATORS, action=True),
    f"{_ADMIN}Explain": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}WatchFleet": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}ListDesiredInstances": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}GetScheduler": Rule(_CALLERS | _WATCHERS),
    f"{_ADMIN}ListUsage": Rule(_WATCHERS),
    f"{_ADMIN}SumUsage": Rule(_WATCHERS),
    f"{_ADMIN}GetJournal": Rule(_WATCHERS),
    f"{_ADMIN}CompactJournal": Rule(_OPERATORS, action=True),
    f"{_ADMIN}ExportJournal": Rule(_OPERATORS, action=True),
    f"{_SCALER}IsActive": Rule(_WATCHERS),
    f"{_SCALER}StreamIsActive": Rule(_WATCHERS),
    f"{_SCALER}GetMetricSpec": Rule(_WATCHERS),
    f"{_SCALER}GetMetrics": Rule(_WATCHERS),
    f"{_HEALTH}Check": Rule(_EVERY_ROLE, public=True),
    f"{_HEALTH}List": Rule(_EVERY_ROLE, public=True),
    f"{_HEALTH}Watch": Rule(_EVERY_ROLE, public=True),
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo": Rule(_EVERY_ROLE),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": Rule(_EVERY_ROLE),
}
"""The rule of each RPC by its full name.  docs/security.md has the same table for operators; a test compares them."""

_NOBODY = Rule(frozenset())


def rule_of(method: str) -> Rule:
    """Return the rule of an RPC; one without a row nobody may call."""
    return RULES.get(method, _NOBODY)


def check(identity: Identity, method: str) -> None:
    """Check that ``identity`` may call ``method``.

    Raises:
        PermissionDenied: it may not.
    """
    role = identity.role
    if role is None and method in RULES:
        return
    if role is None or role not in rule_of(method).roles:
        who = identity.name if role is None else f"{identity.name} ({role.value})"
        raise PermissionDenied(f"{who} may not call {method.rpartition('/')[2]}")


def is_action(identity: Identity, method: str) -> bool:
    """Return whether the audit log has a line for this call: it changes something, or an operator cancels."""
    return rule_of(method).action or (identity.role is Role.OPERATOR and method == f"{_INFERENCE}Cancel")

"""Turns the configuration into the settings of each room."""

from __future__ import annotations

from dataclasses import fields

from scheduler_svc.config import SchedulerConfig
from scheduler_svc.control.batches.settings import BatchSettings
from scheduler_svc.control.detached.settings import DetachedSettings
from scheduler_svc.control.instances.session_settings import PROBATION_MAX_S, SessionSettings
from scheduler_svc.control.journal.usage import UsageRetention
from scheduler_svc.control.requests.intake_settings import IntakeSettings
from scheduler_svc.control.requests.prompt_memory import PromptMemoryLimits
from scheduler_svc.control.requests.request_table import RecordLimits
from scheduler_svc.domain.device_groups.settings import DeviceGroupSettings
from scheduler_svc.domain.instance_spec import InstanceRole
from scheduler_svc.domain.pd.settings import PdSettings, SplitMode
from scheduler_svc.domain.prefixes.settings import PrefixSettings
from scheduler_svc.domain.request import Priority
from scheduler_svc.domain.roles.settings import RoleSettings
from scheduler_svc.domain.scaling.settings import Bounds, ScalingSettings
from scheduler_svc.domain.settings import SchedulerSettings
from scheduler_svc.domain.shares.settings import ShareSettings, TenantSettings
from scheduler_svc.recording.log_file import LogFile
from scheduler_svc.settings.tenants import TenantSection
from scheduler_svc.storage.journal.journal import JournalSettings


def scheduler_settings(config: SchedulerConfig) -> SchedulerSettings:
    """Return what the domain needs of the configuration."""
    return SchedulerSettings(
        policy=config.policy,
        queue_limit_per_model=config.queue.limit_per_model,
        refuse_hopeless=config.queue.unmeetable_deadlines == "refuse",
        queue_wait_limit_s={Priority[name]: limit_s for name, limit_s in config.queue.wait_limit_s.items()},
        shares=_share_settings(config),
        stall_limit_s=config.instance.stall_limit_s,
        known_wait_limit_s=config.instance.known_wait_limit_s,
        pd=_pd_settings(config),
        prefix=_prefix_settings(config),
        scaling=_scaling_settings(config),
        roles=_role_settings(config),
    )


def _role_settings(config: SchedulerConfig) -> RoleSettings:
    section = config.automatic_roles
    return RoleSettings(
        automatic=section.enabled,
        interval_s=section.interval_s,
        pressed=section.pressed,
        room=section.room,
        gain=section.gain,
        delay_s=section.delay_s,
        cooldown_s=section.cooldown_s,
        back_s=section.back_s,
        least_prefill=section.least_prefill,
        least_decode=section.least_decode,
    )


def _scaling_settings(config: SchedulerConfig) -> ScalingSettings:
    section = config.scaling
    return ScalingSettings(
        enabled=section.enabled,
        interval_s=section.interval_s,
        share=section.share,
        late_share=section.late_share,
        up_delay_s=section.up_delay_s,
        down_delay_s=section.down_delay_s,
        idle_s=section.idle_s,
        trend_s=section.trend_s,
        warm_up_s=section.warm_up_s,
        bounds=Bounds(least=section.min, most=section.max),
        models={
            model: {InstanceRole(role): Bounds(least=each.min, most=each.max) for role, each in roles.items()}
            for model, roles in section.models.items()
        },
    )


def device_group_settings(config: SchedulerConfig) -> DeviceGroupSettings:
    """Return how the engines that share a device take turns."""
    section = config.device_groups
    return DeviceGroupSettings(
        min_awake_s=section.min_awake_s, turn_factor=section.turn_factor, drain_limit_s=section.drain_limit_s
    )


def session_settings(config: SchedulerConfig) -> SessionSettings:
    """Return the times and limits of executors' sessions."""
    instance = config.instance
    return SessionSettings(
        lease_s=instance.lease_s,
        heartbeat_interval_s=instance.heartbeat_interval_s,
        reconnect_grace_s=instance.reconnect_grace_s,
        adopt_s=instance.adopt_s,
        leader_lease_s=config.leader_lease_s,
        forget_after_s=instance.forget_after_s,
        probation_s=instance.probation_s,
        probation_max_s=max(instance.probation_s, PROBATION_MAX_S),
    )


def intake_settings(config: SchedulerConfig) -> IntakeSettings:
    """Return the bounds and defaults of requests that arrive."""
    return IntakeSettings(
        arriving_limit=config.queue.arriving_limit,
        choices_limit=config.queue.choices_limit,
        default_deadline_s=config.queue.default_deadline_s,
        sampling_defaults={name: model.sampling for name, model in config.models.items()},
        prefix_aware=config.prefix.aware,
        prompt_memory=PromptMemoryLimits(
            total=config.queue.prompt_memory_bytes, tenant=config.queue.tenant_prompt_memory_bytes
        ),
    )


def detached_settings(config: SchedulerConfig) -> DetachedSettings:
    """Return the bounds of detached work."""
    detached = config.detached
    return DetachedSettings(
        default_deadline_s=detached.default_deadline_s,
        keep_result_s=detached.keep_result_s,
        keep_result_limit_s=detached.keep_result_limit_s,
        tenant_requests=detached.tenant_requests,
        tenant_bytes=detached.tenant_bytes,
        requests=detached.requests,
        checkpoint_tokens=detached.checkpoint_tokens,
        checkpoint_s=detached.checkpoint_s,
    )


def batch_settings(config: SchedulerConfig) -> BatchSettings:
    """Return the bounds of batches and files."""
    return BatchSettings(**{each.name: getattr(config.batches, each.name) for each in fields(BatchSettings)})


def record_limits(config: SchedulerConfig) -> RecordLimits:
    """Return the bounds of the record of ended requests."""
    record = config.record
    return RecordLimits(requests=record.requests, memory_bytes=record.memory_bytes)


def journal_settings(config: SchedulerConfig) -> JournalSettings | None:
    """Return where the journal is and what bounds it; None: there is none."""
    url, journal = config.journal_url, config.journal
    if not url:
        return None
    return JournalSettings(url=url, fleet=journal.fleet, limit_s=journal.limit_s, max_bytes=journal.max_bytes)


def usage_retention(config: SchedulerConfig) -> UsageRetention:
    """Return how long, and how many, usage records are kept in the journal."""
    usage, journal = config.usage, config.journal
    # Records of long ids take more than estimated, and the rest of the journal must fit beside them.
    most = journal.max_bytes // 4 if config.journal_url.startswith("sqlite") else usage.max_bytes
    return UsageRetention(keep_s=usage.keep_s, max_bytes=min(usage.max_bytes, most))


def usage_file(config: SchedulerConfig) -> LogFile | None:
    """Return the file of usage records; None: there is none."""
    usage = config.usage
    if usage.file is None:
        return None
    return LogFile(usage.file, max_bytes=usage.file_max_bytes, files=usage.files)


def _share_settings(config: SchedulerConfig) -> ShareSettings:
    shares = config.shares
    return ShareSettings(
        prompt_token_weight=shares.prompt_token_weight,
        output_token_weight=shares.output_token_weight,
        default=_tenant_settings(config.tenant_default),
        tenants={name: _tenant_settings(tenant) for name, tenant in config.tenants.items()},
    )


def _tenant_settings(section: TenantSection) -> TenantSettings:
    return TenantSettings(
        weight=section.weight,
        waiting_limit=section.waiting_limit,
        running_limit=section.running_limit,
        refuses_at_running_limit=section.at_running_limit == "refuse",
        tokens_per_minute=section.tokens_per_minute,
    )


def _pd_settings(config: SchedulerConfig) -> PdSettings:
    pd = config.pd_separation
    return PdSettings(
        mode=SplitMode(pd.routing_policy) if pd.enabled else SplitMode.NEVER,
        threshold_input_tokens=pd.prefilling_threshold_input_tokens,
        threshold_ratio=pd.prefilling_threshold_ratio,
    )


def _prefix_settings(config: SchedulerConfig) -> PrefixSettings:
    prefix = config.prefix
    return PrefixSettings(
        aware=prefix.aware,
        max_index_bytes=prefix.max_index_bytes,
        max_load_ratio=prefix.max_load_ratio,
    )

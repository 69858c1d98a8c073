"""``sagectl instances``: lists instances and queues."""

from __future__ import annotations

import click

from sage_client import Client, FleetView, Instance, InstanceDecision, InstanceState, QueueInfo
from sagectl.options.command import command
from sagectl.options.completion import complete_instance, complete_model
from sagectl.options.connecting import connecting
from sagectl.options.prefixes import with_instance
from sagectl.output.durations import duration
from sagectl.output.formats import Output
from sagectl.output.tables import Cells, show_table

COLUMNS = ("id", "role", "state", "model", "engine", "run", "wait", "assigned", "KV used", "tokens/s", "price/h", "why")
_NUMBERS = ("run", "wait", "assigned", "KV used", "tokens/s", "price/h")
_WHOLE = ("id", "role", "state", *_NUMBERS)
_DROP = ("engine", "price/h", "assigned", "model", "tokens/s", "wait", "KV used", "run", "why")
"""The columns that a narrow terminal leaves out, the least important first; never id, role and state."""


@command(
    examples=[
        ("instances", "all instances and queues"),
        ("instances executor-1 -o yaml", "everything about one"),
        ("instances --model llama -o name", "ids only, for a script"),
        ("instances -o wide", "every column, however narrow the terminal"),
    ]
)
@click.argument("instance_id", required=False, shell_complete=complete_instance)
@click.option("--model", default="", shell_complete=complete_model, help="Only instances and queues of this model.")
@connecting
def instances(client: Client, instance_id: str | None, model: str, output: Output) -> None:
    """List instances and queues, or one instance."""
    if instance_id is not None:
        view = FleetView(instances=(with_instance(client, instance_id, client.get_instance),), queues=())
    else:
        view = client.list_instances(model=model)
    if output.printed(view, names=[each.instance_id for each in view.instances]):
        return
    if not view.instances and not view.queues and not view.decisions:
        click.echo("no instances")
    else:
        rows = [_instance_row(each) for each in view.instances]
        show_table("", COLUMNS, rows, right=_NUMBERS, whole=_WHOLE, drop=_DROP, wide=output.wide)
        queues = [_queue_row(each) for each in view.queues]
        absent = [_decision_row(each) for each in view.decisions]
        show_table("decisions about instances that are not here", ["id", "drained", "role", "why"], absent)
        show_table("queues", ["model", "waiting", "limit", "by class"], queues, right=["waiting", "limit"])


def _instance_row(instance: Instance) -> Cells:
    state = instance.state.value
    if instance.progress is not None and instance.progress < 1:
        state += f" {instance.progress:.0%}"
    share = instance.kv_used_tokens / instance.kv_capacity_tokens if instance.kv_capacity_tokens else 0.0
    return [
        instance.instance_id,
        instance.role.value,
        state,
        instance.model,
        f"{instance.engine} {instance.engine_version}".strip(),
        f"{instance.running}/{instance.max_running}",
        str(instance.waiting),
        str(instance.assigned),
        f"{share:.0%}",
        f"{instance.generation_tokens_per_s:.0f}",
        f"{instance.price_per_hour:g}",
        _why(instance),
    ]


def _why(instance: Instance) -> str:
    """Return what is unusual about an instance, in words: its wait, its state, or a role that was changed."""
    if instance.known_wait or instance.state is not InstanceState.READY:
        return instance.known_wait or instance.state_reason
    change = instance.role_change
    if change is None:
        return ""
    return f"{change.role.value}, before {change.previous.value}, for {duration(change.age_s)}: {change.reason}"


def _decision_row(decision: InstanceDecision) -> Cells:
    role = decision.role.value if decision.role is not None else ""
    return [decision.instance_id, "yes" if decision.drained else "no", role, decision.drain_reason]


def _queue_row(queue: QueueInfo) -> Cells:
    by_class = ", ".join(f"{name} {count}" for name, count in queue.waiting_by_priority.items() if count)
    return [queue.model, str(queue.waiting), str(queue.limit), by_class]

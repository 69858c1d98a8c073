"""What a shell completes with the Tab key: ids and names that the scheduler knows."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields

import click

import sage_client as sage
from sage_client import Client
from sagectl.options.connecting import nearest
from sagectl.options.connection import Connector
from sagectl.options.prefixes import batch_ids, instance_ids, request_ids

LIMIT_S = 2.0
"""Seconds that a call may take: who presses Tab waits for it."""

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def _from_scheduler(names: Callable[[Client], Iterable[str]]) -> Complete:
    """Return a completion by what the scheduler answers; nothing if it cannot be asked."""

    def complete(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
        try:
            with _connector(context).client(limit_s=LIMIT_S) as client:
                return [each for each in names(client) if each.startswith(incomplete)]
        except sage.SageError:
            return []

    return complete


def _connector(context: click.Context) -> Connector:
    return Connector(
        **{each.name: nearest(context, each.name, context.params.get(each.name)) for each in fields(Connector)}
    )


complete_instance = _from_scheduler(instance_ids)
complete_request = _from_scheduler(request_ids)
complete_batch = _from_scheduler(batch_ids)
complete_model = _from_scheduler(lambda client: [each.name for each in client.models()])
complete_policy = _from_scheduler(lambda client: [each.name for each in client.get_policy().available])

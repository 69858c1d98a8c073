"""``sagectl explain``."""

from __future__ import annotations

import click

from sage_client import Candidate, Client, Decision, Explanation
from sagectl.connecting import connecting
from sagectl.json_output import print_json
from sagectl.tables import Cells, show_table


@click.command()
@click.argument("request_id")
@connecting
def explain(client: Client, request_id: str, as_json: bool) -> None:
    """Why a request went where it went: its history, every candidate, the reasons."""
    explanation = client.explain(request_id)
    if as_json:
        print_json(explanation)
        return
    _show_state(explanation)
    history: list[Cells] = [[f"{each.at_s:.3f} s", each.event, each.detail] for each in explanation.history]
    show_table("history", ["at", "event", "detail"], history, right=["at"])
    for number, decision in enumerate(explanation.decisions, 1):
        _show_decision(number, decision)


def _show_state(explanation: Explanation) -> None:
    model, priority = explanation.model, explanation.priority.name.lower()
    click.echo(f"{explanation.request_id}: {explanation.state.value} ({model}, {priority})")
    if explanation.queue_position:
        click.echo(f"number {explanation.queue_position} in line by {explanation.ordering_key}")
    if explanation.waiting_because:
        click.echo(f"waits because: {explanation.waiting_because}")
    if explanation.error:
        click.echo(f"ended with: {explanation.error}")


def _show_decision(number: int, decision: Decision) -> None:
    click.echo(f"\ndecision {number}: {decision.instance_id} by {decision.policy} after {decision.waited_s:.3f} s")
    for reason in decision.reasons:
        click.echo(f"  - {reason}")
    if decision.phase_reason:
        click.echo(f"  - {decision.phase.value}: {decision.phase_reason}")
    predicted = decision.prediction
    click.echo(
        f"  predicted: start {predicted.start_s:.3f} s, first token {predicted.first_token_s:.3f} s, finish "
        f"{predicted.finish_s:.3f} s, {predicted.output_tokens} tokens, cost {predicted.cost:.6g}; "
        f"{decision.reserved_tokens} KV tokens reserved; {decision.queue_length} left waiting"
    )
    scorers = sorted({name for each in decision.candidates for name in each.scores})
    rows = [_candidate_row(each, scorers) for each in decision.candidates]
    show_table("candidates", ["instance", "", *scorers, "filtered out"], rows, right=scorers)


def _candidate_row(candidate: Candidate, scorers: list[str]) -> Cells:
    scores = [f"{candidate.scores[name]:.6g}" if name in candidate.scores else "" for name in scorers]
    why_not = f"{candidate.filtered_by}: {candidate.filter_reason}" if candidate.filtered_by else ""
    return [candidate.instance_id, "chosen" if candidate.chosen else "", *scores, why_not]
